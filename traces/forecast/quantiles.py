"""Quantiles of a forecast, from the errors that its forecaster has made so far."""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from traces.forecast.port import ROUNDING, FloatArray, Forecast, PointForecaster, Setting

WINDOW = 100
"""Errors that are remembered, by lead: just enough for a p99."""

MIN_ERRORS = 10
"""Errors below which no quantile is taken from them."""

DOUBT = 0.25
"""Assumed relative standard deviation of a rate that nothing is known of."""

DOUBT_COUNTS_FOR = 4
"""Errors that the assumption counts for."""

TINY = 1e-12


class Forecaster:
    """A point forecaster with quantiles around what it says.

    The quantile of a level is the forecast plus the quantile of the forecaster's own past errors at the same lead,
    relative to what it had forecast or to the mean so far, whichever is more: of n errors the one of rank
    ceil((n + 1) level), as in split conformal prediction. While that is beyond the last of them, or while there are
    fewer than `MIN_ERRORS`, it is the quantile of a Poisson count whose rate is in doubt by as much as past errors say;
    a Gamma distribution of the same mean and variance stands for it. When a seasonal forecaster has seen its first
    season, the errors of what stood in for it are forgotten.

    Parameters
    ----------
    point
        Not used by anybody else.
    horizon
        How many intervals are forecast.
    certain
        Whether all quantiles are the forecast itself.
    """

    def __init__(self, point: PointForecaster, setting: Setting, *, horizon: int = 1, certain: bool = False) -> None:
        self._point = point
        self._setting = setting
        self._certain = certain
        self._ahead = point.predict(horizon)
        self._ahead.setflags(write=False)
        self._said: deque[FloatArray] = deque([] if setting.prior is None else [self._ahead], maxlen=horizon)
        self._errors: list[deque[FloatArray]] = [deque(maxlen=WINDOW) for _ in range(horizon)]
        self._total, self._seen = np.zeros(setting.series), 0
        self._waiting, self._waited = np.zeros(setting.series), 0.0

    def observe(self, counts: Sequence[float] | FloatArray, duration: float | None = None) -> None:
        """Take in the counts of the interval that has just ended.

        Parameters
        ----------
        counts
            Shape (series,).
        duration
            Time in which they came, in units of `Setting.step`; the whole interval if not given. Parts of an interval
            are put together where the forecaster counts intervals.
        """
        step = self._setting.step
        duration = step if duration is None else duration
        arrived = np.asarray(counts, dtype=np.float64)
        if not self._point.seasonal:
            self._update(arrived, duration)
            return
        self._waiting, self._waited = self._waiting + arrived, self._waited + duration
        intervals = math.floor(self._waited / step + ROUNDING)
        for _ in range(intervals):
            self._update(self._waiting / intervals, self._waited / intervals)
        if intervals:
            self._waiting, self._waited = np.zeros_like(self._waiting), 0.0

    def _update(self, counts: FloatArray, duration: float) -> None:
        rate = counts / duration
        self._total, self._seen = self._total + rate, self._seen + 1
        for lead, said in enumerate(reversed(self._said)):
            self._errors[lead].append((rate - said[lead]) / self._measure(said[lead]))
        if self._point.seasonal and self._seen == self._setting.season:
            for errors in self._errors:
                errors.clear()
        self._point.update(counts, duration)
        self._ahead = self._point.predict(len(self._errors))
        self._ahead.setflags(write=False)
        self._said.append(self._ahead)

    def forecast(self, levels: Sequence[float] = ()) -> Forecast:
        """Forecast the next intervals, with quantiles at levels between 0 and 1, in any order."""
        quantiles = np.repeat(self._ahead[:, :, None], len(levels), axis=2)
        if not self._certain:
            for lead, past in enumerate(self._errors):
                errors = np.sort(np.array(past).reshape(-1, self._setting.series), axis=0)
                for place, level in enumerate(levels):
                    quantiles[lead, :, place] = self._quantile(self._ahead[lead], errors, level)
        return Forecast(mean=self._ahead, levels=tuple(levels), quantiles=quantiles)

    def _quantile(self, mean: FloatArray, errors: FloatArray, level: float) -> FloatArray:
        """Quantile of one interval, from the sorted errors at its lead, shape (errors, series)."""
        rank = max(1, math.ceil((len(errors) + 1) * level - ROUNDING))
        if len(errors) >= MIN_ERRORS and rank <= len(errors):
            return self._around(mean, errors[rank - 1])
        doubted = _doubted(mean * self._setting.step, errors, level) / self._setting.step
        if len(errors) < MIN_ERRORS:
            return doubted
        return np.maximum(doubted, self._around(mean, errors[-1]))

    def _measure(self, said: FloatArray) -> FloatArray:
        """Denominator of a relative error: kept away from zero, so that the end of a silence is no endless error."""
        mean = self._total / max(self._seen, 1)
        return np.maximum(np.maximum(said, mean), 1 / self._setting.step)

    def _around(self, mean: FloatArray, error: FloatArray) -> FloatArray:
        return np.maximum(0.0, mean + error * self._measure(mean))


def _doubted(count: FloatArray, errors: FloatArray, level: float) -> FloatArray:
    """Quantile of a Poisson count of this mean whose rate is in doubt, as a Gamma distribution with its two moments."""
    doubt_squared = (DOUBT_COUNTS_FOR * DOUBT**2 + np.sum(errors**2, axis=0)) / (DOUBT_COUNTS_FOR + len(errors))
    scale = 1 + doubt_squared * count  # variance over mean
    count = np.maximum(count, TINY)  # no Gamma distribution has a mean of zero
    from scipy import special  # here: SciPy takes longer to load than most commands

    return np.asarray(scale * special.gammaincinv(count / scale, level))
