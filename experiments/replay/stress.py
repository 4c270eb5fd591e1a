"""Plan at nominal, then let delay and error be worse than planned, three ways side by side.

*rerouted* (stage 2 of arXiv 2604.07472): the placement is fixed, the true delay and error are the nominal ones times a
factor, and the routing is re-optimised as an LP with the unmet penalty; what cannot be routed within the limits is
unmet. *fixed*: the plan's own routing goes on; a type whose mean delay or error is beyond its limit is violated, and so
is what goes to a deployment whose KV cache the longer stays overfill. *simulated*: the plan with its own routing is
replayed in a world that is slower and errs more by the factor, and every request is judged.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from experiments.replay.columns import run_columns
from experiments.replay.run import Arriving, ReplayOptions, engine_of, reality_of, replay_plan
from experiments.scenario.scenario import Scenario
from policies.heuristics.routing import route
from simulator.planning.plan import Plan, PlanArrays, plan_arrays, plan_cost_usd
from simulator.planning.problem import CapacityRows, PlanningProblem

INFLATED = {"both": (1, 1), "delay": (1, 0), "error": (0, 1)}  # whether delay, error are worse
TOLERANCE = 1e-6  # relative, as the checker's


Simulate = Callable[[float, float], Mapping[str, Any]]  # from the factors on delay and error to columns


def stressed(
    problem: PlanningProblem,
    plan: Plan,
    *,
    factors: Sequence[float],
    inflated: Sequence[str],
    simulate: Simulate | None = None,
) -> list[dict[str, Any]]:
    """A plan in worse and worse worlds: rows of results, one for each factor, kind of inflation and way.

    Parameters
    ----------
    factors
        By how much delay and error are worse than planned.
    inflated
        Names of `INFLATED`: what is worse.
    simulate
        Replays the plan; None: only the ways that need no simulation.
    """
    arrays, rows = plan_arrays(problem, plan), []
    for kind in inflated:
        for factor in factors:
            delay, error = (1 + worse * (factor - 1) for worse in INFLATED[kind])
            here = {"inflated": kind, "factor": float(factor)}
            rows.append({**here, "way": "rerouted", **rerouted(problem, arrays, delay, error)})
            rows.append({**here, "way": "fixed", **fixed(problem, arrays, delay, error)})
            if simulate is not None:
                rows.append({**here, "way": "simulated", **simulate(delay, error)})
    return rows


def simulated(scenario: Scenario, arriving: Arriving, plan: Plan, *, seed: int, engine: str = "compiled") -> Simulate:
    """What replays a plan at factors on delay and error; equal factors are replayed once."""
    chosen, functions = engine_of(scenario, engine)

    @cache
    def simulate(delay: float, error: float) -> Mapping[str, Any]:
        reality = reality_of(scenario, delay_factor=delay, error_factor=error)
        options = ReplayOptions(interval_s=300.0, seed=seed, engine=chosen, functions=functions, reality=reality)
        return run_columns(replay_plan(scenario, arriving, plan, options))

    return simulate


def rerouted(problem: PlanningProblem, arrays: PlanArrays, delay: float, error: float) -> dict[str, Any]:
    """Stage 2: the fixed placement routed anew by LP; not feasible if no routing keeps the unmet caps."""
    routed = route(problem, arrays.replicas, delay_factor=delay, error_factor=error)
    if routed is None:
        return {"feasible": False}
    unmet = unmet_share(problem, routed)
    return {"feasible": True, **money(problem, routed, delay), "unmet_share": unmet, "violation_share": unmet}


def fixed(problem: PlanningProblem, arrays: PlanArrays, delay: float, error: float) -> dict[str, Any]:
    """The plan's own routing: cost as if all were served, and the share of queries whose limits do not hold."""
    share = arrays.share
    late = delay * (share * problem.delay_s).sum(axis=1) > problem.delay_slo_s * (1 + TOLERANCE)
    wrong = error * (share * problem.error).sum(axis=1) > problem.error_slo * (1 + TOLERANCE)
    kv = (share * problem.kv).sum(axis=0) * (delay if problem.capacity_rows is CapacityRows.PAPER else 1.0)
    overfull = kv > arrays.replicas * (1 + TOLERANCE)
    violated = np.where(late | wrong, share.sum(axis=1), (share * overfull).sum(axis=1))
    unmet = unmet_share(problem, arrays)
    demand = problem.arrival_per_h
    return {
        "feasible": True,
        **money(problem, arrays, delay),
        "unmet_share": unmet,
        "violation_share": min(1.0, unmet + float(violated @ demand / demand.sum())),
    }


def unmet_share(problem: PlanningProblem, arrays: PlanArrays) -> float:
    """Of all queries."""
    demand = problem.arrival_per_h
    return float(arrays.unmet @ demand / demand.sum()) if demand.sum() else 0.0


def money(problem: PlanningProblem, arrays: PlanArrays, delay: float = 1.0) -> dict[str, float]:
    """Cost of one period, with the delay penalty of a world that is slower by a factor."""
    parts = plan_cost_usd(problem, arrays)
    parts["delay_penalty"] *= delay
    return {
        "cost_usd": math.fsum(parts.values()),
        "rent_usd": parts["rental"],
        "storage_usd": parts["model_storage"] + parts["token_storage"],
        "delay_penalty_usd": parts["delay_penalty"],
        "unmet_penalty_usd": parts["unmet_penalty"],
    }
