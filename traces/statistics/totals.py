"""What is known of some requests, in sums that can be added up: `Totals` and its parts.

Times are counted in whole nanoseconds from the first arrival, so that windows, equal times and grids are exact. Tokens
are counted by value, gaps in bins of a relative width of 2^-10; both can be added up, and so can whole `Totals`.
docs/traces.md defines every figure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NS = 1_000_000_000
WINDOWS_S = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0)
"""Windows in which arrivals are counted; each is a multiple of the one before."""

GAP_PRECISION = 2.0**-11
"""Relative error of a quantile of the gaps, at most."""

_MAX_S = 2**63 / NS
_SHIFT = 42  # of the 52 bits of a float's mantissa, bins keep 10
_ONE = 1023 << 10  # the bin of 1 ns, once shifted


def index_of_dispersion(arrival_s: Floats, window_s: float, span_s: float) -> float:
    """Variance over mean of the counts in the full windows of [0, span_s); NaN if there is none or all are empty."""
    width_ns = round(window_s * NS)
    windows = round(span_s * NS) // width_ns
    inside = nanoseconds(arrival_s) // width_ns
    counts = np.bincount(inside[inside < windows], minlength=windows)
    return float(counts.var() / counts.mean()) if counts.any() else math.nan


def nanoseconds(arrival_s: Floats) -> Ints:
    """Times in whole nanoseconds.

    Raises
    ------
    InputError
        If they do not fit into 64 bits.
    """
    if len(arrival_s) and arrival_s[-1] >= _MAX_S:
        raise InputError(f"arrival_s: expected less than 292 years, found {arrival_s[-1]:g} s")
    return np.rint(arrival_s * NS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class WindowTotals:
    """Counts in the full windows of one width: how many windows, the sum and the sum of squares of their counts."""

    windows: int = 0
    arrivals: int = 0
    squares: int = 0
    busy: int = 0
    peak: int = 0

    @property
    def dispersion(self) -> float:
        """Variance over mean of the counts; NaN for fewer than two windows or no arrival in them."""
        if self.windows < 2 or not self.arrivals:
            return math.nan
        # In integers: no digits are lost, however many windows there are.
        return (self.windows * self.squares - self.arrivals**2) / (self.windows * self.arrivals)

    def __add__(self, other: "WindowTotals") -> "WindowTotals":
        return WindowTotals(
            self.windows + other.windows,
            self.arrivals + other.arrivals,
            self.squares + other.squares,
            self.busy + other.busy,
            max(self.peak, other.peak),
        )


@dataclass(frozen=True, slots=True)
class GapTotals:
    """Times between arrivals: number, mean and sum of squared deviations, and how many fall in each bin."""

    count: int
    mean_s: float
    deviations_s2: float
    bins: Ints
    longest_s: float
    minute_count: int
    minute_s: float

    @property
    def cv(self) -> float:
        """Standard deviation over mean; NaN without gaps, or if all are zero."""
        return math.sqrt(self.deviations_s2 / self.count) / self.mean_s if self.count and self.mean_s else math.nan

    def __add__(self, other: "GapTotals") -> "GapTotals":
        count = self.count + other.count
        apart = other.mean_s - self.mean_s
        share = other.count / max(count, 1)
        return GapTotals(
            count,
            self.mean_s + apart * share,
            self.deviations_s2 + other.deviations_s2 + apart**2 * self.count * share,  # Chan, Golub and LeVeque, 1979
            added(self.bins, other.bins),
            max(self.longest_s, other.longest_s),
            self.minute_count + other.minute_count,
            self.minute_s + other.minute_s,
        )


@dataclass(frozen=True, slots=True)
class ExtraTotals:
    """A further column: how many rows are above zero, the sum and the largest value."""

    above_zero: int = 0
    total: int = 0
    largest: int = 0

    def __add__(self, other: "ExtraTotals") -> "ExtraTotals":
        return ExtraTotals(
            self.above_zero + other.above_zero, self.total + other.total, max(self.largest, other.largest)
        )


@dataclass(frozen=True, slots=True)
class ArrivalCurve:
    """Arrivals in successive bins from the first arrival on; the last bin may not be full."""

    bin_s: int
    counts: Ints

    def in_bins_of(self, bin_s: int) -> Ints | None:
        """The same in wider bins; None if `bin_s` is not a multiple of these."""
        if bin_s % self.bin_s:
            return None
        return np.add.reduceat(self.counts, np.arange(0, len(self.counts), bin_s // self.bin_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """All that is known of some requests. Sums of `Totals` are as if one lay behind the other, without a gap between.

    Attributes
    ----------
    first_s, span_s
        Time of the first arrival, and from it to the last.
    windows
        By width in seconds, each of `WINDOWS_S`.
    input_tokens, output_tokens
        How many requests have 0, 1, 2, ... tokens.
    spearman, spearman_rows
        Rank correlation of input and output tokens (NaN if one is constant), and of how many rows.
    grid_us
        Largest whole number of microseconds of which all gaps are multiples; 0 if it is below a millisecond, and for a
        sum.
    duplicates
        Rows that are equal in all columns to an earlier one.
    curve
        None for a sum.
    """

    rows: int
    first_s: float
    span_s: float
    gaps: GapTotals
    windows: Mapping[float, WindowTotals]
    input_tokens: Ints
    output_tokens: Ints
    spearman: float
    spearman_rows: int
    grid_us: int
    duplicates: int
    extras: Mapping[str, ExtraTotals]
    curve: ArrivalCurve | None

    def __add__(self, other: "Totals") -> "Totals":
        names = dict.fromkeys([*self.extras, *other.extras])
        known = [(part.spearman, part.rows) for part in (self, other) if not math.isnan(part.spearman)]
        weight = sum(rows for _, rows in known)
        return Totals(
            rows=self.rows + other.rows,
            first_s=self.first_s,
            span_s=self.span_s + other.span_s,
            gaps=self.gaps + other.gaps,
            windows={window_s: self.windows[window_s] + other.windows[window_s] for window_s in WINDOWS_S},
            input_tokens=added(self.input_tokens, other.input_tokens),
            output_tokens=added(self.output_tokens, other.output_tokens),
            spearman=math.fsum(value * rows for value, rows in known) / weight if weight else math.nan,
            spearman_rows=self.spearman_rows + other.spearman_rows,
            grid_us=0,
            duplicates=self.duplicates + other.duplicates,
            extras={
                name: self.extras.get(name, ExtraTotals()) + other.extras.get(name, ExtraTotals()) for name in names
            },
            curve=None,
        )


def added(left: Ints, right: Ints) -> Ints:
    """The sum of two histograms, either of which may be longer."""
    if len(left) < len(right):
        left, right = right, left
    total = left.copy()
    total[: len(right)] += right
    return total


def gap_bin(gap_ns: Ints) -> Ints:
    """Bin of each gap: 0 for none at all, then those of the first bits of the gap as a floating-point number."""
    return np.asarray(np.maximum((gap_ns.astype(np.float64).view(np.int64) >> _SHIFT) - (_ONE - 1), 0))


def gap_values_s(bins: int) -> Floats:
    """The middles of the first `bins` bins, in seconds."""
    edges = (np.arange(bins + 1, dtype=np.int64) + (_ONE - 1)) << _SHIFT
    edges_ns = edges.view(np.float64)
    middle_s = (edges_ns[:-1] + edges_ns[1:]) / 2 / NS
    middle_s[:1] = 0.0
    return middle_s
