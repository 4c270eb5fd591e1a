"""What goes into an engine and what it asks for: arrivals, observations, the controller, the settings."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from simulator.engine.results import RequestTable
from simulator.planning.plan import Plan
from simulator.replica.extension import Router

IntColumn = npt.NDArray[np.int64]

CHUNK_REQUESTS = 2**15
"""Requests that an engine takes in at a time."""

MAX_TOKENS = 10**8
"""Most tokens of a prompt or an answer: sums over a replica then stay far inside 64 bits."""


class Priority(IntEnum):
    """Order of events at equal times. SimPy's own timeouts, and so user processes, run at NORMAL."""

    CONTROL = 0
    NORMAL = 1
    ARRIVAL = 2
    BOUNDARY = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Classified arrivals: all arrays have the same length and are in the order of time.

    `arrival_tick` int64, never decreasing; `query_type` int32, index into `types`; tokens int64, 0 to `MAX_TOKENS`.
    """

    types: tuple[str, ...]
    arrival_tick: IntColumn
    query_type: npt.NDArray[np.int32]
    input_tokens: IntColumn
    output_tokens: IntColumn

    def __post_init__(self) -> None:
        for name in ("arrival_tick", "query_type", "input_tokens", "output_tokens"):
            getattr(self, name).setflags(write=False)

    def __len__(self) -> int:
        return len(self.arrival_tick)

    def slice(self, start: int, stop: int) -> "Workload":
        """The requests from `start` to before `stop`, without a copy."""
        return Workload(
            types=self.types,
            arrival_tick=self.arrival_tick[start:stop],
            query_type=self.query_type[start:stop],
            input_tokens=self.input_tokens[start:stop],
            output_tokens=self.output_tokens[start:stop],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrivals:
    """A workload that comes in chunks, because it need not fit into memory: each later than the one before."""

    types: tuple[str, ...]
    chunks: Iterable[Workload]

    @staticmethod
    def of(workload: Workload) -> "Arrivals":
        """A workload that is in memory."""
        chunks = (workload.slice(k, k + CHUNK_REQUESTS) for k in range(0, len(workload), CHUNK_REQUESTS))
        return Arrivals(types=workload.types, chunks=chunks)

    def __iter__(self) -> Iterator[Workload]:
        """Chunks of at most `CHUNK_REQUESTS` requests, none of them empty."""
        for chunk in self.chunks:
            for k in range(0, len(chunk), CHUNK_REQUESTS):
                yield chunk.slice(k, k + CHUNK_REQUESTS)


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What happened since the re-plan before: sums by query type, all of shape (types,), int64.

    Nothing else can be known: not the future, and no answer that is still under way.

    Attributes
    ----------
    arrived, arrived_input_tokens
        Requests that arrived, whatever became of them, and the sum of their input tokens.
    finished, finished_output_tokens, finished_input_output, finished_output_squared
        Requests that finished, and the sums of f, of h x f and of f^2 over them (h input, f output tokens).
    """

    now_s: float
    arrived: IntColumn
    arrived_input_tokens: IntColumn
    finished: IntColumn
    finished_output_tokens: IntColumn
    finished_input_output: IntColumn
    finished_output_squared: IntColumn


class Controller(Protocol):
    """Decides at the start and at each interval: the forecast and the policy live behind it."""

    def replan(self, seen: Observation, incumbent: Plan | None) -> Plan:
        """Return the plan to move to; the incumbent itself means no change."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How long to run and how.

    After `horizon_s` there are no more arrivals or re-plans; the fleet drains for at most `grace_s`, and what is not
    finished then is in flight. With `token_log` the result says when each step ran and what each request went through.
    """

    interval_s: float
    horizon_s: float
    grace_s: float = 600.0
    balancer: str | Router = "least_outstanding_tokens"
    seed: int = 0
    token_log: bool = False


Sink = Callable[[RequestTable], None]
"""Takes requests that have left, `simulator.engine.results.BATCH_REQUESTS` at a time, in the order of arrival."""
