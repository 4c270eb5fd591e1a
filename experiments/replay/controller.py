"""Problems from a scenario and a forecast, and the controller that lets a policy re-plan."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from experiments.measures.agreement import expected
from experiments.scenario.demand import Demand, DemandForecast, expected_demand
from experiments.scenario.scenario import Scenario
from policies.checking.checked_plan import checked_plan
from policies.registry import make_policy
from simulator.catalog import model_size, tier_size
from simulator.catalog.configuration import DeploymentKey
from simulator.engine import Controller, Observation
from simulator.errors import InfeasibleError, SolverError
from simulator.planning.batching_rows import BatchingType, batching_problem
from simulator.planning.paper_rows import paper_problem
from simulator.planning.plan import Plan, PlanStatus
from simulator.planning.policy import Policy, StoppingRule, demand_levels
from simulator.planning.problem import CapacityRows, MovingTerms, PlanningProblem, QueryType
from simulator.replica.port import Expected
from simulator.units import SECONDS_PER_H


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Headroom:
    """What is known of single routes, over the configurations of the scenario.

    Attributes
    ----------
    cap
        Shape (types, configurations): limit on the load of a replica instead of the scenario's, None for that; only of
        `batching` rows.
    usable
        Shape (types, configurations): False for routes that are ruled out, None for nowhere.
    """

    cap: npt.NDArray[np.float64] | None = None
    usable: npt.NDArray[np.bool_] | None = None


def build_problem(
    scenario: Scenario, demand: Demand, *, name: str, period_h: float, headroom: Headroom | None = None
) -> PlanningProblem:
    """State the planning problem of one period; the budget per hour is spread over it by its length."""
    limits, headroom = scenario.file.limits, headroom or Headroom()
    common: dict[str, Any] = {
        "name": name,
        "period_h": period_h,
        "budget_usd": limits.budget_usd_per_h * period_h,
        "storage_price_usd_per_gb_h": limits.storage_price_usd_per_gb_h,
        "storage_capacity_gb": limits.storage_capacity_gb,
        "max_replicas": limits.max_replicas,
        "configurations": scenario.configurations,
        "error": scenario.error_of(scenario.configurations),
    }
    query_types = [
        QueryType(
            name=rule.name,
            arrival_per_h=float(demand.arrival_per_h[i]),
            input_tokens=float(demand.tokens.input_tokens[i]),
            output_tokens=float(demand.tokens.output_tokens[i]),
            delay_slo_s=rule.delay_slo_s,
            error_slo=rule.error_slo,
            delay_penalty_usd_per_query_s=rule.delay_penalty_usd_per_query_s,
            unmet_penalty_usd_per_query=rule.unmet_penalty_usd_per_query,
            unmet_cap=rule.unmet_cap,
            token_storage_gb_per_token=rule.token_storage_gb_per_token,
        )
        for i, rule in enumerate(scenario.types)
    ]
    problem = _ROWS[scenario.file.capacity](scenario, demand, query_types, common, headroom)
    engine = scenario.file.engine
    terms = MovingTerms(
        provisioning_s=engine.provisioning_s,
        load_gb_per_s=engine.load_gb_per_s,
        drain_s=float(problem.delay_slo_s.max()),
    )
    return replace(problem, moving=terms)


def nominal_problem(scenario: Scenario, *, period_h: float = 1.0) -> PlanningProblem:
    """The scenario's expected demand for one period."""
    demand = expected_demand(scenario.types)
    return build_problem(scenario, demand, name=f"{scenario.name}@nominal", period_h=period_h)


def _paper(
    scenario: Scenario, demand: Demand, query_types: list[QueryType], common: dict[str, Any], headroom: Headroom
) -> PlanningProblem:
    del demand
    catalog = scenario.catalog
    delays = [
        scenario.delay_model.request_delay(
            catalog.models[c.model], catalog.tiers[c.tier], c.tensor_parallel, c.pipeline_parallel
        )
        for c in scenario.configurations
    ]
    delay_s = np.array([[delay.delay_s(q.input_tokens, q.output_tokens) for delay in delays] for q in query_types])
    problem = paper_problem(
        **common,
        query_types=query_types,
        models=[model_size(model) for model in catalog.models.values()],
        tiers=[tier_size(tier) for tier in catalog.tiers.values()],
        delay_s=delay_s,
    )
    assert (headroom.cap, headroom.usable) == (None, None), "headroom of single routes is of `batching` rows"
    return replace(problem, cap=np.full_like(problem.cap, scenario.file.limits.cap))


def _batching(
    scenario: Scenario, demand: Demand, query_types: list[QueryType], common: dict[str, Any], headroom: Headroom
) -> PlanningProblem:
    types = []
    for i, (query_type, rule) in enumerate(zip(query_types, scenario.types, strict=True)):
        assert rule.planned_tpot_s is not None  # the scenario's schema demands it
        types.append(
            BatchingType(
                query_type=query_type,
                tokens=demand.tokens[i],
                tpot_slo_s=rule.planned_tpot_s,
                ttft_slo_s=rule.ttft_slo_s,
            )
        )
    return batching_problem(
        **common,
        types=types,
        catalog=scenario.catalog,
        delay_model=scenario.delay_model,
        tpot_targets_s=scenario.tpot_targets_s,
        token_budget=scenario.file.engine.token_budget,
        cap=scenario.file.limits.cap if headroom.cap is None else headroom.cap,
        usable=headroom.usable,
        memory_utilisation=scenario.file.catalog.memory_utilisation,
    )


_ROWS: dict[CapacityRows, Callable[[Scenario, Demand, list[QueryType], dict[str, Any], Headroom], PlanningProblem]] = {
    CapacityRows.PAPER: _paper,
    CapacityRows.BATCHING: _batching,
}


class CountingController(Controller, Protocol):
    """A controller that tells afterwards what it did."""

    calls: int
    planning_s: float
    time_limits_hit: int
    infeasible: int
    predictions: list[tuple[float, Mapping[DeploymentKey, Expected]]]


class PlanningController:
    """Forecasts, states the problem, asks the policy and has its answer checked.

    After the run it tells how often it re-planned, how long that took, how many plans hit the time limit, how often
    there was none, and what each plan in force predicts of its deployments at the demand that was forecast
    (`predictions`, with the time from which each holds).

    Parameters
    ----------
    true_arrival_per_h
        For the oracle alone: what really arrives, shape (intervals, types).
    """

    def __init__(
        self,
        scenario: Scenario,
        policy: Policy,
        *,
        interval_s: float,
        stop: StoppingRule,
        seed: int,
        true_arrival_per_h: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self._scenario = scenario
        self._policy = policy
        self._interval_h = interval_s / SECONDS_PER_H
        self._forecast = DemandForecast(scenario.types, scenario.file.forecast, interval_s, true_arrival_per_h)
        self._stop = stop
        self._seed = seed
        self.calls = 0
        self.planning_s = 0.0
        self.time_limits_hit = 0
        self.infeasible = 0
        self.predictions: list[tuple[float, Mapping[DeploymentKey, Expected]]] = []

    def replan(self, seen: Observation, incumbent: Plan | None) -> Plan:
        """See `simulator.engine.Controller`. Without a plan that keeps the limits, or an answer of a solver, the
        incumbent stays in force; a first plan that a solver failed to give is that of `gh`, which needs none.

        Raises
        ------
        InfeasibleError
            If there is no plan at the start.
        RunError
            If the policy fails or its plan breaks a constraint: a defect of the policy, not of the input.
        """
        self._forecast.observe(seen)
        name = f"{self._scenario.name}@{seen.now_s:g}s"
        demand = self._forecast.demand()
        problem = build_problem(self._scenario, demand, name=name, period_h=self._interval_h)
        levels = demand_levels(self._policy)
        if levels:  # quantiles take longer than many a plan
            problem = replace(problem, demand_quantiles=self._forecast.quantiles(levels))
        self.calls += 1
        started = time.perf_counter()
        try:
            plan, _ = checked_plan(self._policy, problem, incumbent=incumbent, stop=self._stop, seed=self._seed)
        except (InfeasibleError, SolverError) as failure:
            if incumbent is not None:
                plan = incumbent
            elif isinstance(failure, SolverError):  # the greedy heuristic needs no solver
                plan, _ = checked_plan(make_policy("gh"), problem, incumbent=None, stop=self._stop, seed=self._seed)
            else:
                raise
            self.infeasible += 1
        finally:
            self.planning_s += time.perf_counter() - started
        self.predictions.append((seen.now_s, expected(self._scenario, demand, plan)))
        self.time_limits_hit += plan is not incumbent and plan.status is PlanStatus.TIME_LIMIT
        return plan


class FixedController:
    """Keeps one given plan for the whole run. It predicts nothing: which demand was planned for is not known."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.calls = 0
        self.planning_s = 0.0
        self.time_limits_hit = 0
        self.infeasible = 0
        self.predictions: list[tuple[float, Mapping[DeploymentKey, Expected]]] = []

    def replan(self, seen: Observation, incumbent: Plan | None) -> Plan:
        """See `simulator.engine.Controller`."""
        del seen, incumbent
        return self._plan
