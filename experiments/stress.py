"""The stress sweep: plan at nominal, then let delay and error be worse than planned.

Two ways, side by side. *Analytic* (stage 2 of arXiv 2604.07472): the placement is fixed, the true delay and error are
the nominal ones times a factor, and the routing is re-optimised as an LP with the unmet penalty. *Simulated*: the plan
with its own routing is replayed in a world that is slower and errs more by the factor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.demand import expected_demand
from experiments.planner import build_problem
from experiments.replay import Arriving, ReplayOptions, reality_of, replay_plan
from experiments.scenario import Scenario
from policies.judged import judged_plan
from policies.routing import route
from simulator.plan import Plan, plan_arrays, plan_cost_usd
from simulator.policy import Policy, StoppingRule
from simulator.problem import PlanningProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class StressPoint:
    """One policy at one factor."""

    policy: str
    seed: int
    factor: float
    analytic: Mapping[str, Any]
    simulated: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "seed": self.seed,
            "factor": self.factor,
            "analytic": dict(self.analytic),
            "simulated": None if self.simulated is None else dict(self.simulated),
        }


def nominal_problem(scenario: Scenario) -> PlanningProblem:
    """The scenario's expected demand for one hour."""
    return build_problem(scenario, expected_demand(scenario.types), name=f"{scenario.name}@nominal", period_h=1.0)


def analytic_point(problem: PlanningProblem, plan: Plan, factor: float) -> dict[str, Any]:
    """Stage 2: cost of the fixed placement after LP re-routing, all figures None if no routing keeps the unmet caps."""
    replicas = plan_arrays(problem, plan).replicas
    arrays = route(problem, replicas, delay_factor=factor, error_factor=factor)
    if arrays is None:
        return {"feasible": False, "cost_usd": None, "cost_parts_usd": None, "unmet_share": None}
    parts = plan_cost_usd(problem, arrays)
    parts["delay_penalty"] *= factor
    demand = problem.arrival_per_h
    return {
        "feasible": True,
        "cost_usd": sum(parts.values()),
        "cost_parts_usd": parts,
        "unmet_share": float(arrays.unmet @ demand / demand.sum()) if demand.sum() else 0.0,
    }


def simulated_point(
    scenario: Scenario, arriving: Arriving, options: ReplayOptions, plan: Plan, factor: float
) -> dict[str, Any]:
    """The plan with its own routing in a world that is worse by the factor."""
    reality = reality_of(scenario, delay_factor=factor, error_factor=factor)
    run = replay_plan(scenario, arriving, plan, replace(options, reality=reality))
    arrived = run.tally.count("arrived")
    return {
        "cost_usd": run.summary["cost_usd"],
        "cost_parts_usd": run.summary["cost_parts_usd"],
        "arrived": arrived,
        "violation_share": run.tally.count("slo_violations") / arrived if arrived else 0.0,
        "unserved_share": (arrived - run.tally.count("served")) / arrived if arrived else 0.0,
        "e2e_s": run.summary["e2e_s"],
        "type_intervals": run.summary["type_intervals"],
        "type_intervals_delay_broken": run.summary["type_intervals_delay_broken"],
        "type_intervals_error_broken": run.summary["type_intervals_error_broken"],
    }


def stress(
    problem: PlanningProblem,
    policies: Sequence[Policy],
    factors: Sequence[float],
    *,
    stop: StoppingRule,
    seed: int,
    simulate: Callable[[Plan, float], Mapping[str, Any]] | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[StressPoint]:
    """Evaluate every policy's nominal plan at every factor.

    Parameters
    ----------
    simulate
        `simulated_point` of a plan and a factor; without it only the analytic way is gone.
    """
    points = []
    for p, policy in enumerate(policies):
        plan, _ = judged_plan(policy, problem, incumbent=None, stop=stop, seed=seed)
        for f, factor in enumerate(factors):
            points.append(
                StressPoint(
                    policy=policy.name,
                    seed=seed,
                    factor=factor,
                    analytic=analytic_point(problem, plan, factor),
                    simulated=None if simulate is None else simulate(plan, factor),
                )
            )
            if progress is not None:
                progress((p * len(factors) + f + 1) / (len(policies) * len(factors)))
    return points
