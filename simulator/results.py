"""What a run leaves behind: columns per request, one row per rental, the plans. Plain data, no opinions."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from simulator.fleet import DeploymentKey
from simulator.outcome import Outcome
from simulator.plan import Plan
from simulator.replica import NEVER
from simulator.ticks import TICKS_PER_S

FloatColumn = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RequestTable:
    """One entry per request, in the order of arrival. Ticks that never came are NEVER; the seconds are then NaN.

    `query_type` and `deployment` are indices into `types` and `deployments`; `deployment` and `replica` are -1 for
    requests that were rejected before they were routed.
    """

    types: tuple[str, ...]
    deployments: tuple[DeploymentKey, ...]
    arrival_tick: npt.NDArray[np.int64]
    query_type: npt.NDArray[np.int32]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.uint8]
    deployment: npt.NDArray[np.int32]
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
class RunResult:
    """Everything that one run gives. `engine_cpu_s` is machine time and no part of the result."""

    requests: RequestTable
    rentals: tuple[Rental, ...]
    plans: tuple[tuple[float, Plan], ...]  # (time of the decision [s], plan)
    end_s: float
    horizon_s: float
    events: int
    engine_cpu_s: float = field(compare=False)

    def count(self, outcome: Outcome) -> int:
        return int((self.requests.outcome == outcome).sum())
