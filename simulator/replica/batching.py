"""Continuous batching as in vLLM: requests share engine steps, prompts are prefilled in chunks beside the decode."""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.moments import FloatArray, TokenMoments
from simulator.planning.problem import CapacityRows
from simulator.replica.extension import ask_admission
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
from simulator.replica.steady_state import steady_state
from simulator.replica.tokenlog import BETWEEN_STEPS, LifeEvent

LEAST_SHARE = 1e-9  # for work, where the base of a step alone is longer than the limit


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


class Batching(Discipline):
    """Work is what a request adds to the steps; the steps' base is what limits the load."""

    name = "batching"
    kernel = 0
    capacity_rows = CapacityRows.BATCHING
    queues = True
    slotted = False

    def replica(self, number: int, spec: ReplicaSpec, book: RequestBook) -> Replica:
        return BatchingReplica(number, spec, book)

    def work_s(self, replica: NominalReplica, inputs: FloatArray, outputs: FloatArray) -> FloatArray:
        return replica.step.work_s(inputs, outputs)

    def planned_work_s(self, replica: NominalReplica, tokens: TokenMoments) -> FloatArray:
        return replica.step.planned_work_s(tokens)

    def token_work_s(self, replica: NominalReplica) -> tuple[float, float]:
        return replica.step.prefill_s_per_token, replica.step.decode_s_per_sequence

    def share_for_work(self, replica: NominalReplica, tpot_s: Any) -> Any:
        return np.maximum(replica.step.share_for_work(tpot_s), LEAST_SHARE)

    def expected(self, replica: NominalReplica, replicas: int, loads: Sequence[TypeLoad]) -> Expected:
        loads = [load for load in loads if load.rate_per_s > 0 and load.tokens.output_tokens > 0]
        total = math.fsum(load.rate_per_s for load in loads)
        if not total:
            return Expected(replicas=replicas, requests_per_s=0.0, load=0.0, tpot_s=np.nan, delay_s=np.nan)
        state = steady_state(replica.step, token_budget=replica.token_budget, replicas=replicas, loads=loads)
        mix = np.array([load.rate_per_s for load in loads]) / total
        return Expected(
            replicas=replicas,
            requests_per_s=total,
            load=state.work_share,
            tpot_s=float(mix @ state.tpot_s),
            delay_s=float(mix @ state.e2e_s),
        )


BATCHING = Batching()
