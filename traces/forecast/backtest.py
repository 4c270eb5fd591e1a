"""Backtests: each interval of a trace is forecast from those before it, and compared with what came."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from traces.forecast.counts import ServiceCounts
from traces.forecast.port import FloatArray, Setting
from traces.forecast.registry import ORACLE, make_forecaster

LEVELS = {"p50": 0.5, "p90": 0.9, "p95": 0.95}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors of the forecasts of one forecaster.

    Attributes
    ----------
    intervals
        That were scored.
    mape
        Mean of |mean - count| / count over the intervals with a request; None if there is none.
    wape
        Sum of |mean - count| over the sum of counts; None if that is zero, as for `pinball`.
    pinball
        Mean pinball loss of the quantile over the mean count.
    coverage
        Share of the intervals whose count is not above the quantile.
    """

    intervals: int
    mape: float | None
    wape: float | None
    pinball: dict[str, float | None]
    coverage: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backtest:
    """Forecast and real counts of a service, interval by interval.

    Attributes
    ----------
    first
        Number of the first interval here, counted from zero.
    counts, mean
        Shape (intervals,).
    quantiles
        At `LEVELS`, shape (intervals, levels).
    seconds
        Machine time: no part of the result.
    """

    forecaster: str
    service: str
    first: int
    counts: FloatArray
    mean: FloatArray
    quantiles: FloatArray
    seconds: float

    def score(self) -> Score:
        """Compute the errors over all intervals."""
        counts, error = self.counts, np.abs(self.mean - self.counts)
        some, total = counts > 0, float(counts.sum())
        above = counts[:, None] - self.quantiles
        levels = np.array(list(LEVELS.values()))
        losses = np.maximum(levels * above, (levels - 1) * above).sum(axis=0)
        covered = np.mean(above <= 0, axis=0)
        return Score(
            intervals=len(counts),
            mape=float(np.mean(error[some] / counts[some])) if some.any() else None,
            wape=float(error.sum() / total) if total else None,
            pinball={name: float(loss / total) if total else None for name, loss in zip(LEVELS, losses, strict=True)},
            coverage={name: float(share) for name, share in zip(LEVELS, covered, strict=True)},
        )

    def to_dict(self) -> dict[str, Any]:
        """The errors with the names of forecaster and service, as JSON holds them, without seconds of this machine."""
        return {"service": self.service, "forecaster": self.forecaster, **asdict(self.score())}


def backtest(
    name: str, service: ServiceCounts, *, season: int, first: int, horizon: int = 1, weight: float = 0.5
) -> Backtest:
    """Forecast each interval from number `first` on from all up to `horizon` intervals before it.

    Parameters
    ----------
    season
        In intervals.
    first
        At least `horizon`: there is no forecast of what comes earlier.
    """
    began = time.perf_counter()
    counts = service.counts[:, None]
    setting = Setting(series=1, season=season, weight=weight)
    forecaster = make_forecaster(name, setting, horizon=horizon, truth=counts if name == ORACLE else None)
    said = []
    for now in range(len(counts) - horizon):
        forecaster.observe(counts[now])
        if now + horizon >= first:
            said.append(forecaster.forecast(list(LEVELS.values())))
    return Backtest(
        forecaster=name,
        service=service.service,
        first=first,
        counts=service.counts[first:],
        mean=np.array([forecast.mean[-1, 0] for forecast in said]),
        quantiles=np.array([forecast.quantiles[-1, 0] for forecast in said]),
        seconds=time.perf_counter() - began,
    )
