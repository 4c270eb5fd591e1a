"""A closed loop on one replica: clients that each keep one request in flight, as benchmark runs of real engines do.

All clients send at time zero; each sends its next request the moment its last one is answered, until all requests are
sent. The replica is that of the reference engine. Which step holds what is then independent of how long steps take:
every event is the end of a step. `schedule` uses that, so that step times can be fitted to a run without running it
again.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.delay import StepCost
from simulator.errors import InputError
from simulator.replica.batching import BatchingReplica
from simulator.replica.extension import Admission, CustomStep
from simulator.replica.port import NEVER, ReplicaSpec, RequestBook
from simulator.ticks import TICKS_PER_S

IntColumn = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """What became of each request, as columns in the order of sending [s]. All requests are answered."""

    sent_s: npt.NDArray[np.float64]
    first_token_s: npt.NDArray[np.float64]
    finish_s: npt.NDArray[np.float64]
    output_tokens: IntColumn
    preemptions: int
    steps: int

    @property
    def ttft_s(self) -> npt.NDArray[np.float64]:
        """Time to the first token of each request."""
        return self.first_token_s - self.sent_s

    @property
    def tpot_s(self) -> npt.NDArray[np.float64]:
        """Time per output token after the first, zero for answers of one token."""
        return (self.finish_s - self.first_token_s) / np.maximum(1, self.output_tokens - 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """What each step of a closed loop does, and between which steps each request is sent, answered first, and finished.

    `prompt_tokens`, `sequences` and `context_tokens` have one entry per step; the others one per request, counting
    steps that had ended by then.
    """

    prompt_tokens: IntColumn
    sequences: IntColumn
    context_tokens: IntColumn
    sent: IntColumn
    first_token: IntColumn
    finish: IntColumn


def one_prompt_a_step(token_budget: int) -> Admission:
    """Admit at most one prompt to a step; what exceeds the budget follows in chunks."""

    def admit(prompt_tokens: int, free_kv_tokens: int, budget_tokens: int, sequences: int, waiting: int) -> int:
        del free_kv_tokens, waiting
        return min(prompt_tokens, budget_tokens) if budget_tokens + sequences == token_budget else -1

    return admit


def waves() -> Admission:
    """Admit nobody while anybody decodes, then all that wait: a new rule for each replica, because it remembers."""
    filling = False

    def admit(prompt_tokens: int, free_kv_tokens: int, budget_tokens: int, sequences: int, waiting: int) -> int:
        nonlocal filling
        del free_kv_tokens
        filling = filling or sequences == 0
        if not filling or budget_tokens <= 0:
            return -1
        filling = waiting > 1
        return min(prompt_tokens, budget_tokens)

    return admit


def serve(spec: ReplicaSpec, *, clients: int, input_tokens: IntColumn, output_tokens: IntColumn) -> Served:
    """Answer requests in a closed loop.

    Parameters
    ----------
    spec
        A replica of the `batching` discipline.
    clients
        Requests in flight.
    input_tokens, output_tokens
        Of each request, in the order of sending; output at least one.

    Raises
    ------
    InputError
        If a request exceeds the KV cache.
    """
    sent, book, replica = _run(spec, clients, input_tokens, output_tokens)
    return Served(
        sent_s=sent / TICKS_PER_S,
        first_token_s=np.array(book.first_token_tick) / TICKS_PER_S,
        finish_s=np.array(book.finish_tick) / TICKS_PER_S,
        output_tokens=output_tokens,
        preemptions=replica.preemptions,
        steps=replica.steps,
    )


def schedule(spec: ReplicaSpec, *, clients: int, input_tokens: IntColumn, output_tokens: IntColumn) -> Schedule:
    """What `serve` does, step by step, whatever its steps take.

    Raises
    ------
    InputError
        If a request exceeds the KV cache.
    """
    log = _Log()
    nothing = StepCost(base_s=0.0, prefill_s_per_token=0.0, decode_s_per_sequence=0.0, context_s_per_token=0.0)
    spec = replace(spec, step_time=_OneTick(log.step, nothing))
    sent, book, _ = _run(spec, clients, input_tokens, output_tokens)
    steps = np.array(log.steps, dtype=np.int64).reshape(-1, 3)
    return Schedule(
        prompt_tokens=steps[:, 0],
        sequences=steps[:, 1],
        context_tokens=steps[:, 2],
        sent=sent,
        first_token=np.array(book.first_token_tick),
        finish=np.array(book.finish_tick),
    )


class _Log:
    """The steps that a replica asks the duration of."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, int]] = []

    def step(self, prompt_tokens: int, sequences: int, context_tokens: int, *cost: Any) -> float:
        del cost
        self.steps.append((prompt_tokens, sequences, context_tokens))
        return 0.0  # one tick: the least that a step takes, so that ticks count steps


class _OneTick(CustomStep):
    """Asks without the checks that a user's function needs."""

    __slots__ = ()

    def ticks(self, prefill_tokens: int, sequences: int, context_tokens: int) -> int:
        self.function(prefill_tokens, sequences, context_tokens, 0.0, 0.0, 0.0, 0.0)
        return 1


def _run(
    spec: ReplicaSpec, clients: int, input_tokens: IntColumn, output_tokens: IntColumn
) -> tuple[IntColumn, RequestBook, BatchingReplica]:
    book = RequestBook()
    requests = len(input_tokens)
    book.extend(input_tokens.tolist(), output_tokens.tolist())
    peak = max(map(book.peak_kv_tokens, range(requests)))
    if peak > spec.kv_capacity_tokens:
        raise InputError(f"a request of {peak} tokens exceeds the KV cache of {spec.kv_capacity_tokens}")
    replica = BatchingReplica(0, spec, book)
    sent = np.zeros(requests, dtype=np.int64)
    upcoming = min(clients, requests)
    for request in range(upcoming):
        replica.enqueue(request, 0)
    while replica.next_tick is not None:
        now = replica.next_tick
        for _ in replica.boundary(now):
            if upcoming < requests:
                sent[upcoming] = now
                replica.enqueue(upcoming, now)
                upcoming += 1
    assert NEVER not in book.finish_tick
    return sent, book, replica
