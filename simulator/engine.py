"""The reference engine: the fleet in plain SimPy, one event per step. It defines what happens.

Time is in integer ticks of 2^-40 s. Events of one time run in this order, which is part of the contract: control
(re-plans, replicas that become ready, failures, the end), then user processes, then arrivals in the order of the trace,
then replica boundaries in the order in which they were scheduled. An idle replica starts through a boundary at the time
of the arrival, so that requests which arrive together are batched together.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt
import simpy

from simulator.balancer import BALANCERS
from simulator.errors import InputError
from simulator.fleet import DeploymentKey, Fleet, RentedReplica, ReplicaOffer, ReplicaState, replicas_by_deployment
from simulator.outcome import Outcome
from simulator.plan import Plan
from simulator.reality import OnFailure, Reality
from simulator.replica import NEVER, RequestBook
from simulator.results import Rental, RequestTable, RunResult
from simulator.rng import stream
from simulator.ticks import MAX_TICKS, TICKS_PER_S, to_ticks

SECONDS_PER_H = 3600.0


class Priority(IntEnum):
    """Order of events at equal times. SimPy's own timeouts, and so user processes, run at NORMAL."""

    CONTROL = 0
    NORMAL = 1
    ARRIVAL = 2
    BOUNDARY = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Classified arrivals: all arrays have the same length and are in the order of time.

    `arrival_tick` int64, never decreasing; `query_type` int32, index into `types`; tokens int64.
    """

    types: tuple[str, ...]
    arrival_tick: npt.NDArray[np.int64]
    query_type: npt.NDArray[np.int32]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("arrival_tick", "query_type", "input_tokens", "output_tokens"):
            getattr(self, name).setflags(write=False)

    def __len__(self) -> int:
        return len(self.arrival_tick)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """What can be known at a re-plan: the requests that have arrived, and the output of those that have finished.

    `output_tokens` is valid only where `finished` is True; elsewhere it is 0.
    """

    now_s: float
    arrival_s: npt.NDArray[np.float64]
    query_type: npt.NDArray[np.int32]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    finished: npt.NDArray[np.bool_]


class Controller(Protocol):
    """Decides at the start and at each interval: the forecast and the policy live behind it."""

    def replan(self, past: Past, incumbent: Plan | None) -> Plan:
        """Return the plan to move to; the incumbent itself means no change."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How long to run and how.

    After `horizon_s` there are no more arrivals or re-plans; the fleet drains for at most `grace_s`, and what is not
    finished then is in flight.
    """

    interval_s: float
    horizon_s: float
    grace_s: float = 600.0
    balancer: str = "least_outstanding_tokens"
    seed: int = 0


class ReferenceEngine:
    """One run of a workload against a fleet that a controller steers."""

    def __init__(
        self,
        workload: Workload,
        controller: Controller,
        offer_of: Callable[[DeploymentKey], ReplicaOffer],
        settings: EngineSettings,
        reality: Reality,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        size = len(workload)
        self._workload = workload
        self._controller = controller
        self._settings = settings
        self._reality = reality
        self._progress = progress
        self._env = simpy.Environment(initial_time=0)
        self._book = RequestBook(workload.input_tokens.tolist(), workload.output_tokens.tolist())
        self._fleet = Fleet(offer_of, self._book, workload.types)
        self._balance = BALANCERS[settings.balancer]
        self._arrival_tick: list[int] = workload.arrival_tick.tolist()
        self._type: list[int] = workload.query_type.tolist()
        self._route_draw: list[float] = stream(settings.seed, "router").random(size).tolist()
        self._balance_draw: list[float] = stream(settings.seed, "balancer").random(size).tolist()
        self._outcome = np.zeros(size, dtype=np.uint8)
        self._deployment = np.full(size, -1, dtype=np.int32)
        self._replica = np.full(size, -1, dtype=np.int32)
        self._routed: dict[int, int] = {}
        self._next_arrival = 0
        self._present = 0  # requests in the system
        self._present_since = 0
        self._area_ticks = 0  # integral of the requests in the system over time
        self._stay_ticks = 0  # sum of the stays of those that left: Little's law says that it equals the integral
        self._events = 0
        self._plans: list[tuple[float, Plan]] = []
        self._planning_s = 0.0
        self._finished_all = self._env.event()
        self._closed = False

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> RunResult:
        """Run to the end and account for everything.

        Raises
        ------
        InputError
            If the horizon is beyond what ticks can hold or before the last arrival, the interval is not above zero, or
            the arrivals are not in order.
        """
        settings = self._settings
        horizon = to_ticks(settings.horizon_s)
        if not settings.interval_s > 0:
            raise InputError(f"the interval between re-plans is {settings.interval_s:g} s, expected above 0")
        if (np.diff(self._workload.arrival_tick) < 0).any():
            raise InputError("the arrivals of a workload must be in the order of time")
        if self._arrival_tick and self._arrival_tick[-1] >= horizon:
            raise InputError(f"the last request arrives at or after the horizon of {settings.horizon_s:g} s")
        if horizon + to_ticks(settings.grace_s) > MAX_TICKS:
            raise InputError(f"a run of {settings.horizon_s / 86400:.1f} days is too long: ticks hold 48 days")
        cpu_started = time.process_time()
        self._replan(0)
        if len(self._workload):
            self._at(self._arrival_tick[0], Priority.ARRIVAL, self._arrive)
        self._at(horizon, Priority.CONTROL, self._close)
        self._schedule_interval(1)
        self._env.run(until=self._finished_all)
        engine_cpu_s = time.process_time() - cpu_started - self._planning_s
        return self._result(engine_cpu_s)

    def _at(self, tick: int, priority: Priority, callback: Callable[[simpy.Event], None]) -> None:
        """Schedule `callback` at `tick` with an explicit place among the events of that time."""
        event = simpy.Event(self._env)
        event._ok = True
        event._value = None
        event.callbacks.append(callback)
        self._env.schedule(event, priority, tick - self._env.now)  # type: ignore[arg-type]

    @property
    def _now(self) -> int:
        return self._env.now  # type: ignore[return-value]

    # -- control ----------------------------------------------------------------------------------------------------

    def _schedule_interval(self, index: int) -> None:
        start_s, horizon_s = index * self._settings.interval_s, self._settings.horizon_s
        # The second comparison: a start just below the horizon may round to the horizon's own tick.
        if start_s < horizon_s and to_ticks(start_s) < to_ticks(horizon_s):
            self._at(to_ticks(start_s), Priority.CONTROL, lambda _: self._interval(index))

    def _interval(self, index: int) -> None:
        if self._progress is not None:
            self._progress(index * self._settings.interval_s / self._settings.horizon_s)
        self._replan(self._now)
        self._schedule_interval(index + 1)

    def _replan(self, now: int) -> None:
        incumbent = self._plans[-1][1] if self._plans else None
        started = time.process_time()
        plan = self._controller.replan(self._past(now), incumbent)
        self._planning_s += time.process_time() - started
        if plan is incumbent:
            return
        self._plans.append((now / TICKS_PER_S, plan))
        if incumbent is None:  # the first fleet is rented early enough to be ready when the trace starts
            for key, count in replicas_by_deployment(plan).items():
                for _ in range(count):
                    self._make_ready(self._fleet.rent(key, now, now))
            self._fleet.apply(plan, now)
            return
        for replica in self._fleet.apply(plan, now):
            self._await_ready(replica)
        self._route_stranded()

    def _await_ready(self, replica: RentedReplica) -> None:
        def ready(_: simpy.Event) -> None:
            if replica.state is ReplicaState.LOADING:
                self._make_ready(replica)

        self._at(replica.ready_tick, Priority.CONTROL, ready)

    def _make_ready(self, replica: RentedReplica) -> None:
        self._fleet.became_ready(replica, self._now)
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
        self._fleet.end(replica, now)
        if was_ready and not self._closed:
            self._await_ready(self._fleet.rent(self._fleet.deployments[replica.deployment].key, now))
        for request in evicted:
            if self._reality.on_failure is OnFailure.FAIL:
                self._leave(request, Outcome.FAILED)
            else:
                self._route(request)

    def _close(self, _: simpy.Event) -> None:
        """The horizon: nothing new comes, the fleet drains."""
        self._closed = True
        self._fleet.drain_all(self._now)
        for deployment in self._fleet.deployments:  # nobody is left to serve these
            while deployment.waiting:
                self._leave(deployment.waiting.popleft(), Outcome.FAILED)
        self._finish_if_empty()
        self._at(self._now + to_ticks(self._settings.grace_s), Priority.CONTROL, self._finish)

    def _finish_if_empty(self) -> None:
        if self._closed and self._present == 0:
            self._finish(None)

    def _finish(self, _: simpy.Event | None) -> None:
        if not self._finished_all.triggered:
            self._finished_all.succeed()

    def _past(self, now: int) -> Past:
        count = self._next_arrival
        finished = self._outcome[:count] == Outcome.SERVED
        workload = self._workload
        return Past(
            now_s=now / TICKS_PER_S,
            arrival_s=workload.arrival_tick[:count] / TICKS_PER_S,
            query_type=workload.query_type[:count],
            input_tokens=workload.input_tokens[:count],
            output_tokens=np.where(finished, workload.output_tokens[:count], 0),
            finished=finished,
        )

    # -- requests ---------------------------------------------------------------------------------------------------

    def _arrive(self, _: simpy.Event) -> None:
        self._events += 1
        request = self._next_arrival
        self._next_arrival += 1
        if self._next_arrival < len(self._arrival_tick):
            self._at(self._arrival_tick[self._next_arrival], Priority.ARRIVAL, self._arrive)
        self._count_present(+1)
        self._route(request)

    def _route(self, request: int) -> None:
        index = self._fleet.routing[self._type[request]].draw(self._route_draw[request])
        if index is None:
            self._leave(request, Outcome.REJECTED_UNMET)
            return
        deployment = self._fleet.deployments[index]
        self._deployment[request] = index
        if not deployment.ready:
            self._replica[request] = -1  # it may have been on one that failed
            if self._closed:
                self._leave(request, Outcome.FAILED)
            else:
                deployment.waiting.append(request)
            return
        routed = self._routed.get(index, 0)
        self._routed[index] = routed + 1
        replica = self._balance(deployment.ready, routed, self._balance_draw[request])
        self._replica[request] = replica.number
        if not replica.service.fits(request):
            self._leave(request, Outcome.REJECTED_TOO_LARGE)
            return
        before = replica.service.next_tick
        replica.service.enqueue(request, self._now)
        if replica.service.next_tick != before:
            self._await_boundary(replica)

    def _route_stranded(self) -> None:
        """Requests that waited for a deployment without a ready replica are routed anew."""
        stranded = sorted(request for d in self._fleet.deployments for request in d.waiting)
        for deployment in self._fleet.deployments:
            deployment.waiting.clear()
        for request in stranded:
            self._route(request)

    def _await_boundary(self, replica: RentedReplica) -> None:
        tick = replica.service.next_tick
        if tick is None:
            return

        def boundary(_: simpy.Event) -> None:
            if replica.service.next_tick == tick:  # else an earlier boundary has replaced this one
                self._boundary(replica)

        self._at(tick, Priority.BOUNDARY, boundary)

    def _boundary(self, replica: RentedReplica) -> None:
        self._events += 1
        for request in replica.service.boundary(self._now):
            self._leave(request, Outcome.SERVED)
        self._await_boundary(replica)
        if replica.state is ReplicaState.DRAINING and replica.service.held == 0:
            self._fleet.end(replica, self._now)

    def _leave(self, request: int, outcome: Outcome) -> None:
        self._outcome[request] = outcome
        self._count_present(-1)
        self._stay_ticks += self._now - self._arrival_tick[request]
        self._finish_if_empty()

    def _count_present(self, change: int) -> None:
        now = self._now
        self._area_ticks += self._present * (now - self._present_since)
        self._present_since = now
        self._present += change

    # -- the account ------------------------------------------------------------------------------------------------

    def _result(self, engine_cpu_s: float) -> RunResult:
        self._count_present(0)
        end = self._now
        for replica in list(self._fleet.rented()):
            self._fleet.end(replica, end)
        book = self._book
        table = RequestTable(
            types=self._workload.types,
            deployments=tuple(deployment.key for deployment in self._fleet.deployments),
            arrival_tick=self._workload.arrival_tick,
            query_type=self._workload.query_type,
            input_tokens=self._workload.input_tokens,
            output_tokens=self._workload.output_tokens,
            outcome=self._outcome,
            deployment=self._deployment,
            replica=self._replica,
            start_tick=np.array(book.start_tick, dtype=np.int64),
            first_token_tick=_not_after(book.first_token_tick, end),
            finish_tick=np.array(book.finish_tick, dtype=np.int64),
            preemptions=np.array(book.preemptions, dtype=np.int32),
        )
        result = RunResult(
            requests=table,
            rentals=tuple(_rental(replica) for replica in self._fleet.replicas),
            plans=tuple(self._plans),
            end_s=end / TICKS_PER_S,
            horizon_s=self._settings.horizon_s,
            events=self._events,
            engine_cpu_s=engine_cpu_s,
        )
        self._assert_conserved(table, end)
        return result

    def _assert_conserved(self, table: RequestTable, end: int) -> None:
        """Nothing is lost, and Little's law holds as an identity: both in exact integers."""
        counts = np.bincount(table.outcome, minlength=len(Outcome))
        if self._next_arrival != len(table) or counts[Outcome.IN_FLIGHT] != self._present:
            raise AssertionError(f"requests were lost: outcomes {counts.tolist()}, {self._present} present")
        held = sum(replica.service.held for replica in self._fleet.replicas)
        if held != self._present:
            raise AssertionError(f"{self._present} requests are in flight, but the replicas hold {held}")
        in_flight = table.outcome == Outcome.IN_FLIGHT
        stay_ticks = self._stay_ticks + sum((end - table.arrival_tick[in_flight]).tolist())
        if stay_ticks != self._area_ticks:
            raise AssertionError(f"Little's law is broken: {stay_ticks} ticks of stay, integral {self._area_ticks}")


def _not_after(ticks: Sequence[int], end: int) -> npt.NDArray[np.int64]:
    return np.array([tick if tick <= end else NEVER for tick in ticks], dtype=np.int64)


def _rental(replica: RentedReplica) -> Rental:
    assert replica.end_tick is not None
    return Rental(
        replica=replica.number,
        deployment=replica.deployment,
        gpus=replica.offer.gpus,
        price_usd_per_h=replica.offer.price_usd_per_h,
        rent_s=replica.rent_tick / TICKS_PER_S,
        ready_s=replica.ready_tick / TICKS_PER_S,
        end_s=replica.end_tick / TICKS_PER_S,
        kv_capacity_tokens=replica.offer.spec.kv_capacity_tokens,
        kv_peak_tokens=replica.service.kv_peak_tokens,
        preemptions=replica.service.preemptions,
        steps=replica.service.steps,
    )
