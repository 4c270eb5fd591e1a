"""The reference engine: requests and steps in plain SimPy and Python, one event per step. It defines what happens."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import simpy

from simulator.engine.base import Engine
from simulator.engine.port import Observation, Priority
from simulator.engine.results import BATCH_REQUESTS, RequestTable
from simulator.fleet.balancer import balancer_of
from simulator.fleet.replicas import RentedReplica, ReplicaState
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER, Replica, ReplicaSpec, RequestBook, Service
from simulator.replica.tokenlog import Recorder, TokenLog
from simulator.rng import draws


class ReferenceEngine(Engine):
    """See `Engine`. It keeps every request until the end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._book = RequestBook()
        self._services: list[Replica] = []  # by number
        super().__init__(*args, **kwargs)
        self._book.recorder = Recorder() if self._settings.token_log else None
        self._balance = balancer_of(self._settings.balancer)
        self._arrival_tick: list[int] = []
        self._type: list[int] = []
        self._route_draw: list[float] = []
        self._balance_draw: list[float] = []
        self._outcome: list[int] = []
        self._deployment: list[int] = []
        self._replica: list[int] = []
        self._routed: dict[int, int] = {}
        self._next_arrival = 0
        self._emitted = 0
        self._in_system = 0
        self._since = 0
        self._area_ticks = 0  # integral of the requests in the system over time
        self._unserved_ticks = 0  # stays of those that left without being served
        self._events = 0
        self._seen = _nothing(len(self.types))

    def _open_replica(self, number: int, deployment: int, spec: ReplicaSpec) -> Service:
        service = spec.discipline.replica(number, spec, self._book)
        self._services.append(service)
        return service

    def _present(self) -> int:
        return self._in_system

    def _observe(self) -> Observation:
        seen, self._seen = self._seen, _nothing(len(self.types))
        return Observation(self.now_s, *np.array(seen, dtype=np.int64).T)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _start_arrivals(self) -> None:
        self._take_chunk()

    def _take_chunk(self) -> None:
        """Take in the next chunk of arrivals, if there is one, and await its first."""
        chunk = self._next_chunk()
        if chunk is None:
            return
        first, size = len(self._arrival_tick), len(chunk)
        self._arrival_tick += chunk.arrival_tick.tolist()
        self._type += chunk.query_type.tolist()
        self._book.extend(chunk.input_tokens.tolist(), chunk.output_tokens.tolist())
        self._route_draw += draws(self._route_key, first, size).tolist()
        self._balance_draw += draws(self._balance_key, first, size).tolist()
        self._outcome += [Outcome.IN_FLIGHT.value] * size
        self._deployment += [-1] * size
        self._replica += [-1] * size
        self._emit()
        self._at(self._arrival_tick[first], Priority.ARRIVAL, self._arrive)

    def _arrive(self, _: simpy.Event) -> None:
        self._events += 1
        request = self._next_arrival
        self._next_arrival += 1
        if self._next_arrival < len(self._arrival_tick):
            self._at(self._arrival_tick[self._next_arrival], Priority.ARRIVAL, self._arrive)
        else:
            self._take_chunk()
        kind = self._type[request]
        seen = self._seen[kind]
        seen[0] += 1
        seen[1] += self._book.input_tokens[request]
        self._count(+1)
        self._route(request)

    def _route(self, request: int) -> None:
        index = self.fleet.routing[self._type[request]].draw(self._route_draw[request])
        if index is None:
            self._leave(request, Outcome.REJECTED_UNMET)
            return
        deployment = self.fleet.deployments[index]
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
        book = self._book
        replica = deployment.ready[0]
        if len(deployment.ready) > 1:
            replica = self._balance(
                deployment.ready,
                routed,
                self._balance_draw[request],
                book.input_tokens[request],
                book.output_tokens[request],
            )
        self._replica[request] = replica.number
        service = self._services[replica.number]
        if not service.fits(request):
            self._leave(request, Outcome.REJECTED_TOO_LARGE)
            return
        before = service.next_tick
        service.enqueue(request, self._now)
        if service.next_tick != before:
            self._await_boundary(replica, service)

    def _await_boundary(self, replica: RentedReplica, service: Replica) -> None:
        tick = service.next_tick
        if tick is None:
            return

        def boundary(_: simpy.Event) -> None:
            if service.next_tick == tick:  # else an earlier boundary has replaced this one
                self._boundary(replica, service)

        self._at(tick, Priority.BOUNDARY, boundary)

    def _boundary(self, replica: RentedReplica, service: Replica) -> None:
        self._events += 1
        finished = service.boundary(self._now)
        if finished:
            self._serve(finished)
        self._await_boundary(replica, service)
        if replica.state is ReplicaState.DRAINING and service.held == 0:
            self.fleet.end(replica, self._now)

    def _serve(self, finished: list[int]) -> None:
        book, served = self._book, Outcome.SERVED.value
        for request in finished:
            self._outcome[request] = served
            h, f = book.input_tokens[request], book.output_tokens[request]
            seen = self._seen[self._type[request]]
            seen[2] += 1
            seen[3] += f
            seen[4] += h * f
            seen[5] += f * f
        self._count(-len(finished))
        self._finish_if_empty()

    def _leave(self, request: int, outcome: Outcome) -> None:
        self._outcome[request] = outcome.value
        self._count(-1)
        self._unserved_ticks += self._now - self._arrival_tick[request]
        self._finish_if_empty()

    def _count(self, change: int) -> None:
        now = self._now
        self._area_ticks += self._in_system * (now - self._since)
        self._since = now
        self._in_system += change

    # -- the account ------------------------------------------------------------------------------------------------

    def _account(self) -> tuple[int, int, int]:
        self._count(0)
        return self._area_ticks, self._unserved_ticks, self._events

    def _batches(self, flush: bool) -> Iterator[RequestTable]:
        while self._emitted < self._next_arrival:
            stop = min(self._emitted + BATCH_REQUESTS, self._next_arrival)
            left = Outcome.IN_FLIGHT not in self._outcome[self._emitted : stop]
            if not flush and (stop - self._emitted < BATCH_REQUESTS or not left):
                return
            yield self._table(self._emitted, stop)
            self._emitted = stop

    def _table(self, start: int, stop: int) -> RequestTable:
        book, rows = self._book, slice(start, stop)
        now = self._now  # the static world knows the first token in advance
        first_token_tick = [tick if tick <= now else NEVER for tick in book.first_token_tick[rows]]
        return RequestTable(
            types=self.types,
            deployments=tuple(deployment.key for deployment in self.fleet.deployments),
            first_request=start,
            arrival_tick=np.array(self._arrival_tick[rows], dtype=np.int64),
            query_type=np.array(self._type[rows], dtype=np.int32),
            input_tokens=np.array(book.input_tokens[rows], dtype=np.int64),
            output_tokens=np.array(book.output_tokens[rows], dtype=np.int64),
            outcome=np.array(self._outcome[rows], dtype=np.uint8),
            deployment=np.array(self._deployment[rows], dtype=np.int16),
            replica=np.array(self._replica[rows], dtype=np.int32),
            start_tick=np.array(book.start_tick[rows], dtype=np.int64),
            first_token_tick=np.array(first_token_tick, dtype=np.int64),
            finish_tick=np.array(book.finish_tick[rows], dtype=np.int64),
            preemptions=np.array(book.preemptions[rows], dtype=np.int32),
        )

    def _token_log(self) -> TokenLog | None:
        recorder = self._book.recorder
        return None if recorder is None else recorder.log()


def _nothing(types: int) -> list[list[int]]:
    """The sums of an `Observation`, by query type: Python's integers, which are faster one at a time than NumPy's."""
    return [[0] * 6 for _ in range(types)]
