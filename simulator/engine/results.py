"""What a run leaves behind: columns per request, one row per rental, the plans. Plain data, no opinions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.catalog.configuration import DeploymentKey
from simulator.planning.plan import Plan
from simulator.replica.outcome import Outcome
from simulator.replica.port import NEVER
from simulator.replica.tokenlog import TokenLog
from simulator.ticks import TICKS_PER_S

FloatColumn = npt.NDArray[np.float64]

BATCH_REQUESTS = 2**16
"""Requests of a batch of results, all but the last: batches, and sums over them, do not depend on the engine."""

COLUMN_TYPES: dict[str, type[np.generic]] = {
    "arrival_tick": np.int64,
    "query_type": np.int32,
    "input_tokens": np.int64,
    "output_tokens": np.int64,
    "outcome": np.uint8,
    "deployment": np.int16,
    "replica": np.int32,
    "start_tick": np.int64,
    "first_token_tick": np.int64,
    "finish_tick": np.int64,
    "preemptions": np.int32,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class RequestTable:
    """One entry per request, in the order of arrival. Ticks that never came are NEVER; the seconds are then NaN.

    `query_type` and `deployment` are indices into `types` and `deployments`; `deployment` and `replica` are -1 for
    requests that were rejected before they were routed. What a run adds to the arrivals takes 35 bytes a request.
    Request `first_request + n` stands in row n: a table may be one batch of a run.
    """

    types: tuple[str, ...]
    deployments: tuple[DeploymentKey, ...]
    first_request: int = 0
    arrival_tick: npt.NDArray[np.int64]
    query_type: npt.NDArray[np.int32]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.uint8]
    deployment: npt.NDArray[np.int16]
    replica: npt.NDArray[np.int32]
    start_tick: npt.NDArray[np.int64]
    first_token_tick: npt.NDArray[np.int64]
    finish_tick: npt.NDArray[np.int64]
    preemptions: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.arrival_tick)

    def _since_arrival(self, ticks: npt.NDArray[np.int64]) -> FloatColumn:
        return np.where(ticks == NEVER, np.nan, (ticks - self.arrival_tick) / TICKS_PER_S)

    @cached_property
    def served(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.outcome == Outcome.SERVED)

    @cached_property
    def arrival_s(self) -> FloatColumn:
        return self.arrival_tick / TICKS_PER_S

    @cached_property
    def finish_s(self) -> FloatColumn:
        return np.where(self.finish_tick == NEVER, np.nan, self.finish_tick / TICKS_PER_S)

    @cached_property
    def ttft_s(self) -> FloatColumn:
        """Time to first token; NaN without a token."""
        return self._since_arrival(self.first_token_tick)

    @cached_property
    def e2e_s(self) -> FloatColumn:
        """Time from arrival to the last token; NaN unless served."""
        return self._since_arrival(self.finish_tick)

    @cached_property
    def tpot_s(self) -> FloatColumn:
        """Time per output token after the first; NaN unless served with two tokens or more."""
        defined = self.served & (self.output_tokens > 1)
        decode_s = (self.finish_tick - self.first_token_tick) / TICKS_PER_S
        return np.where(defined, decode_s / np.maximum(self.output_tokens - 1, 1), np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rental:
    """One replica over its life; the first fleet is rented before time zero."""

    replica: int
    deployment: int
    gpus: int
    price_usd_per_h: float
    rent_s: float
    ready_s: float
    end_s: float
    kv_capacity_tokens: int
    kv_peak_tokens: int
    preemptions: int
    steps: int


@dataclass(frozen=True, kw_only=True, eq=False)
class RunSummary:
    """What a run leaves besides its requests.

    Attributes
    ----------
    deployments
        Everything that was ever deployed; `RequestTable.deployment` and `Rental.deployment` are indices into it.
    counts
        Requests by outcome.
    plans
        Time of the decision [s] and plan.
    events
        Arrivals and replica boundaries.
    engine_cpu_s
        CPU time of the engine on this machine, without planning, reading and writing: no part of the result.
    log
        Steps and requests in detail, where the settings asked for it.
    """

    types: tuple[str, ...]
    deployments: tuple[DeploymentKey, ...]
    counts: Mapping[Outcome, int]
    rentals: tuple[Rental, ...]
    plans: tuple[tuple[float, Plan], ...]
    end_s: float
    horizon_s: float
    events: int
    engine_cpu_s: float = field(compare=False)
    log: TokenLog | None = None

    def count(self, outcome: Outcome) -> int:
        return self.counts[outcome]

    @property
    def arrived(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResult(RunSummary):
    """A run with all its requests in memory."""

    requests: RequestTable


def concatenate(
    batches: Sequence[RequestTable], types: tuple[str, ...], deployments: tuple[DeploymentKey, ...]
) -> RequestTable:
    """Batches of one run, in order, as one table; a run without requests has none."""
    columns: dict[str, Any] = {
        name: np.concatenate([np.zeros(0, dtype=dtype), *(getattr(batch, name) for batch in batches)])
        for name, dtype in COLUMN_TYPES.items()
    }
    return RequestTable(types=types, deployments=deployments, **columns)
