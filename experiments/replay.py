"""Replay a trace against the fleet that a policy plans, interval by interval."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from experiments.metrics import Judgement, judge, summarise
from experiments.planner import CountingController, FixedController, PlanningController
from experiments.scenario import Scenario, classify
from simulator.engine import EngineSettings, ReferenceEngine, Workload
from simulator.errors import InputError
from simulator.fleet import replicas_by_deployment
from simulator.plan import Plan
from simulator.policy import Policy
from simulator.reality import Reality
from simulator.results import RunResult
from simulator.ticks import to_ticks_array
from simulator.validation import closest
from simulator.workload import Trace
from simulator.world import World

SHARE_TOLERANCE = 1e-6
HORIZON_STEP_S = 60.0
ENGINE = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTimes:
    """What the run took on this machine: kept apart from the results."""

    planning_s: float
    engine_cpu_s: float
    wall_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayRun:
    """One policy over one trace."""

    policy: str
    seed: int
    interval_s: float
    result: RunResult
    judgement: Judgement
    summary: dict[str, object]
    machine: MachineTimes


def horizon_of(trace: Trace) -> float:
    """The first whole minute after the last arrival: the same for every policy and interval."""
    return (math.floor(trace.span_s / HORIZON_STEP_S) + 1) * HORIZON_STEP_S


def workload_of(scenario: Scenario, trace: Trace) -> Workload:
    """Classify the requests and put their arrivals on the tick clock."""
    return Workload(
        types=tuple(rule.name for rule in scenario.types),
        arrival_tick=to_ticks_array(trace.arrival_s),
        query_type=classify(scenario, trace),
        input_tokens=trace.input_tokens.astype(np.int64),
        output_tokens=trace.output_tokens.astype(np.int64),
    )


def reality_of(scenario: Scenario, *, delay_factor: float = 1.0, error_factor: float = 1.0) -> Reality:
    """The scenario's world, slowed and blurred by the factors."""
    engine = scenario.file.engine
    return Reality(
        delay_factor=delay_factor,
        error_factor=error_factor,
        failures_per_replica_h=engine.failures_per_replica_h,
        on_failure=engine.on_failure,
    )


def replay_policy(
    scenario: Scenario,
    trace: Trace,
    policy: Policy,
    *,
    interval_s: float,
    seed: int,
    reality: Reality | None = None,
    progress: Callable[[float], None] | None = None,
) -> ReplayRun:
    """Replay `trace`; the policy re-plans every `interval_s` on a forecast from past arrivals.

    Parameters
    ----------
    reality
        The realised world, None for the scenario's own.
    progress
        Called with the share of the horizon that is done.

    Raises
    ------
    InputError
        If some requests match no query type, or no plan can keep the limits.
    """
    controller = PlanningController(scenario, policy, interval_s=interval_s, stop=scenario.file.stop.rule(), seed=seed)
    return _run(scenario, trace, policy.name, controller, interval_s, seed, reality, progress)


def replay_plan(
    scenario: Scenario,
    trace: Trace,
    plan: Plan,
    *,
    interval_s: float,
    seed: int,
    reality: Reality | None = None,
    progress: Callable[[float], None] | None = None,
) -> ReplayRun:
    """Replay `trace` against one plan that never changes; intervals only structure the tables."""
    refuse_unfit_plan(scenario, plan)
    name = f"plan[{plan.policy}]"
    return _run(scenario, trace, name, FixedController(plan), interval_s, seed, reality, progress)


def _run(
    scenario: Scenario,
    trace: Trace,
    name: str,
    controller: CountingController,
    interval_s: float,
    seed: int,
    reality: Reality | None,
    progress: Callable[[float], None] | None,
) -> ReplayRun:
    started = time.perf_counter()
    reality = reality or reality_of(scenario)
    engine = scenario.file.engine
    world = World(
        catalog=scenario.catalog,
        delay_model=scenario.delay_model,
        discipline=scenario.file.discipline,
        reality=reality,
        provisioning_s=engine.provisioning_s,
        load_gb_per_s=engine.load_gb_per_s,
        token_budget=engine.token_budget,
        memory_utilisation=scenario.file.catalog.memory_utilisation,
    )
    settings = EngineSettings(
        interval_s=interval_s,
        horizon_s=horizon_of(trace),
        grace_s=engine.grace_s,
        balancer=engine.balancer,
        seed=seed,
    )
    result = ReferenceEngine(workload_of(scenario, trace), controller, world.offer, settings, reality, progress).run()
    judgement = judge(scenario, result.requests, reality)
    summary = {
        "policy": name,
        "seed": seed,
        "engine": ENGINE,
        **summarise(scenario, result, judgement, interval_s),
        "replans": max(0, controller.calls - 1),
        "infeasible_replans": controller.infeasible,
        "fleet_changes": fleet_changes(result),
        "time_limits_hit": controller.time_limits_hit,
    }
    machine = MachineTimes(
        planning_s=controller.planning_s,
        engine_cpu_s=result.engine_cpu_s,
        wall_s=time.perf_counter() - started,
    )
    return ReplayRun(
        policy=name,
        seed=seed,
        interval_s=interval_s,
        result=result,
        judgement=judgement,
        summary=summary,
        machine=machine,
    )


def fleet_changes(result: RunResult) -> int:
    """Plans that asked for another fleet than the one before; a plan may change the routing alone."""
    fleets = [replicas_by_deployment(plan) for _, plan in result.plans]
    return sum(before != after for before, after in pairwise(fleets))


def refuse_unfit_plan(scenario: Scenario, plan: Plan) -> None:
    """Refuse a plan that this scenario cannot run.

    Raises
    ------
    InputError
        Naming every unknown model, tier or query type, every route to something that is not deployed, and every query
        type whose shares do not sum to one.
    """
    problems = []
    known = {(c.model, c.tier, c.tensor_parallel, c.pipeline_parallel) for c in scenario.configurations}
    for d, deployment in enumerate(plan.deployments):
        c = deployment.configuration
        if c.model not in scenario.catalog.models:
            problems.append(f"deployments[{d}].model {c.model!r}: {closest(c.model, scenario.catalog.models)}")
        elif c.tier not in scenario.catalog.tiers:
            problems.append(f"deployments[{d}].tier {c.tier!r}: {closest(c.tier, scenario.catalog.tiers)}")
        elif (c.model, c.tier, c.tensor_parallel, c.pipeline_parallel) not in known:
            problems.append(
                f"deployments[{d}]: {c.model} on {c.tier} with tensor_parallel {c.tensor_parallel} and "
                f"pipeline_parallel {c.pipeline_parallel} is no configuration of scenario {scenario.name}"
            )
    deployed = {deployment.configuration.pair for deployment in plan.deployments}
    names = [rule.name for rule in scenario.types]
    total = dict.fromkeys(names, 0.0)
    for r, route in enumerate(plan.routing):
        if (route.model, route.tier) not in deployed:
            problems.append(f"routing[{r}]: {route.model} on {route.tier} is not among the plan's deployments")
        if route.query_type not in total:
            problems.append(f"routing[{r}].query_type {route.query_type!r}: {closest(route.query_type, names)}")
        else:
            total[route.query_type] += route.share
    for u, (name, share) in enumerate(plan.unmet):
        if name not in total:
            problems.append(f"unmet[{u}].query_type {name!r}: {closest(name, names)}")
        else:
            total[name] += share
    problems += [
        f"shares of query type {name!r} sum to {share:.6g}, expected 1"
        for name, share in total.items()
        if abs(share - 1) > SHARE_TOLERANCE
    ]
    if problems:
        raise InputError(f"plan {plan.problem}: {problem}" for problem in problems)
