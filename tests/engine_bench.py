"""A bench for the engines: tiny fleets, scripted plans, and second opinions on both disciplines.

Times are ticks throughout. Tests choose coefficients of a few ticks, so that results can be had by hand. `run` lets
both engines do everything and holds them together, so that whatever a test says of a run it says of both.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import simulator.engine.base
from simulator.catalog.configuration import Configuration, DeploymentKey
from simulator.delay.port import StepTicks
from simulator.engine import ENGINES, Arrivals, Engine, EngineSettings, Observation, Workload, choose_engine
from simulator.engine.results import COLUMN_TYPES, RequestTable, RunResult, RunSummary, concatenate
from simulator.fleet.reality import OnFailure, Reality
from simulator.fleet.replicas import ReplicaOffer
from simulator.planning.plan import Deployment, Plan, PlanStatus, Route
from simulator.replica.batching import BATCHING
from simulator.replica.extension import Router
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER, ReplicaSpec
from simulator.replica.static import STATIC
from simulator.replica.tokenlog import TokenLog
from simulator.ticks import TICKS_PER_S

COLUMNS = ("outcome", "deployment", "replica", "start_tick", "first_token_tick", "finish_tick", "preemptions")
LONG = 10**6  # ticks; longer than any run by hand

Row = tuple[int, ...]  # arrival tick, input tokens, output tokens and, where there are several, the query type


def seconds(ticks: int) -> float:
    """Exact for the small numbers of ticks that tests use."""
    return ticks / TICKS_PER_S


def ticks(time_s: float) -> int:
    return round(time_s * TICKS_PER_S)


def batching(
    kv: int = LONG, budget: int = 2048, base: int = 10, prefill: int = 0, decode: int = 0, context: int = 0
) -> ReplicaSpec:
    """Continuous batching: by default every step takes ten ticks."""
    return ReplicaSpec(
        discipline=BATCHING,
        step=StepTicks(base=base, prefill_per_token=prefill, decode_per_sequence=decode, context_per_token=context),
        prefill_ticks_per_token=0,
        decode_ticks_per_token=0,
        kv_capacity_tokens=kv,
        token_budget=budget,
    )


def static(kv: int = 10**15, slots: int | None = 1, prefill: int = 0, decode: int = 1) -> ReplicaSpec:
    """The paper's world: by default one slot, and one tick of service per output token."""
    return ReplicaSpec(
        discipline=STATIC,
        step=StepTicks(base=0, prefill_per_token=0, decode_per_sequence=0, context_per_token=0),
        prefill_ticks_per_token=prefill,
        decode_ticks_per_token=decode,
        kv_capacity_tokens=kv,
        slots=slots,
    )


def offer(spec: ReplicaSpec, startup: int = 0) -> ReplicaOffer:
    return ReplicaOffer(spec=spec, startup_ticks=startup, gpus=1, price_usd_per_h=1.0)


def plan(
    replicas: Mapping[str, int],
    shares: Mapping[str, Mapping[str, float]] | None = None,
    unmet: Mapping[str, float] | None = None,
) -> Plan:
    """Replicas by tier, shares by query type and tier; by default everything of type `q` goes to the first tier."""
    if shares is None:
        shares = {"q": dict.fromkeys(list(replicas)[:1], 1.0)}
    return Plan(
        problem="bench",
        policy="script",
        status=PlanStatus.FEASIBLE,
        cost_usd=0.0,
        bound_usd=None,
        seconds=None,
        deployments=tuple(
            Deployment(
                configuration=Configuration(model="m", tier=tier, tensor_parallel=1, pipeline_parallel=1),
                replicas=count,
            )
            for tier, count in replicas.items()
        ),
        routing=tuple(
            Route(query_type=name, model="m", tier=tier, share=share)
            for name, row in shares.items()
            for tier, share in row.items()
        ),
        unmet=tuple((unmet or {}).items()),
    )


def workload(rows: Sequence[Row], types: tuple[str, ...] = ("q",)) -> Workload:
    columns = np.array([(*row, 0)[:4] for row in rows], dtype=np.int64).reshape(len(rows), 4).T
    return Workload(
        types=types,
        arrival_tick=columns[0],
        query_type=columns[3].astype(np.int32),
        input_tokens=columns[1],
        output_tokens=columns[2],
    )


@dataclass
class Script:
    """A controller that gives the plans in turn, the last one for ever, and keeps what it was shown."""

    plans: Sequence[Plan]
    seen: list[Observation] = field(default_factory=list)
    incumbents: list[Plan | None] = field(default_factory=list)

    def replan(self, seen: Observation, incumbent: Plan | None) -> Plan:
        self.seen.append(seen)
        self.incumbents.append(incumbent)
        return self.plans[min(len(self.seen), len(self.plans)) - 1]


Watcher = Callable[[Engine, list[Any]], Generator[Any, Any, Any]]
"""A user process that may leave notes."""


@dataclass
class Bench:
    """One engine with its script. `offers` is one for all tiers, or one per tier."""

    rows: Sequence[Row]
    plans: Sequence[Plan]
    offers: ReplicaOffer | ReplicaSpec | Mapping[str, ReplicaOffer]
    types: tuple[str, ...] = ("q",)
    interval: int = LONG
    horizon: int | None = None  # by default one tick after the last arrival
    grace: int = LONG
    balancer: str | Router = "least_outstanding_tokens"
    seed: int = 0
    reality: Reality = field(default_factory=Reality)
    engine: str = "reference"
    processes: Sequence[Watcher] = ()
    token_log: bool = False
    chunk: int | None = None  # arrivals at a time; by default they come as one workload

    def __post_init__(self) -> None:
        last = max((row[0] for row in self.rows), default=0)
        self.script = Script(self.plans)
        self.notes: list[Any] = []
        self.subject = choose_engine(self.engine).engine(
            self._arrivals(),
            self.script,
            self._offer,
            EngineSettings(
                interval_s=seconds(self.interval),
                horizon_s=seconds(last + 1 if self.horizon is None else self.horizon),
                grace_s=seconds(self.grace),
                balancer=self.balancer,
                seed=self.seed,
                token_log=self.token_log,
            ),
            self.reality,
            processes=[lambda engine, watcher=watcher: watcher(engine, self.notes) for watcher in self.processes],
        )

    def _arrivals(self) -> Workload | Arrivals:
        whole = workload(self.rows, self.types)
        if self.chunk is None:
            return whole
        starts = range(0, len(whole), self.chunk)
        return Arrivals(types=self.types, chunks=(whole.slice(k, k + self.chunk) for k in starts))

    def _offer(self, key: DeploymentKey) -> ReplicaOffer:
        if isinstance(self.offers, ReplicaSpec):
            return offer(self.offers)
        return self.offers if isinstance(self.offers, ReplicaOffer) else self.offers[key.tier]

    def run(self) -> RunResult:
        return self.subject.run()

    def story(self) -> "Story":
        """Run, and keep all that the run shows to anybody."""
        batches: list[RequestTable] = []
        summary = self.subject.stream(batches.append)
        requests = concatenate(batches, summary.types, summary.deployments)
        return Story(self.engine, summary, requests, batches, self.script.seen, self.notes)


@dataclass(frozen=True, eq=False)
class Story:
    """All that a run shows: to the caller, to the sink, to the controller, and to user processes."""

    engine: str
    summary: RunSummary
    requests: RequestTable
    batches: list[RequestTable]
    seen: list[Observation]
    notes: list[Any]

    @property
    def log(self) -> TokenLog:
        assert self.summary.log is not None
        return self.summary.log

    @property
    def result(self) -> RunResult:
        names = self.summary.__dataclass_fields__
        return RunResult(**{name: getattr(self.summary, name) for name in names}, requests=self.requests)


def agreed(*args, **kwargs) -> Story:
    """What both engines do with one bench; the arguments are those of `Bench` but for the engine."""
    first, *others = [Bench(*args, **kwargs, engine=name).story() for name in reversed(ENGINES)]
    for other in others:
        hold_together(first, other)
    return first


def run(*args, **kwargs) -> RunResult:
    """Run a bench in both engines, which must agree to the bit; the arguments are those of `Bench`."""
    return agreed(*args, **kwargs).result


def hold_together(one: Story, other: Story) -> None:
    """Everything that two engines show is the same, to the bit."""
    engines = f"{one.engine} and {other.engine}"
    for name in ("types", "deployments", "counts", "rentals", "plans", "end_s", "horizon_s", "events"):
        assert getattr(one.summary, name) == getattr(other.summary, name), f"{engines}: {name}"
    _same_requests(one.requests, other.requests, engines)
    assert [len(batch) for batch in one.batches] == [len(batch) for batch in other.batches], f"{engines}: batches"
    for mine, theirs in zip(one.batches, other.batches, strict=True):
        assert mine.first_request == theirs.first_request
        _same_requests(mine, theirs, f"{engines}, batch from {mine.first_request}")
    assert len(one.seen) == len(other.seen), f"{engines}: observations"
    for mine, theirs in zip(one.seen, other.seen, strict=True):
        for name in Observation.__slots__:
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), f"{engines}: {name}")
    assert one.notes == other.notes, f"{engines}: what user processes saw"
    assert (one.summary.log is None) == (other.summary.log is None)
    if one.summary.log is not None:
        np.testing.assert_array_equal(one.log.events, other.log.events, f"{engines}: events of the log")
        np.testing.assert_array_equal(single_steps(one.log), single_steps(other.log), f"{engines}: steps of the log")


def _same_requests(one: RequestTable, other: RequestTable, engines: str) -> None:
    for name, dtype in COLUMN_TYPES.items():
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype == dtype, name
        assert mine.shape == theirs.shape, name
        apart = np.flatnonzero(mine != theirs)
        where = f"{engines}: {name} of {len(apart)} requests, the first is row {apart[:1]}: "
        assert not len(apart), where + f"{mine[apart[:1]]}, {theirs[apart[:1]]}"


def single_steps(log: TokenLog) -> npt.NDArray[np.int64]:
    """Every step of a log on its own: replica, number, start, ticks, sequences, prefill tokens."""
    steps = log.segments[:, 3]
    replica, first_step, start, _, first, growth, sequences, prefill = log.segments.repeat(steps, axis=0).T
    j = np.arange(steps.sum()) - (np.cumsum(steps) - steps).repeat(steps)
    return np.array(
        [replica, first_step + j, start + j * first + j * (j - 1) // 2 * growth, first + j * growth, sequences, prefill]
    )


def rentals(result: RunResult) -> list[tuple[int, int, int]]:
    """Deployment, first and last paid tick of every replica."""
    return [(r.deployment, ticks(r.rent_s), ticks(r.end_s)) for r in result.rentals]


def column(result: RunResult, name: str) -> list[int]:
    return getattr(result.requests, name).tolist()


def outcomes(result: RunResult) -> list[Outcome]:
    return [Outcome(value) for value in result.requests.outcome]


def fail_at(monkeypatch, after_ready: Mapping[int, int], on_failure: OnFailure = OnFailure.REQUEUE) -> Reality:
    """Let the replicas of these numbers fail so many ticks after they become ready, and the others never."""
    original = simulator.engine.base.stream

    class Draw:
        def __init__(self, time_s: float) -> None:
            self.time_s = time_s

        def exponential(self, scale: float) -> float:
            return self.time_s

    def stream(seed: int, name: str):
        if not name.startswith("failure/"):
            return original(seed, name)
        after = after_ready.get(int(name.removeprefix("failure/")))
        return Draw(1e9 if after is None else seconds(after))

    monkeypatch.setattr(simulator.engine.base, "stream", stream)
    return Reality(failures_per_replica_h=1.0, on_failure=on_failure)


# -- second opinions: slow, with nothing kept incrementally ---------------------------------------------------------


@dataclass(eq=False)
class Request:
    """A request as the second opinions see it."""

    arrival: int
    input: int
    output: int
    generated: int = 0
    to_prefill: int = 0  # tokens of the prompt, and of what was generated before a preemption, not yet in the cache
    decodes: bool = False
    start: int = NEVER
    first_token: int = NEVER
    finish: int = NEVER
    preemptions: int = 0

    def kv(self) -> int:
        """Tokens of the KV cache that it takes: a prompt reserves all at once, the newest token is not written yet."""
        return self.input + self.generated - (1 if self.decodes else 0)

    def gain_token(self, now: int) -> None:
        if self.generated < self.output:
            self.generated += 1
            if self.first_token == NEVER:
                self.first_token = now

    def drop_cache(self) -> None:
        self.decodes = False
        self.to_prefill = 0


@dataclass
class Totals:
    steps: int = 0
    kv_peak_tokens: int = 0
    preemptions: int = 0


def serve_batching(requests: Sequence[Request], spec: ReplicaSpec, ready: int = 0, end: float = math.inf) -> Totals:
    """One replica, step by step and sequence by sequence; at `end` it is gone, before what would happen then."""
    totals = Totals()
    coming = list(requests)  # in the order of arrival
    waiting: list[Request] = []
    running: list[Request] = []  # in the order of admission
    now = ready
    stepping = False

    while coming or waiting or running:
        if not stepping:  # idle until somebody comes
            now = max(now, coming[0].arrival)
        if now >= end:
            break
        while coming and coming[0].arrival <= now:
            waiting.append(coming.pop(0))

        if stepping:  # 1. the step that ends gives its tokens
            totals.steps += 1
            for r in running:
                if r.decodes or r.to_prefill == 0:
                    r.gain_token(now)
                    r.decodes = True
            for r in [r for r in running if r.decodes and r.generated == r.output]:
                r.finish = now
                running.remove(r)

        preempts = False  # 2. the next decode step writes one token per decoding sequence
        while sum(r.kv() for r in running) + sum(r.decodes for r in running) > spec.kv_capacity_tokens:
            last = running.pop()
            last.drop_cache()
            last.preemptions += 1
            totals.preemptions += 1
            waiting.insert(0, last)
            preempts = True

        decoding = [r for r in running if r.decodes]  # 3. what is left of the budget goes to prefill
        budget = max(0, spec.token_budget - len(decoding))
        prefill = 0
        for r in running:
            if not r.decodes:
                chunk = min(budget - prefill, r.to_prefill)
                r.to_prefill -= chunk
                prefill += chunk
        while waiting and not preempts and prefill < budget and all(r.decodes or r.to_prefill == 0 for r in running):
            head = waiting[0]
            if sum(r.kv() for r in running) + len(decoding) + head.kv() > spec.kv_capacity_tokens:
                break
            running.append(waiting.pop(0))
            if head.start == NEVER:
                head.start = now
            chunk = min(head.kv(), budget - prefill)
            head.to_prefill = head.kv() - chunk
            prefill += chunk

        stepping = bool(running)  # 4. the next step
        if stepping:
            context = sum(r.kv() + 1 for r in decoding)
            used = context + sum(r.kv() for r in running if not r.decodes)
            totals.kv_peak_tokens = max(totals.kv_peak_tokens, used)
            now += max(1, spec.step.step(prefill, len(decoding), context))

    for r in running:
        r.drop_cache()
    return totals


def serve_static(requests: Sequence[Request], spec: ReplicaSpec, ready: int = 0, end: float = math.inf) -> Totals:
    """One replica: each request starts when it may, and never before its elders. No totals."""
    serving: list[tuple[int, Request]] = []
    now = ready
    for r in requests:
        now = max(now, r.arrival)
        while True:
            held = [(finish, other) for finish, other in serving if finish > now]
            tokens = sum(other.input + other.output for _, other in held) + r.input + r.output
            if tokens <= spec.kv_capacity_tokens and (spec.slots is None or len(held) < spec.slots):
                break
            now = min(finish for finish, _ in held)
        if now >= end:
            break
        decode = now + r.input * spec.prefill_ticks_per_token
        first_token = decode + spec.decode_ticks_per_token
        serving.append((decode + r.output * spec.decode_ticks_per_token, r))
        if r.start == NEVER:
            r.start = now
        if r.output and r.first_token == NEVER and first_token <= end:
            r.first_token = first_token
    for finish, r in serving:
        if finish < end:
            r.finish = finish
    return Totals()


def serve(requests: Sequence[Request], spec: ReplicaSpec, ready: int = 0, end: float = math.inf) -> Totals:
    batches = spec.discipline is BATCHING
    return (serve_batching if batches else serve_static)(requests, spec, ready, end)


def fits(row: Row, spec: ReplicaSpec) -> bool:
    """The last token of an answer needs no place in a real KV cache; the static world reserves one for it."""
    _, h, f, *_ = row
    tokens = h + f if spec.discipline is STATIC else h + max(f, 1) - 1
    return tokens <= spec.kv_capacity_tokens
