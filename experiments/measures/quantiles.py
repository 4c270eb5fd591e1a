"""Quantiles of numbers: of a stream in bounded memory, exact while they are few, then to within 0.05 %; of an array."""

import numpy as np
import numpy.typing as npt

from traces.statistics.figures import quantiles as histogram_quantiles

FloatColumn = npt.NDArray[np.float64]

EXACT_VALUES = 2**20
BITS = 11  # of the mantissa that a bin keeps: its width is at most 2^-10 of the value, its middle off by 2^-11 at most
SHIFT = 52 - BITS + 1
LEVELS = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Quantiles:
    """Takes numbers of 0 or more; NaN does not count.

    Up to `EXACT_VALUES` are kept as they are. Beyond, they are counted in bins whose edges are the floating-point
    numbers with few digits (the idea of HdrHistogram), so that every quantile is known to a relative 2^-11.
    """

    def __init__(self) -> None:
        self._values: list[FloatColumn] = []
        self._bins: npt.NDArray[np.int64] | None = None
        self._first_bin = 0
        self.count = 0

    @property
    def exact(self) -> bool:
        return self._bins is None

    def add(self, values: FloatColumn) -> None:
        """Count the numbers of a batch."""
        values = values[~np.isnan(values)]
        self.count += len(values)
        if self._bins is None:
            self._values.append(values)
            if self.count > EXACT_VALUES:
                values, self._values, self._bins = np.concatenate(self._values), [], np.zeros(0, dtype=np.int64)
            else:
                return
        if len(values):
            self._bin(values)

    def _bin(self, values: FloatColumn) -> None:
        assert self._bins is not None
        # Adding 0.0 turns -0.0 into 0.0: bit patterns of numbers of 0 or more are in the order of the numbers.
        keys = (values + 0.0).view(np.int64) >> SHIFT
        low, high = int(keys.min()), int(keys.max()) + 1
        if len(self._bins):
            low, high = min(low, self._first_bin), max(high, self._first_bin + len(self._bins))
        bins = np.bincount(keys - low, minlength=high - low)
        start = self._first_bin - low
        if len(self._bins):
            bins[start : start + len(self._bins)] += self._bins
        self._bins, self._first_bin = bins, low

    def at(self, levels: FloatColumn) -> FloatColumn:
        """Quantiles at `levels` of [0, 1], same shape, linear between neighbours; NaN if nothing was counted."""
        if not self.count:
            return np.full(len(levels), np.nan)
        if self._bins is None:
            return np.asarray(np.quantile(np.concatenate(self._values), levels))
        return histogram_quantiles(self._bins, levels, self._middle(np.arange(len(self._bins))))

    def _middle(self, index: npt.NDArray[np.int64]) -> FloatColumn:
        edges = (np.stack([index, index + 1]).astype(np.int64) + self._first_bin) << SHIFT
        return np.asarray(edges.view(np.float64).mean(axis=0))

    def named(self) -> dict[str, float | None]:
        """p50, p95 and p99, None where nothing was counted."""
        if not self.count:
            return dict.fromkeys(LEVELS)
        return dict(zip(LEVELS, self.at(np.array(list(LEVELS.values()))).tolist(), strict=True))

    def curve(self, points: int = 2000) -> tuple[FloatColumn, FloatColumn]:
        """Values and the share of numbers up to each: at most `points` steps of the distribution function."""
        if not self.count:
            return np.zeros(0), np.zeros(0)
        shares = np.arange(1, min(points, self.count) + 1) / min(points, self.count)
        return self.at((np.ceil(shares * self.count) - 1) / max(self.count - 1, 1)), shares


def reached_value(values: FloatColumn, level: float) -> float:
    """The smallest value of an array that at least `level` of them do not exceed; NaN does not count, zero of none."""
    values = values[~np.isnan(values)]
    if not len(values):
        return 0.0
    place = max(min(int(np.ceil(level * len(values) - 1e-9)), len(values)) - 1, 0)
    return float(np.partition(values, place)[place])
