"""The naive model: what one writes first in SimPy for a fleet with continuous batching; a yardstick of the engines.

One process per request, one process per replica, an object per request; each request waits for two events of its own,
first token and finish. A replica takes a time-out per step and goes through its batch after each. It is written as
such a program is usually written, neither slowed down nor tuned, with the rules of the reference engine
(`simulator/replica/batching.py`, `BatchingReplica`), preemption included, so that both give the same times
up to float rounding.
"""

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SimProcess = Generator[simpy.Event, Any, None]


@dataclass(slots=True, eq=False)
class Request:
    """One request and what happened to it."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    first_token: simpy.Event
    finish: simpy.Event
    prompt_tokens: int = 0  # to prefill: the input and, after a preemption, what was generated before it
    prefilled: int = 0
    generated: int = 0
    first_token_s: float = float("nan")
    finish_s: float = float("nan")


@dataclass(frozen=True, slots=True)
class Step:
    """Time of one step, a + b x prefill tokens + c x sequences + d x context tokens."""

    base_s: float
    prefill_s_per_token: float
    decode_s_per_sequence: float
    context_s_per_token: float

    def time_s(self, prefill_tokens: int, sequences: int, context_tokens: int) -> float:
        return (
            self.base_s
            + self.prefill_s_per_token * prefill_tokens
            + self.decode_s_per_sequence * sequences
            + self.context_s_per_token * context_tokens
        )


class Replica:
    """A replica that batches continuously: first come first served, prompts in chunks where the budget ends."""

    def __init__(self, env: simpy.Environment, step: Step, token_budget: int, kv_capacity_tokens: int) -> None:
        self._env = env
        self._step = step
        self._token_budget = token_budget
        self._kv_capacity_tokens = kv_capacity_tokens
        self._reserved_tokens = 0  # of the KV cache, for the prompts in prefill
        self._context_tokens = 0  # of the KV cache, in decode
        self._waiting: deque[Request] = deque()
        self._prefilling: list[Request] = []
        self._decoding: list[Request] = []
        self._arrived = env.event()
        env.process(self._serve())

    def submit(self, request: Request) -> None:
        self._waiting.append(request)
        if not self._arrived.triggered:
            self._arrived.succeed()

    def _serve(self) -> SimProcess:
        while True:
            if not (self._waiting or self._prefilling or self._decoding):
                self._arrived = self._env.event()
                yield self._arrived
            preempted = self._preempt()
            sequences = len(self._decoding)
            self._context_tokens += sequences
            prefill_tokens = self._prefill(self._token_budget - sequences, admit=not preempted)
            yield self._env.timeout(self._step.time_s(prefill_tokens, sequences, self._context_tokens))
            self._end_step()

    def _preempt(self) -> bool:
        """Send the last requests back to the queue if the next step would overflow the cache."""
        preempted = False
        while self._context_tokens + self._reserved_tokens + len(self._decoding) > self._kv_capacity_tokens:
            if self._prefilling:
                request = self._prefilling.pop()
                self._reserved_tokens -= request.prompt_tokens
            else:
                request = self._decoding.pop()
                self._context_tokens -= request.input_tokens + request.generated - 1
            request.prompt_tokens = request.input_tokens + request.generated
            request.prefilled = 0
            self._waiting.appendleft(request)
            preempted = True
        return preempted

    def _prefill(self, budget_tokens: int, admit: bool) -> int:
        """Spend the budget on prompts, first on those under way, then on what is admitted; return the tokens spent."""
        spent_tokens = 0
        for request in self._prefilling:
            spent_tokens += self._prefill_chunk(request, budget_tokens - spent_tokens)
        if not admit:
            return spent_tokens
        room_tokens = self._kv_capacity_tokens - self._context_tokens - self._reserved_tokens
        while self._waiting and spent_tokens < budget_tokens and self._waiting[0].prompt_tokens <= room_tokens:
            request = self._waiting.popleft()
            self._prefilling.append(request)
            self._reserved_tokens += request.prompt_tokens
            room_tokens -= request.prompt_tokens
            spent_tokens += self._prefill_chunk(request, budget_tokens - spent_tokens)
        return spent_tokens

    @staticmethod
    def _prefill_chunk(request: Request, budget_tokens: int) -> int:
        tokens = max(0, min(request.prompt_tokens - request.prefilled, budget_tokens))
        request.prefilled += tokens
        return tokens

    def _end_step(self) -> None:
        """Give the tokens of the step that ends."""
        for request in self._decoding:
            request.generated += 1
        for request in [r for r in self._prefilling if r.prefilled == r.prompt_tokens]:
            self._prefilling.remove(request)
            self._decoding.append(request)
            self._reserved_tokens -= request.prompt_tokens
            self._context_tokens += request.prompt_tokens
            request.generated += 1  # the prefill itself gives one token
            if not request.first_token.triggered:
                request.first_token.succeed()
        for request in [r for r in self._decoding if r.generated == r.output_tokens]:
            self._decoding.remove(request)
            self._context_tokens -= request.input_tokens + request.generated - 1  # the last token is never written
            request.finish.succeed()


def _live(env: simpy.Environment, request: Request, replica: Replica) -> SimProcess:
    """The life of a request."""
    replica.submit(request)
    yield request.first_token
    request.first_token_s = env.now
    yield request.finish
    request.finish_s = env.now


def _arrive(env: simpy.Environment, requests: Sequence[Request], replicas: Sequence[Replica]) -> SimProcess:
    """Start the process of each request at its time, round robin over the replicas."""
    for number, request in enumerate(requests):
        if request.arrival_s > env.now:
            yield env.timeout(request.arrival_s - env.now)
        env.process(_live(env, request, replicas[number % len(replicas)]))


def run_naive(
    arrival_s: FloatArray,
    input_tokens: IntArray,
    output_tokens: IntArray,
    replicas: int,
    step: tuple[float, float, float, float],
    token_budget: int,
    kv_capacity_tokens: int,
) -> tuple[FloatArray, FloatArray]:
    """Replay requests on equal replicas, round robin; return the times of first token and finish of each, in seconds.

    Parameters
    ----------
    arrival_s
        In order of time, at least 0.
    input_tokens, output_tokens
        Input and output tokens of each, the latter at least 1.
    step
        Coefficients of the step time in seconds: base, per prefill token, per decoding sequence, per context token.
    token_budget
        Most tokens of one step, decode and prefill together.

    Raises
    ------
    ValueError
        If a request has no output token or can never fit in the KV cache.
    """
    if (output_tokens < 1).any():
        raise ValueError("the naive model wants at least one output token of each request")
    if (input_tokens + output_tokens - 1 > kv_capacity_tokens).any():
        raise ValueError("a request can never fit in the KV cache")
    env = simpy.Environment()
    fleet = [Replica(env, Step(*step), token_budget, kv_capacity_tokens) for _ in range(replicas)]
    requests = [
        Request(arrival, h, f, env.event(), env.event(), prompt_tokens=h)
        for arrival, h, f in zip(arrival_s.tolist(), input_tokens.tolist(), output_tokens.tolist(), strict=True)
    ]
    env.process(_arrive(env, requests, fleet))
    env.run()
    return np.array([r.first_token_s for r in requests]), np.array([r.finish_s for r in requests])
