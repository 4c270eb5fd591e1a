"""The rate of arrivals over a day or a week, from counts by the hour."""

import numpy as np
import numpy.typing as npt

HOUR_S = 3600.0


class RateCurve:
    """A rate that repeats, of which each hour has its count.

    It is continuous and linear between the ends and the middles of the hours. At the end of an hour it is the mean of
    the rates of the two hours, but at most twice the lower one; in the middle it is what the count of the hour leaves,
    and so never below zero. Steps would keep the counts too, but a planner would see a jump at each full hour.

    Parameters
    ----------
    requests_per_h
        Counts of successive hours, at least one. After the last one the first comes again.

    Attributes
    ----------
    period_s
        After how long the rate repeats.
    mean_per_s
        Mean rate.
    """

    def __init__(self, requests_per_h: npt.ArrayLike) -> None:
        count = np.asarray(requests_per_h, dtype=np.float64)
        before = np.roll(count, 1)
        begin = np.minimum((before + count) / 2, 2 * np.minimum(before, count))
        middle = 2 * count - (begin + np.roll(begin, -1)) / 2
        rate_per_h = np.append(np.column_stack([begin, middle]).ravel(), begin[0])
        self._knots_s = np.arange(len(rate_per_h)) * (HOUR_S / 2)
        self._rate_per_s = rate_per_h / HOUR_S
        self.period_s = len(count) * HOUR_S
        self.mean_per_s = float(count.mean()) / HOUR_S

    def rate_per_s(self, time_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Rates at any times, of the shape of `time_s`."""
        within_s = np.mod(time_s, self.period_s)
        rate: npt.NDArray[np.float64] = np.interp(within_s, self._knots_s, self._rate_per_s)
        return rate

    def bends_s(self, begin_s: float, end_s: float) -> npt.NDArray[np.float64]:
        """The times between `begin_s` and `end_s` at which the slope changes."""
        half_s = HOUR_S / 2
        return np.arange(np.floor(begin_s / half_s) + 1, np.ceil(end_s / half_s)) * half_s
