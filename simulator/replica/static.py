"""The paper's world: a request holds its part of a replica for a two-phase delay that nothing changes."""

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from simulator.moments import FloatArray, TokenMoments
from simulator.planning.problem import CapacityRows
from simulator.replica.port import (
    NEVER,
    Discipline,
    Expected,
    NominalReplica,
    Replica,
    ReplicaSpec,
    RequestBook,
    TypeLoad,
)
from simulator.replica.tokenlog import BETWEEN_STEPS, LifeEvent


class StaticReplica:
    """The paper's world: a request holds a slot, and the KV cache of all its tokens, for its own two-phase delay.

    First come first served; a blocked head blocks the queue. At a boundary what is due finishes first (in order of
    finish, then of request number), then the queue moves up.
    """

    __slots__ = (
        "_admitted",
        "_book",
        "_serving",
        "_spec",
        "_used_tokens",
        "_waiting",
        "held",
        "kv_peak_tokens",
        "next_tick",
        "number",
        "outstanding_tokens",
        "preemptions",
        "steps",
    )

    def __init__(self, number: int, spec: ReplicaSpec, book: RequestBook) -> None:
        self.number = number
        self._spec = spec
        self._book = book
        self._waiting: deque[int] = deque()
        self._serving: list[tuple[int, int]] = []  # heap of (finish tick, request)
        self._admitted: dict[int, None] = {}  # those in service, in order of admission
        self._used_tokens = 0
        self.next_tick: int | None = None
        self.outstanding_tokens = 0
        self.held = 0
        self.kv_peak_tokens = 0
        self.preemptions = 0
        self.steps = 0

    def fits(self, request: int) -> bool:
        return self._book.total_tokens(request) <= self._spec.kv_capacity_tokens

    def enqueue(self, request: int, now: int) -> None:
        self._waiting.append(request)
        self.held += 1
        self.outstanding_tokens += self._book.total_tokens(request)
        if len(self._waiting) == 1 and self._can_start(request):
            self.next_tick = now
        if self._book.recorder is not None:
            self._book.recorder.event(request, LifeEvent.QUEUED, now, self.number, BETWEEN_STEPS, 0)

    def boundary(self, now: int) -> list[int]:
        finished: list[int] = []
        serving, book = self._serving, self._book
        self.steps += 1
        while serving and serving[0][0] <= now:
            finish_tick, request = heapq.heappop(serving)
            del self._admitted[request]
            book.finish_tick[request] = finish_tick
            tokens = book.total_tokens(request)
            self._used_tokens -= tokens
            self.outstanding_tokens -= tokens
            self.held -= 1
            finished.append(request)
            self._record(request, LifeEvent.FINISHED, now, book.output_tokens[request])
        while self._waiting and self._can_start(self._waiting[0]):
            self._start(self._waiting.popleft(), now)
        self.next_tick = serving[0][0] if serving else None
        return finished

    def evict(self, now: int) -> list[int]:
        for request in self._admitted:  # starts over elsewhere: the static world knows no partial work
            if self._book.first_token_tick[request] > now:
                self._book.first_token_tick[request] = NEVER
        evicted = [*self._admitted, *self._waiting]
        for request in evicted:
            self._record(request, LifeEvent.EVICTED, now, 0)
        self._serving.clear()
        self._admitted.clear()
        self._waiting.clear()
        self._used_tokens = self.outstanding_tokens = self.held = 0
        self.next_tick = None
        return evicted

    def _record(self, request: int, kind: LifeEvent, now: int, tokens: int) -> None:
        if self._book.recorder is not None:
            self._book.recorder.event(request, kind, now, self.number, self.steps, tokens)

    def _can_start(self, request: int) -> bool:
        slots = self._spec.slots
        if slots is not None and len(self._serving) >= slots:
            return False
        return self._used_tokens + self._book.total_tokens(request) <= self._spec.kv_capacity_tokens

    def _start(self, request: int, now: int) -> None:
        book, spec = self._book, self._spec
        if book.start_tick[request] == NEVER:
            book.start_tick[request] = now
        prefill = book.input_tokens[request] * spec.prefill_ticks_per_token
        decode = book.output_tokens[request] * spec.decode_ticks_per_token
        if book.output_tokens[request] and book.first_token_tick[request] == NEVER:
            book.first_token_tick[request] = now + prefill + spec.decode_ticks_per_token
        self._record(request, LifeEvent.ADMITTED, now, book.input_tokens[request])
        heapq.heappush(self._serving, (now + prefill + decode, request))
        self._admitted[request] = None
        self._used_tokens += book.total_tokens(request)
        if self._used_tokens > self.kv_peak_tokens:
            self.kv_peak_tokens = self._used_tokens


class Static(Discipline):
    """Work is the part of the replica that a request holds, of its KV cache or of its slots, for as long as it takes.

    Nothing is expected of queues: times are those of a request that is served at once.
    """

    name = "static"
    kernel = 1
    capacity_rows = CapacityRows.PAPER
    queues = False
    slotted = True

    def replica(self, number: int, spec: ReplicaSpec, book: RequestBook) -> Replica:
        return StaticReplica(number, spec, book)

    def work_s(self, replica: NominalReplica, inputs: FloatArray, outputs: FloatArray) -> FloatArray:
        delay_s = replica.request_delay.delay_s(inputs, outputs)
        return np.asarray(_largest_part(replica, delay_s * (inputs + outputs), delay_s))

    def planned_work_s(self, replica: NominalReplica, tokens: TokenMoments) -> FloatArray:
        delay_s = replica.request_delay.delay_s(tokens.input_tokens, tokens.output_tokens)
        return np.asarray(_largest_part(replica, _held_token_s(replica, tokens), delay_s))

    def token_work_s(self, replica: NominalReplica) -> tuple[float, float]:
        return 0.0, 0.0  # tokens count by what is held along with them

    def share_for_work(self, replica: NominalReplica, tpot_s: Any) -> Any:
        return np.ones_like(tpot_s)

    def expected(self, replica: NominalReplica, replicas: int, loads: Sequence[TypeLoad]) -> Expected:
        """Little's law: the work that arrives in a second is what is held."""
        tokens = TokenMoments.stacked([load.tokens for load in loads])
        rates = np.array([load.rate_per_s for load in loads])
        delay_s = replica.request_delay.delay_s(tokens.input_tokens, tokens.output_tokens)
        total = float(rates.sum())
        return Expected(
            replicas=replicas,
            requests_per_s=total,
            load=float(_largest_part(replica, rates @ _held_token_s(replica, tokens), rates @ delay_s)) / replicas,
            tpot_s=replica.request_delay.decode_s_per_token if total else np.nan,
            delay_s=float(rates @ delay_s) / total if total else np.nan,
        )


def _held_token_s(replica: NominalReplica, tokens: TokenMoments) -> FloatArray:
    """E[delay (h + f)], term by term: tokens of the KV cache times the seconds for which they are held."""
    prefill_s, decode_s = replica.request_delay.prefill_s_per_token, replica.request_delay.decode_s_per_token
    known = tokens.input_squared
    input_squared = np.where(np.isnan(known), tokens.input_tokens**2, known)
    both = (prefill_s + decode_s) * tokens.input_output
    return np.asarray(prefill_s * input_squared + both + decode_s * tokens.output_squared)


def _largest_part(replica: NominalReplica, token_s: Any, delay_s: Any) -> Any:
    """Replica seconds by what is held of the KV cache, or of the slots if that is more."""
    part = token_s / max(replica.kv_capacity_tokens, 1)
    return part if replica.slots is None else np.maximum(part, delay_s / replica.slots)


STATIC = Static()
