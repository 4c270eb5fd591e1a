"""Replay a trace against the fleet that a policy plans, interval by interval.

Requests come in chunks and go in batches: nothing here holds all of them.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.measures.agreement import Agreement, agreements, expected_of
from experiments.measures.measured import Measured, Planning
from experiments.measures.metrics import measure, summary_of
from experiments.measures.tally import Judgement, Tally, judge
from experiments.replay.controller import CountingController, FixedController, PlanningController
from experiments.replay.fit import refuse_unfit_plan
from experiments.scenario.demand import ArrivalCounts
from experiments.scenario.functions import PARAMETERS, UserFunctions, load_functions
from experiments.scenario.scenario import Scenario, Unmatched, classify
from simulator.catalog.configuration import DeploymentKey
from simulator.engine import Arrivals, ChosenEngine, EngineSettings, Process, Workload, choose_engine
from simulator.engine.results import RequestTable, RunSummary
from simulator.fleet.reality import Reality
from simulator.fleet.world import World
from simulator.planning.plan import Plan
from simulator.planning.policy import Policy
from simulator.replica.port import Expected
from simulator.ticks import to_ticks, to_ticks_array
from simulator.workload import Trace
from traces.forecast.registry import ORACLE
from traces.source import Survey, TraceSource

HORIZON_STEP_S = 60.0

BatchSink = Callable[[RequestTable, Judgement, npt.NDArray[np.int32]], None]
"""Takes a batch of requests, what it is worth, and the source of each as an index into `Survey.sources`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arriving:
    """A surveyed trace: what is replayed, and what one pass over it told; counts only if they were asked for."""

    source: TraceSource
    survey: Survey
    counts: ArrivalCounts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How a replay runs.

    Attributes
    ----------
    interval_s
        Time between re-plans.
    reality
        The realised world, None for the scenario's own.
    token_log
        Whether the engine logs every step.
    processes
        SimPy processes of the user that run beside the fleet (docs/extending.md).
    """

    interval_s: float
    seed: int
    engine: ChosenEngine = field(default_factory=choose_engine)
    functions: UserFunctions = field(default_factory=UserFunctions)
    reality: Reality | None = None
    token_log: bool = False
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTimes:
    """What the run took on this machine: kept apart from the results, which are the same in every engine."""

    engine: str
    planning_s: float
    engine_cpu_s: float
    wall_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayRun:
    """One policy over one trace; `metrics` holds those of the registry by name."""

    policy: str
    seed: int
    interval_s: float
    result: RunSummary
    tally: Tally
    metrics: dict[str, Any]
    agreement: list[Agreement]
    machine: MachineTimes

    @property
    def summary(self) -> dict[str, Any]:
        """What `summary.json` says of the run."""
        return {"policy": self.policy, "seed": self.seed, **summary_of(self.metrics)}


def engine_of(scenario: Scenario, engine: str = "compiled") -> tuple[ChosenEngine, UserFunctions]:
    """The engine of that name, with the functions that the scenario names."""
    places = {
        name: None if stated is None else (stated, scenario.folder)
        for name in PARAMETERS
        for stated in (getattr(scenario.file.engine, name),)
    }
    functions = load_functions(places)
    return choose_engine(engine, functions.given(), scenario.discipline), functions


def engine_notes(scenario: Scenario, engine: str = "compiled") -> list[str]:
    """What a user has to know of the engine that will run, a line each; none if all is as asked."""
    chosen, _ = engine_of(scenario, engine)
    return [line for line in (chosen.warning, chosen.notice) if line]


def horizon_of(span_s: float) -> float:
    """The first whole minute after the last arrival: the same for every policy and interval."""
    return (math.floor(span_s / HORIZON_STEP_S) + 1) * HORIZON_STEP_S


def survey(scenario: Scenario, source: TraceSource, *, count_every_s: float | None = None) -> Arriving:
    """Look at a whole trace before anything runs.

    Parameters
    ----------
    count_every_s
        Count the arrivals of intervals of this length, which the oracle needs.

    Raises
    ------
    InputError
        From the trace's files; or if some requests match no query type, or the trace is longer than ticks can hold.
    """
    unmatched = Unmatched(scenario)
    counts = None if count_every_s is None else ArrivalCounts(scenario, count_every_s)

    def look(chunk: Trace) -> None:
        unmatched.look_at(chunk)
        if counts is not None:
            counts.look_at(chunk)

    found = source.survey(look)
    unmatched.refuse()
    to_ticks(horizon_of(found.span_s))
    return Arriving(source=source, survey=found, counts=counts)


class Requests:
    """The requests of a trace on their way through an engine, which knows query types but no sources."""

    def __init__(self, scenario: Scenario, source: TraceSource) -> None:
        self._scenario = scenario
        self._source = source
        self._sources: deque[npt.NDArray[np.int32]] = deque()  # of requests that have not come out yet

    def arrivals(self) -> Arrivals:
        """Classified and on the tick clock, chunk by chunk."""
        return Arrivals(types=tuple(rule.name for rule in self._scenario.types), chunks=self._chunks())

    def _chunks(self) -> Iterator[Workload]:
        for trace in self._source.chunks():
            self._sources.append(trace.source)
            yield workload_of(self._scenario, trace)

    def sources_of_next(self, count: int) -> npt.NDArray[np.int32]:
        """Sources of the next requests that come out, which they do in the order of arrival."""
        pieces = []
        while count:
            piece = self._sources.popleft()
            if len(piece) > count:
                self._sources.appendleft(piece[count:])
                piece = piece[:count]
            pieces.append(piece)
            count -= len(piece)
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)


def workload_of(scenario: Scenario, trace: Trace) -> Workload:
    """Requests of which every one matches a query type."""
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


def world_of(scenario: Scenario, reality: Reality, functions: UserFunctions | None = None) -> World:
    """What a replica of the scenario costs and how it serves, in a realised world."""
    engine, functions = scenario.file.engine, functions or UserFunctions()
    return World(
        catalog=scenario.catalog,
        delay_model=scenario.delay_model,
        discipline=scenario.discipline,
        reality=reality,
        provisioning_s=engine.provisioning_s,
        load_gb_per_s=engine.load_gb_per_s,
        token_budget=engine.token_budget,
        slots=engine.slots,
        memory_utilisation=scenario.file.catalog.memory_utilisation,
        step_time=functions.step_time,
        admission=functions.admission,
    )


def replay_policy(
    scenario: Scenario,
    arriving: Arriving,
    policy: Policy,
    options: ReplayOptions,
    *,
    sink: BatchSink | None = None,
    progress: Callable[[float], None] | None = None,
) -> ReplayRun:
    """Replay a trace; the policy re-plans at each interval on the scenario's forecast.

    Parameters
    ----------
    sink
        Gets every batch of requests as soon as all of them have left.
    progress
        Called with the share of the horizon that is done.

    Raises
    ------
    InputError
        If no plan can keep the limits.
    """
    controller = PlanningController(
        scenario,
        policy,
        interval_s=options.interval_s,
        stop=scenario.file.stop.rule(),
        seed=options.seed,
        true_arrival_per_h=_truth(scenario, arriving, options.interval_s),
    )
    return _run(scenario, arriving, policy.name, controller, options, sink, progress)


def _truth(scenario: Scenario, arriving: Arriving, interval_s: float) -> npt.NDArray[np.float64] | None:
    """What the oracle knows; counted in a pass of its own where the survey did not, None for all other forecasters."""
    if scenario.file.forecast.method != ORACLE:
        return None
    counts = arriving.counts
    if counts is None or counts.interval_s != interval_s:
        counts = ArrivalCounts(scenario, interval_s)
        for chunk in arriving.source.chunks():
            counts.look_at(chunk)
    return counts.per_h(horizon_of(arriving.survey.span_s))


def replay_plan(
    scenario: Scenario,
    arriving: Arriving,
    plan: Plan,
    options: ReplayOptions,
    *,
    sink: BatchSink | None = None,
    progress: Callable[[float], None] | None = None,
) -> ReplayRun:
    """Replay a trace against one plan that never changes; intervals only structure the tables."""
    refuse_unfit_plan(scenario, plan)
    return _run(scenario, arriving, f"plan[{plan.policy}]", FixedController(plan), options, sink, progress)


def _run(
    scenario: Scenario,
    arriving: Arriving,
    name: str,
    controller: CountingController,
    options: ReplayOptions,
    sink: BatchSink | None,
    progress: Callable[[float], None] | None,
) -> ReplayRun:
    started = time.perf_counter()
    reality = options.reality or reality_of(scenario)
    horizon_s = horizon_of(arriving.survey.span_s)
    settings = EngineSettings(
        interval_s=options.interval_s,
        horizon_s=horizon_s,
        grace_s=scenario.file.engine.grace_s,
        balancer=options.functions.router or scenario.file.engine.balancer,
        seed=options.seed,
        token_log=options.token_log,
    )
    tally = Tally(scenario, horizon_s=horizon_s, interval_s=options.interval_s)

    requests = Requests(scenario, arriving.source)

    def take(batch: RequestTable) -> None:
        judgement = judge(scenario, batch, reality)
        tally.add(batch, judgement)
        sources = requests.sources_of_next(len(batch))
        if sink is not None:
            sink(batch, judgement, sources)

    world = world_of(scenario, reality, options.functions)
    engine = options.engine.engine(
        requests.arrivals(), controller, world.offer, settings, reality, progress, options.processes
    )
    result = engine.stream(take)
    predictions = controller.predictions or _predictions_for_what_arrived(scenario, result, tally)
    planning = Planning(
        plans=controller.calls, infeasible=controller.infeasible, time_limits_hit=controller.time_limits_hit
    )
    measured = measure(Measured(scenario=scenario, run=result, tally=tally, planning=planning))
    machine = MachineTimes(
        engine=options.engine.name,
        planning_s=controller.planning_s,
        engine_cpu_s=result.engine_cpu_s,
        wall_s=time.perf_counter() - started,
    )
    return ReplayRun(
        policy=name,
        seed=options.seed,
        interval_s=options.interval_s,
        result=result,
        tally=tally,
        metrics=measured,
        agreement=agreements(result, tally.simulated, predictions),
        machine=machine,
    )


def _predictions_for_what_arrived(
    scenario: Scenario, result: RunSummary, tally: Tally
) -> list[tuple[float, Mapping[DeploymentKey, Expected]]]:
    """What the plans of a run predict of their deployments if what really arrives is known."""
    arrived = tally.arrived.arrived()
    return [(start_s, expected_of(scenario, arrived, plan)) for start_s, plan in result.plans]
