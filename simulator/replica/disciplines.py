"""Replicas and their service disciplines: passive state machines that the engine wakes at boundaries.

A replica knows the requests it holds, its KV cache and the tick of its next boundary; it knows neither SimPy nor the
fleet. The two disciplines are `BatchingReplica` (continuous batching as in vLLM) and `StaticReplica` (the paper's
world); `DISCIPLINES` is their registry. The order of things inside a boundary is part of the contract, because the
compiled engine must agree with this one to the bit.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from simulator.delay.port import StepTicks
from simulator.replica.extension import Admission, CustomStep, ask_admission
from simulator.replica.tokenlog import BETWEEN_STEPS, LifeEvent, Recorder

NEVER = -(2**63)  # tick of something that did not happen; written as null, never as a number


class Discipline(StrEnum):
    """How a replica serves the requests it holds."""

    BATCHING = "batching"
    STATIC = "static"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """What the engine must know of one replica of a configuration. Times are ticks of 2^-40 s (`simulator/ticks.py`).

    Attributes
    ----------
    step
        Cost of an engine step (`batching`).
    prefill_ticks_per_token, decode_ticks_per_token
        The two-phase delay of a request (`static`).
    kv_capacity_tokens
        Tokens that the KV cache holds.
    token_budget
        Most tokens, decode and prefill together, that one step takes (`batching`; chunked prefill).
    slots
        Most requests in service at once (`static`), None where the KV cache is the only limit.
    step_time
        A user's own step time instead of `step` (`batching`).
    admission
        A user's own rule instead of first come first served (`batching`).
    """

    discipline: Discipline
    step: StepTicks
    prefill_ticks_per_token: int
    decode_ticks_per_token: int
    kv_capacity_tokens: int
    token_budget: int = 2048
    slots: int | None = None
    step_time: CustomStep | None = None
    admission: Admission | None = None


class RequestBook:
    """Input and outcome of every request, as columns indexed by request number.

    `first_token_tick` and `finish_tick` are NEVER until they happen; `generated` counts the output tokens that a
    preempted or re-queued request had when it was last taken off a replica. `recorder` is there only if a log was asked
    for.
    """

    __slots__ = (
        "finish_tick",
        "first_token_tick",
        "generated",
        "input_tokens",
        "output_tokens",
        "preemptions",
        "recorder",
        "start_tick",
    )

    def __init__(self) -> None:
        self.input_tokens: list[int] = []
        self.output_tokens: list[int] = []
        self.start_tick: list[int] = []
        self.first_token_tick: list[int] = []
        self.finish_tick: list[int] = []
        self.generated: list[int] = []
        self.preemptions: list[int] = []
        self.recorder: Recorder | None = None

    def extend(self, input_tokens: list[int], output_tokens: list[int]) -> None:
        """Take in requests that have not happened yet."""
        size = len(input_tokens)
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.start_tick += [NEVER] * size
        self.first_token_tick += [NEVER] * size
        self.finish_tick += [NEVER] * size
        self.generated += [0] * size
        self.preemptions += [0] * size

    def peak_kv_tokens(self, request: int) -> int:
        """KV tokens just before the request finishes: the last token's own entry is never written."""
        return self.input_tokens[request] + max(self.output_tokens[request] - 1, 0)

    def total_tokens(self, request: int) -> int:
        return self.input_tokens[request] + self.output_tokens[request]


class Service(Protocol):
    """What the fleet sees of a replica, in any engine."""

    @property
    def outstanding_tokens(self) -> int:
        """Input and output tokens of the unfinished requests it holds."""
        ...

    @property
    def held(self) -> int:
        """Unfinished requests it holds."""
        ...

    @property
    def kv_peak_tokens(self) -> int:
        """Most KV tokens ever in use."""
        ...

    @property
    def preemptions(self) -> int: ...

    @property
    def steps(self) -> int: ...

    def evict(self, now: int) -> list[int]:
        """Give up every unfinished request, in order of admission, then of arrival, and be idle."""
        ...


class Replica(Service, Protocol):
    """What the reference engine asks of a replica."""

    next_tick: int | None  # tick of the next boundary, None while idle

    def fits(self, request: int) -> bool:
        """Whether the request could ever be served here."""
        ...

    def enqueue(self, request: int, now: int) -> None:
        """Take a request; sets `next_tick` to `now` if it could start at once."""
        ...

    def boundary(self, now: int) -> list[int]:
        """Complete what is due at `now`, start what can start, set `next_tick`; return the finished requests."""
        ...


@dataclass(slots=True)
class _Sequence:
    """A request in decode: its context when decode began, the step count then, and the step that finishes it."""

    context_tokens: int
    begin_step: int
    finish_step: int


class BatchingReplica:
    """Continuous batching with chunked prefill and preemption by recompute, first come first served.

    A step decodes one token of every running sequence and spends what is left of the token budget on prefill; its time
    is affine in prefill tokens, decoding sequences and their context tokens. At each boundary, in this order:

    1. the step that ends gives its tokens: sequences whose last token it was finish (in order of their finish step,
       then of request number), completed prefills give their first token and join the decode (in order of admission);
    2. if the next decode step would overflow the KV cache, the most recently admitted requests are preempted: their
       cache is dropped, and they go back to the head of the queue with the generated tokens added to their prompt;
    3. unless something was preempted, requests are admitted from the head of the queue while the token budget lasts and
       their whole prompt fits in the KV cache, which is reserved at once; the last one admitted may be prefilled in
       chunks over several steps. A blocked head blocks the queue;
    4. the next step starts, if there is anything to do.

    All sums are kept incrementally: a step costs O(1), a request O(log n).
    """

    __slots__ = (
        "_book",
        "_completing",
        "_context_tokens",
        "_decoding",
        "_finishing",
        "_partial",
        "_partial_left",
        "_prefilling_tokens",
        "_reserved_tokens",
        "_spec",
        "_started_tick",
        "_stepping",
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
        self._decoding: dict[int, _Sequence] = {}  # in order of admission
        self._finishing: list[tuple[int, int]] = []  # heap of (finish step, request); stale entries are skipped
        self._completing: list[int] = []  # prefills that the running step completes, in order of admission
        self._partial: int | None = None  # the one request whose prefill takes more than this step
        self._partial_left = 0  # its prompt tokens not yet prefilled
        self._context_tokens = 0  # KV tokens of the decoding sequences
        self._reserved_tokens = 0  # KV tokens reserved by requests in prefill
        self._stepping = False
        self._started_tick = self._prefilling_tokens = 0  # of the running step
        self.next_tick: int | None = None
        self.outstanding_tokens = 0
        self.held = 0
        self.kv_peak_tokens = 0
        self.preemptions = 0
        self.steps = 0

    def fits(self, request: int) -> bool:
        return self._book.peak_kv_tokens(request) <= self._spec.kv_capacity_tokens

    def enqueue(self, request: int, now: int) -> None:
        self._waiting.append(request)
        self.held += 1
        self.outstanding_tokens += self._book.total_tokens(request)
        if not self._stepping:
            self.next_tick = now
        if self._book.recorder is not None:
            self._book.recorder.event(request, LifeEvent.QUEUED, now, self.number, BETWEEN_STEPS, 0)

    def boundary(self, now: int) -> list[int]:
        finished: list[int] = []
        if self._stepping:
            self._end_step(now, finished)
        preempted = self._preempt(now)
        prefill_tokens = self._continue_prefill()
        if not preempted:
            prefill_tokens = self._admit(now, prefill_tokens)
        self._start_step(now, prefill_tokens)
        return finished

    def evict(self, now: int) -> list[int]:
        for request, sequence in self._decoding.items():
            self._book.generated[request] += 1 + self.steps - sequence.begin_step
        evicted = [*self._decoding, *self._completing]
        if self._partial is not None:
            evicted.append(self._partial)
        evicted += self._waiting
        if self._book.recorder is not None:
            for request in evicted:
                self._record(request, LifeEvent.EVICTED, now, self._book.generated[request])
        self._waiting.clear()
        self._decoding.clear()
        self._finishing.clear()
        self._completing.clear()
        self._partial = None
        self._partial_left = self._context_tokens = self._reserved_tokens = 0
        self._stepping = False
        self.next_tick = None
        self.outstanding_tokens = self.held = 0
        return evicted

    def _prompt_tokens(self, request: int) -> int:
        """Tokens to prefill: the prompt and, after a preemption, what was generated before it."""
        return self._book.input_tokens[request] + self._book.generated[request]

    def _record(self, request: int, kind: LifeEvent, now: int, tokens: int) -> None:
        assert self._book.recorder is not None
        self._book.recorder.event(request, kind, now, self.number, self.steps, tokens)

    def _end_step(self, now: int, finished: list[int]) -> None:
        if self._book.recorder is not None:
            self._book.recorder.step(
                self.number,
                self.steps,
                self._started_tick,
                now - self._started_tick,
                len(self._decoding),
                self._prefilling_tokens,
            )
        self.steps += 1
        finishing, decoding = self._finishing, self._decoding
        while finishing and finishing[0][0] <= self.steps:
            step, request = heapq.heappop(finishing)
            sequence = decoding.get(request)
            if sequence is not None and sequence.finish_step == step:
                del decoding[request]
                self._context_tokens -= sequence.context_tokens + step - sequence.begin_step
                self._finish(request, now, finished)
        book = self._book
        for request in self._completing:
            prompt = self._prompt_tokens(request)
            self._reserved_tokens -= prompt
            left = book.output_tokens[request] - book.generated[request] - 1  # the prefill itself gives one token
            if book.recorder is not None:
                self._record(request, LifeEvent.DECODING, now, prompt)
            if left >= 0 and book.first_token_tick[request] == NEVER:
                book.first_token_tick[request] = now
            if left <= 0:
                self._finish(request, now, finished)
                continue
            decoding[request] = _Sequence(prompt, self.steps, self.steps + left)
            heapq.heappush(finishing, (self.steps + left, request))
            self._context_tokens += prompt
        self._completing = []

    def _finish(self, request: int, now: int, finished: list[int]) -> None:
        self._book.finish_tick[request] = now
        self.held -= 1
        self.outstanding_tokens -= self._book.total_tokens(request)
        finished.append(request)
        if self._book.recorder is not None:
            self._record(request, LifeEvent.FINISHED, now, self._book.output_tokens[request])

    def _preempt(self, now: int) -> bool:
        preempted = False
        capacity = self._spec.kv_capacity_tokens
        while self._context_tokens + self._reserved_tokens + len(self._decoding) > capacity:
            if self._partial is not None:  # it was admitted last
                request = self._partial
                self._partial = None
                self._reserved_tokens -= self._prompt_tokens(request)
            else:
                request, sequence = self._decoding.popitem()
                elapsed = self.steps - sequence.begin_step
                self._context_tokens -= sequence.context_tokens + elapsed
                self._book.generated[request] += 1 + elapsed
            self._book.preemptions[request] += 1
            self.preemptions += 1
            self._waiting.appendleft(request)
            if self._book.recorder is not None:
                self._record(request, LifeEvent.PREEMPTED, now, self._book.generated[request])
            preempted = True
        return preempted

    def _continue_prefill(self) -> int:
        """Spend the token budget on the prefill under way; return the tokens spent."""
        if self._partial is None:
            return 0
        tokens = min(self._partial_left, max(0, self._spec.token_budget - len(self._decoding)))
        self._partial_left -= tokens
        if self._partial_left == 0:
            self._completing.append(self._partial)
            self._partial = None
        return tokens

    def _admit(self, now: int, prefill_tokens: int) -> int:
        """Admit from the head of the queue; return the prefill tokens of the step."""
        spec, book = self._spec, self._book
        sequences, admission = len(self._decoding), spec.admission
        room = spec.kv_capacity_tokens - self._context_tokens - self._reserved_tokens - sequences
        budget = spec.token_budget - sequences - prefill_tokens
        while self._waiting and self._partial is None and (budget > 0 or admission is not None):
            request = self._waiting[0]
            prompt = self._prompt_tokens(request)
            if prompt > room:
                break
            tokens = min(prompt, budget)
            if admission is not None:
                tokens = min(prompt, ask_admission(admission, prompt, room, budget, sequences, len(self._waiting)))
                if tokens < 0:
                    break
            self._waiting.popleft()
            if book.start_tick[request] == NEVER:
                book.start_tick[request] = now
            if book.recorder is not None:
                self._record(request, LifeEvent.ADMITTED, now, tokens)
            room -= prompt
            self._reserved_tokens += prompt
            budget -= tokens
            prefill_tokens += tokens
            if tokens == prompt:
                self._completing.append(request)
            else:
                self._partial = request
                self._partial_left = prompt - tokens
        return prefill_tokens

    def _start_step(self, now: int, prefill_tokens: int) -> None:
        sequences = len(self._decoding)
        if not sequences and not self._completing and self._partial is None:
            self._stepping = False
            self.next_tick = None
            return
        self._context_tokens += sequences  # each decoding sequence writes one token
        used = self._context_tokens + self._reserved_tokens
        if used > self.kv_peak_tokens:
            self.kv_peak_tokens = used
        if self._spec.step_time is None:
            duration = self._spec.step.step(prefill_tokens, sequences, self._context_tokens)
        else:
            duration = self._spec.step_time.ticks(prefill_tokens, sequences, self._context_tokens)
        self._stepping = True
        self._started_tick, self._prefilling_tokens = now, prefill_tokens
        self.next_tick = now + max(1, duration)


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


DISCIPLINES: dict[Discipline, Callable[[int, ReplicaSpec, RequestBook], Replica]] = {
    Discipline.BATCHING: BatchingReplica,
    Discipline.STATIC: StaticReplica,
}
