"""What all engines share: SimPy keeps the clock and everything rare.

Time is in integer ticks of 2^-40 s. Events of one time run in this order, which is part of the contract: control
(re-plans, replicas that become ready, failures, the end), then user processes, then arrivals in the order of the trace,
then replica boundaries. An idle replica starts through a boundary at the time of the arrival, so that requests which
arrive together are batched together.

This module holds the control: re-planning, start-up, failures, the horizon, the account at the end. Where requests go
and what replicas do with them is the data plane: `reference.py` defines it, `compiled.py` does the same faster.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import simpy

from simulator.catalog.configuration import DeploymentKey
from simulator.engine.account import WORD, Account, rental_of
from simulator.engine.clock import Call, TickEnvironment
from simulator.engine.port import (
    MAX_TOKENS,
    Arrivals,
    Controller,
    EngineSettings,
    Observation,
    Priority,
    Sink,
    Workload,
)
from simulator.engine.results import RequestTable, RunResult, RunSummary, concatenate
from simulator.errors import InputError
from simulator.fleet.reality import OnFailure, Reality
from simulator.fleet.replicas import Fleet, RentedReplica, ReplicaOffer, ReplicaState, replicas_by_deployment
from simulator.planning.plan import Plan
from simulator.replica.outcome import Outcome
from simulator.replica.port import ReplicaSpec, Service
from simulator.replica.tokenlog import TokenLog
from simulator.rng import draw_key, stream
from simulator.ticks import MAX_TICKS, TICKS_PER_S, to_ticks
from simulator.units import SECONDS_PER_H

T = TypeVar("T")
Process = Callable[["Engine"], Generator[simpy.Event, Any, Any]]


class Engine(ABC):
    """One run of a workload against a fleet that a controller steers.

    Parameters
    ----------
    arrivals
        The requests; a `Workload` is one that is in memory.
    controller
        Asked for a plan at the start and at each interval.
    offer_of
        Terms of a replica of each deployment.
    progress
        Called with the share of the horizon that is done.
    processes
        Processes of the user: each is called with the engine and gives a SimPy generator. It may wait on `engine.env`
        (whose unit is ticks: see `engine.timeout_s`), look at `engine.fleet`, and call `engine.replan` or
        `engine.fail`.
    """

    def __init__(
        self,
        arrivals: Arrivals | Workload,
        controller: Controller,
        offer_of: Callable[[DeploymentKey], ReplicaOffer],
        settings: EngineSettings,
        reality: Reality,
        progress: Callable[[float], None] | None = None,
        processes: Sequence[Process] = (),
    ) -> None:
        arrivals = Arrivals.of(arrivals) if isinstance(arrivals, Workload) else arrivals
        self.types = arrivals.types
        self.env = self._make_environment()
        self.fleet = Fleet(offer_of, self._open_replica, arrivals.types)
        self._chunks = iter(arrivals)
        self._controller = controller
        self._settings = settings
        self._reality = reality
        self._progress = progress
        self._processes = processes
        self._route_key = draw_key(settings.seed, "router")
        self._balance_key = draw_key(settings.seed, "balancer")
        self._horizon = 0
        self._last_arrival = 0
        self._plans: list[tuple[float, Plan]] = []
        self._outside_s = 0.0  # CPU time of planning, reading and writing
        self._finished_all = self.env.event()
        self._closed = False
        self._given = Account()
        self._sink: Sink = lambda _: None

    # -- the data plane ---------------------------------------------------------------------------------------------

    def _make_environment(self) -> simpy.Environment:
        return TickEnvironment(initial_time=0)

    @abstractmethod
    def _open_replica(self, number: int, deployment: int, spec: ReplicaSpec) -> Service:
        """Make the service of a replica that was just rented."""

    @abstractmethod
    def _start_arrivals(self) -> None:
        """Begin to take in requests."""

    @abstractmethod
    def _route(self, request: int) -> None:
        """Route a request at the present time, again or for the first time."""

    @abstractmethod
    def _leave(self, request: int, outcome: Outcome) -> None:
        """Take a request that no replica holds out of the system."""

    @abstractmethod
    def _observe(self) -> Observation:
        """What happened since the last call."""

    @abstractmethod
    def _present(self) -> int:
        """Requests in the system."""

    @abstractmethod
    def _batches(self, flush: bool) -> Iterator[RequestTable]:
        """Batches that are complete and not yet given; with `flush` all that is left."""

    @abstractmethod
    def _account(self) -> tuple[int, int, int]:
        """Integral of the requests in the system, stays of those that left unserved (modulo 2^64), and events."""

    def _token_log(self) -> TokenLog | None:
        return None

    # -- for processes of the user ----------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return self.env.now / TICKS_PER_S

    def timeout_s(self, delay_s: float) -> simpy.Event:
        """An event that many seconds from now; of its tick, it comes after control and before arrivals."""
        return self.env.timeout(to_ticks(delay_s))

    def replan(self) -> None:
        """Ask the controller for a plan now and move to it; nothing happens after the horizon."""
        if not self._closed:
            self._replan(self._now)

    def fail(self, replica: RentedReplica) -> None:
        """Let a replica fail now; nothing happens unless it is ready or draining."""
        self._fail(replica)

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> RunResult:
        """Run to the end and keep every request; see `stream`."""
        batches: list[RequestTable] = []
        summary = self.stream(batches.append)
        columns = {name: getattr(summary, name) for name in summary.__dataclass_fields__}
        return RunResult(**columns, requests=concatenate(batches, summary.types, summary.deployments))

    def stream(self, sink: Sink) -> RunSummary:
        """Run to the end, giving the requests away in batches as they leave, and account for everything.

        Raises
        ------
        InputError
            If the horizon is beyond what ticks can hold or before the last arrival, the interval is not above zero, or
            the arrivals are not in order.
        """
        settings = self._settings
        horizon = self._horizon = to_ticks(settings.horizon_s)
        if not settings.interval_s > 0:
            raise InputError(f"the interval between re-plans is {settings.interval_s:g} s, expected above 0")
        if horizon + to_ticks(settings.grace_s) > MAX_TICKS:
            raise InputError(f"a run of {settings.horizon_s / 86400:.1f} days is too long: ticks hold 48 days")
        self._sink = sink
        cpu_started = time.thread_time()
        self._replan(0)
        self._start_arrivals()
        self._at(horizon, Priority.CONTROL, self._close)
        self._schedule_interval(1)
        for process in self._processes:
            self.env.process(process(self))
        self.env.run(until=self._finished_all)
        end = self._now
        for replica in list(self.fleet.rented()):
            self._end(replica, end)
        self._emit(flush=True)
        engine_cpu_s = time.thread_time() - cpu_started - self._outside_s
        self._assert_conserved(end)
        return self._summary(end, engine_cpu_s)

    def _outside(self, call: Callable[[], T]) -> T:
        """Call something that is not the engine's work, and do not count its time."""
        started = time.thread_time()
        try:
            return call()
        finally:
            self._outside_s += time.thread_time() - started

    def _next_chunk(self) -> Workload | None:
        """The next arrivals, None after the last.

        Raises
        ------
        InputError
            If they are not in order or not before the horizon, or a request is too large to count.
        """
        chunk = self._outside(lambda: next(self._chunks, None))
        if chunk is None:
            return None
        ticks = chunk.arrival_tick
        if ticks[0] < self._last_arrival or (np.diff(ticks) < 0).any():
            raise InputError("the arrivals of a workload must be in the order of time")
        if ticks[-1] >= self._horizon:
            raise InputError(f"a request arrives at or after the horizon of {self._settings.horizon_s:g} s")
        self._check_tokens(chunk)
        if self._progress is not None and self._last_arrival:
            self._progress(self._last_arrival / self._horizon)
        self._last_arrival = int(ticks[-1])
        return chunk

    def _check_tokens(self, chunk: Workload) -> None:
        for tokens in (chunk.input_tokens, chunk.output_tokens):
            if tokens.min() < 0 or tokens.max() > MAX_TOKENS:
                raise InputError(f"a request has fewer than 0 or more than {MAX_TOKENS:,} tokens of prompt or answer")

    def _at(self, tick: int, priority: Priority, callback: Callable[[simpy.Event], None]) -> None:
        """Schedule `callback` at `tick` with an explicit place among the events of that time."""
        self.env.schedule(Call(self.env, callback), priority, tick - self.env.now)  # type: ignore[arg-type]

    @property
    def _now(self) -> int:
        return self.env.now  # type: ignore[return-value]

    # -- control ----------------------------------------------------------------------------------------------------

    def _schedule_interval(self, index: int) -> None:
        start_s, horizon_s = index * self._settings.interval_s, self._settings.horizon_s
        # The second comparison: a start just below the horizon may round to the horizon's own tick.
        if start_s < horizon_s and to_ticks(start_s) < self._horizon:
            self._at(to_ticks(start_s), Priority.CONTROL, lambda _: self._interval(index))

    def _interval(self, index: int) -> None:
        if self._progress is not None:
            self._progress(index * self._settings.interval_s / self._settings.horizon_s)
        self._replan(self._now)
        self._schedule_interval(index + 1)

    def _replan(self, now: int) -> None:
        incumbent = self._plans[-1][1] if self._plans else None
        seen = self._observe()
        plan = self._outside(lambda: self._controller.replan(seen, incumbent))
        if plan is incumbent:
            return
        self._plans.append((now / TICKS_PER_S, plan))
        if incumbent is None:  # the first fleet is rented early enough to be ready when the trace starts
            for key, count in replicas_by_deployment(plan).items():
                for _ in range(count):
                    self._make_ready(self.fleet.rent(key, now, now))
            self.fleet.apply(plan, now)
            return
        for replica in self.fleet.apply(plan, now):
            self._await_ready(replica)
        self._route_stranded()

    def _await_ready(self, replica: RentedReplica) -> None:
        def ready(_: simpy.Event) -> None:
            if replica.state is ReplicaState.LOADING:
                self._make_ready(replica)

        self._at(replica.ready_tick, Priority.CONTROL, ready)

    def _make_ready(self, replica: RentedReplica) -> None:
        self.fleet.became_ready(replica, self._now)
        self._await_failure(replica)
        self._route_stranded()

    def _await_failure(self, replica: RentedReplica) -> None:
        rate_per_h = self._reality.failures_per_replica_h
        if rate_per_h <= 0:
            return
        draw = stream(self._settings.seed, f"failure/{replica.number}").exponential(SECONDS_PER_H / rate_per_h)
        if self._now + draw * TICKS_PER_S < MAX_TICKS:
            self._at(self._now + to_ticks(draw), Priority.CONTROL, lambda _: self._fail(replica))

    def _fail(self, replica: RentedReplica) -> None:
        if replica.state not in (ReplicaState.READY, ReplicaState.DRAINING):
            return
        was_ready = replica.state is ReplicaState.READY
        now = self._now
        evicted = replica.service.evict(now)
        self._end(replica, now)
        if was_ready and not self._closed:
            self._await_ready(self.fleet.rent(self.fleet.deployments[replica.deployment].key, now))
        for request in evicted:
            if self._reality.on_failure is OnFailure.FAIL:
                self._leave(request, Outcome.FAILED)
            else:
                self._route(request)

    def _end(self, replica: RentedReplica, tick: int) -> None:
        self.fleet.end(replica, tick)

    def _close(self, _: simpy.Event) -> None:
        """The horizon: nothing new comes, the fleet drains."""
        self._closed = True
        self.fleet.drain_all(self._now)
        for request in self._take_waiting():  # nobody is left to serve these
            self._leave(request, Outcome.FAILED)
        self._finish_if_empty()
        self._at(self._now + to_ticks(self._settings.grace_s), Priority.CONTROL, self._finish)

    def _finish_if_empty(self) -> None:
        if self._closed and self._present() == 0:
            self._finish(None)

    def _finish(self, _: simpy.Event | None) -> None:
        if not self._finished_all.triggered:
            self._finished_all.succeed()

    def _take_waiting(self) -> list[int]:
        """Requests that wait for a deployment without a ready replica, in the order of arrival; they wait no more."""
        waiting = sorted(request for deployment in self.fleet.deployments for request in deployment.waiting)
        for deployment in self.fleet.deployments:
            deployment.waiting.clear()
        return waiting

    def _route_stranded(self) -> None:
        """Requests that waited for a ready replica are routed anew."""
        for request in self._take_waiting():
            self._route(request)

    # -- the account ------------------------------------------------------------------------------------------------

    def _emit(self, flush: bool = False) -> None:
        for batch in self._batches(flush):
            self._given.take(batch)
            self._outside(partial(self._sink, batch))

    def _summary(self, end: int, engine_cpu_s: float) -> RunSummary:
        return RunSummary(
            types=self.types,
            deployments=tuple(deployment.key for deployment in self.fleet.deployments),
            counts=self._given.counts(),
            rentals=tuple(rental_of(replica) for replica in self.fleet.replicas),
            plans=tuple(self._plans),
            end_s=end / TICKS_PER_S,
            horizon_s=self._settings.horizon_s,
            events=self._account()[2],
            engine_cpu_s=engine_cpu_s,
            log=self._token_log(),
        )

    def _assert_conserved(self, end: int) -> None:
        """Nothing is lost, and Little's law holds as an identity: both in exact integers."""
        counts = self._given.counts()
        if sum(counts.values()) != self._given.rows or counts[Outcome.IN_FLIGHT] != self._present():
            raise AssertionError(f"requests were lost: outcomes {counts}, {self._present()} present")
        held = sum(replica.service.held for replica in self.fleet.replicas)
        if held != self._present():
            raise AssertionError(f"{self._present()} requests are in flight, but the replicas hold {held}")
        integral, unserved, _ = self._account()
        stay_ticks = (unserved + self._given.stay_ticks(end)) % WORD
        if stay_ticks != integral % WORD:
            raise AssertionError(f"Little's law is broken: {stay_ticks} ticks of stay, integral {integral}")
