"""Forecasters of the mean rate, from the last interval to a pool that weighs its members by their errors."""

import math
from typing import ClassVar

import numpy as np

from traces.forecast.port import ROUNDING, FloatArray, Setting

PROFILE_WEIGHT = 0.2
"""Weight of the latest season in a seasonal profile."""

POOL_WEIGHTS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Smoothing weights of the pool, from a calm level to the last value."""

POOL_MEMORY = 0.98
"""What an error of a member counts for an interval later: half after 34 intervals."""

POOL_SHARPNESS = 8
"""Power of the inverse error in the weight of a member: a member with a tenth more error counts for half."""


class Last:
    """The rate of the last interval."""

    seasonal: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        self._rate = np.zeros(setting.series) if setting.prior is None else setting.prior

    def update(self, counts: FloatArray, duration: float) -> None:
        """See `PointForecaster`."""
        self._rate = counts / duration

    def predict(self, horizon: int) -> FloatArray:
        """See `PointForecaster`."""
        return np.tile(self._rate, (horizon, 1))


class Ewma:
    """An exponentially weighted mean of the rates, starting from the prior or else from the first of them."""

    seasonal: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        self._weight = setting.weight
        self._series = setting.series
        self._rate = setting.prior

    def update(self, counts: FloatArray, duration: float) -> None:
        """See `PointForecaster`."""
        if self._rate is None:
            self._rate = counts / duration
        else:
            self._rate = (1 - self._weight) * self._rate + self._weight * counts / duration

    def predict(self, horizon: int) -> FloatArray:
        """See `PointForecaster`."""
        return np.tile(np.zeros(self._series) if self._rate is None else self._rate, (horizon, 1))


class SeasonalNaive:
    """The rate of the same interval a season ago; the exponentially weighted mean until there is one."""

    seasonal: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self._season = np.zeros((setting.season, setting.series))
        self._seen = 0
        self._early = Ewma(setting)

    def update(self, counts: FloatArray, duration: float) -> None:
        """See `PointForecaster`."""
        self._early.update(counts, duration)
        self._season[self._seen % len(self._season)] = counts / duration
        self._seen += 1

    def predict(self, horizon: int) -> FloatArray:
        """See `PointForecaster`."""
        rates = self._early.predict(horizon)
        for lead in range(horizon):
            place = (self._seen + lead) % len(self._season)
            if place < self._seen:
                rates[lead] = self._season[place]
        return rates


class _Levels:
    """Exponentially weighted means of the rates, plain and relative to a seasonal profile, for several weights at once.

    The profile of a place in the season is the weighted mean of the rates there in the seasons before, latest first.
    The relative level is the weighted mean of the rates over that of their profiles, in counts and with one request
    added to both, so that silence neither divides by zero nor is blown up. Where there is no profile yet, the plain
    level stands in.
    """

    def __init__(self, setting: Setting, weights: tuple[float, ...]) -> None:
        self._weight = np.array(weights)[:, None]
        self._plain: FloatArray | None = None
        if setting.prior is not None:
            self._plain = np.tile(setting.prior, (len(weights), 1))
        self._shape = (len(weights), setting.series)
        self._one = 1 / setting.step
        self._sums = np.zeros((setting.season, setting.series))
        self._terms = np.zeros(setting.season)  # that the sums have, decayed like them
        self._rates, self._profiles = np.zeros(self._shape), np.zeros(self._shape)
        self._seen = 0
        self._compared = False

    def update(self, rate: FloatArray) -> None:
        """Take in the rates of the next interval."""
        if self._plain is None:
            self._plain = np.tile(rate, (len(self._weight), 1))
        else:
            self._plain = self._plain + self._weight * (rate - self._plain)
        place = self._seen % len(self._terms)
        if self._terms[place] > 0:
            self._rates += self._weight * (rate - self._rates)
            self._profiles += self._weight * (self._sums[place] / self._terms[place] - self._profiles)
            self._compared = True
        self._sums[place] = (1 - PROFILE_WEIGHT) * self._sums[place] + rate
        self._terms[place] = (1 - PROFILE_WEIGHT) * self._terms[place] + 1
        self._seen += 1

    def plain(self) -> FloatArray:
        """Shape (weights, series)."""
        return np.zeros(self._shape) if self._plain is None else self._plain

    def seasonal(self, lead: int) -> FloatArray:
        """The rates `lead` intervals after the next, shape (weights, series)."""
        place = (self._seen + lead) % len(self._terms)
        if not (self._compared and self._terms[place] > 0):
            return self.plain()
        ratio = (self._rates + self._one) / (self._profiles + self._one)
        return np.asarray(self._sums[place] / self._terms[place] * ratio)


class Seasonal:
    """The profile of a season times how high the latest intervals stood above theirs."""

    seasonal: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self._levels = _Levels(setting, (setting.weight,))

    def update(self, counts: FloatArray, duration: float) -> None:
        """See `PointForecaster`."""
        self._levels.update(counts / duration)

    def predict(self, horizon: int) -> FloatArray:
        """See `PointForecaster`."""
        return np.concatenate([self._levels.seasonal(lead) for lead in range(horizon)])


class Adaptive:
    """A pool of plain and seasonal levels of several weights, mixed by how little each has erred of late.

    A member counts with the inverse of the sum of its absolute errors, decayed and raised to a power: where there is no
    season, the plain ones win; where the level jumps, those with a high weight.
    """

    seasonal: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self._levels = _Levels(setting, POOL_WEIGHTS)
        self._errors = np.zeros((2 * len(POOL_WEIGHTS), setting.series))
        self._guessed = setting.prior is not None  # an error of the very first guess from nothing says nothing

    def update(self, counts: FloatArray, duration: float) -> None:
        """See `PointForecaster`."""
        rate = counts / duration
        if self._guessed:
            self._errors = POOL_MEMORY * self._errors + np.abs(self._members(0) - rate)
        self._levels.update(rate)
        self._guessed = True

    def predict(self, horizon: int) -> FloatArray:
        """See `PointForecaster`."""
        least = self._errors.min(axis=0)
        relative = np.divide(least, self._errors, out=np.ones_like(self._errors), where=self._errors > 0)
        share = relative**POOL_SHARPNESS
        share /= share.sum(axis=0)
        return np.stack([np.sum(share * self._members(lead), axis=0) for lead in range(horizon)])

    def _members(self, lead: int) -> FloatArray:
        return np.concatenate([self._levels.plain(), self._levels.seasonal(lead)])


class Oracle:
    """The counts that will really come: the perfect-information upper bound of all forecasters.

    Parameters
    ----------
    truth
        Rates of all intervals, shape (intervals, series). After the last of them they stand still.
    """

    seasonal: ClassVar[bool] = False

    def __init__(self, setting: Setting, truth: FloatArray) -> None:
        self._truth = truth
        self._step = setting.step
        self._elapsed = 0.0

    def update(self, counts: FloatArray, duration: float) -> None:
        """See `PointForecaster`. Does nothing, since the counts are known."""
        del counts
        self._elapsed += duration

    def predict(self, horizon: int) -> FloatArray:
        """See `PointForecaster`."""
        seen = math.floor(self._elapsed / self._step + ROUNDING)
        return self._truth[np.minimum(seen + np.arange(horizon), len(self._truth) - 1)]
