"""What a trace is like, in figures: gathered chunk by chunk in memory that does not grow with the number of rows.

Times are counted in whole nanoseconds from the first arrival, so that windows, equal times and grids are exact. Tokens
are counted by value, gaps in bins of a relative width of 2^-10; both can be added up, and so can whole `Totals`.
docs/traces.md defines every figure.
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.workload import Trace

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[np.int32]]

NS = 1_000_000_000
WINDOWS_S = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0)
"""Windows in which arrivals are counted; each is a multiple of the one before."""

LEVELS = {f"p{percent:g}": percent / 100 for percent in (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)}

GAP_PRECISION = 2.0**-11
"""Relative error of a quantile of the gaps, at most."""

SILENCE_S = 60.0
SILENCE_MEANS = 20.0
"""A gap this many times the mean gap is a silence: steady traffic has one in 500 million."""

SAMPLE_ROWS = 2**20
"""Up to this many rows the rank correlation is exact; above, it is that of evenly spaced rows, half as many or more."""

_WIDTHS_NS = tuple(round(window_s * NS) for window_s in WINDOWS_S)
_MAX_S = 2**63 / NS
_SHIFT = 42  # of the 52 bits of a float's mantissa, bins keep 10
_ONE = 1023 << 10  # the bin of 1 ns, once shifted
_GRID_SLACK_NS = 10  # rounding of seconds as float64, up to two years from the start
_SMALLEST_GRID_US = 1000
_CURVE_BINS_S = (1, 10, 60, 600, 3600, 86_400, 864_000)
_CURVE_LENGTH = 2**16


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
            spearman=sum(value * rows for value, rows in known) / weight if weight else math.nan,
            spearman_rows=self.spearman_rows + other.spearman_rows,
            grid_us=0,
            duplicates=self.duplicates + other.duplicates,
            extras={
                name: self.extras.get(name, ExtraTotals()) + other.extras.get(name, ExtraTotals()) for name in names
            },
            curve=None,
        )


class TraceStatistics:
    """Takes the chunks of a trace and gives the `Totals` of all requests and of each source.

    Parameters
    ----------
    origin_s
        Where windows begin; at the first arrival (of a source: of its own) if none is given.
    sample_rows
        Up to how many rows rank correlations are exact.
    """

    def __init__(self, *, origin_s: float | None = None, sample_rows: int = SAMPLE_ROWS) -> None:
        self._origin_ns = None if origin_s is None else round(origin_s * NS)
        self._sample_rows = sample_rows
        self._all = self._new()
        self._only: str | None = None  # the source of all requests so far: it needs no statistics of its own
        self._groups: dict[str, _Group] = {}
        self._duplicates = _Duplicates()

    def _new(self) -> "_Group":
        return _Group(self._origin_ns, self._sample_rows)

    def add(self, chunk: Trace) -> None:
        """Count the requests of a chunk, none of which arrives before those of earlier chunks."""
        if not len(chunk):
            return
        time_ns = nanoseconds(chunk.arrival_s)
        extras: Columns = getattr(chunk, "extras", {})
        self._duplicates.add(time_ns, chunk, extras)
        present = np.flatnonzero(np.bincount(chunk.source, minlength=len(chunk.sources)))
        names = [chunk.sources[number] for number in present.tolist()]
        if self._only is None and not self._groups:
            self._only = names[0]
        if self._only is not None and names != [self._only]:
            self._groups[self._only] = copy.deepcopy(self._all)
            self._only = None
        self._all.add(time_ns, chunk.input_tokens, chunk.output_tokens, extras)
        if self._only is not None:
            return
        for number, name in zip(present.tolist(), names, strict=True):
            rows = np.flatnonzero(chunk.source == number)
            own = {extra: column[rows] for extra, column in extras.items()}
            group = self._groups.setdefault(name, self._new())
            group.add(time_ns[rows], chunk.input_tokens[rows], chunk.output_tokens[rows], own)

    def totals(self, until_s: float | None = None) -> Totals:
        """Of all requests; windows end by `until_s`, or by the last arrival if none is given."""
        duplicates = sum(self._duplicates.count.values())
        return replace(self._all.totals(until_s), duplicates=duplicates)

    def by_source(self, until_s: float | None = None) -> dict[str, Totals]:
        """Of each source that has requests, in the order in which they first appear."""
        groups = self._groups if self._only is None else {self._only: self._all}
        count = self._duplicates.count
        return {name: replace(group.totals(until_s), duplicates=count.get(name, 0)) for name, group in groups.items()}


class _Group:
    """Requests that are counted together."""

    def __init__(self, origin_ns: int | None, sample_rows: int) -> None:
        self._origin_ns = origin_ns
        self._first_ns: int | None = None
        self._last_ns = 0
        self._rows = 0
        self._gaps = _no_gaps()
        self._windows = [_Runs(width_ns) for width_ns in _WIDTHS_NS]
        self._curve = ArrivalCurve(_CURVE_BINS_S[0], np.zeros(0, dtype=np.int64))
        self._tokens = [np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)]
        self._sample = _EvenSample(sample_rows)
        self._grid_us: int | None = 0  # None once it is known to be too fine
        self._extras: dict[str, ExtraTotals] = {}

    def add(
        self, time_ns: Ints, input_tokens: npt.NDArray[np.int32], output_tokens: npt.NDArray[np.int32], extras: Columns
    ) -> None:
        if self._first_ns is None:
            self._first_ns = int(time_ns[0])
            if self._origin_ns is None:
                self._origin_ns = self._first_ns
            gap_ns = np.diff(time_ns)
        else:
            gap_ns = np.diff(time_ns, prepend=self._last_ns)
        self._last_ns = int(time_ns[-1])
        self._rows += len(time_ns)
        self._add_gaps(gap_ns)
        assert self._origin_ns is not None
        index, counts = time_ns - self._origin_ns, None
        width_ns = 1
        for runs in self._windows:
            index, counts = _runs(index // (runs.width_ns // width_ns), counts)
            width_ns = runs.width_ns
            runs.add(index, counts)
            if width_ns == NS:
                self._curve = _extended(self._curve, index, counts)
        for k, tokens in enumerate((input_tokens, output_tokens)):
            self._tokens[k] = added(self._tokens[k], np.bincount(tokens))
        self._sample.add(input_tokens, output_tokens)
        for name, column in extras.items():
            totals = ExtraTotals(int(np.count_nonzero(column)), int(column.sum(dtype=np.int64)), int(column.max()))
            self._extras[name] = self._extras.get(name, ExtraTotals()) + totals

    def _add_gaps(self, gap_ns: Ints) -> None:
        if not len(gap_ns):
            return
        gap_s = gap_ns / NS
        mean_s = float(gap_s.mean())
        long_s = gap_s[gap_s > SILENCE_S]
        self._gaps += GapTotals(
            count=len(gap_s),
            mean_s=mean_s,
            deviations_s2=float(np.square(gap_s - mean_s).sum()),
            bins=np.bincount(gap_bin(gap_ns)),
            longest_s=float(gap_s.max()),
            minute_count=len(long_s),
            minute_s=float(long_s.sum()),
        )
        self._grid_us = _coarser_grid(self._grid_us, gap_ns)

    def totals(self, until_s: float | None) -> Totals:
        first_ns = self._first_ns or 0
        origin_ns = self._origin_ns or 0
        end_ns = self._last_ns if until_s is None else round(until_s * NS)
        return Totals(
            rows=self._rows,
            first_s=first_ns / NS,
            span_s=(self._last_ns - first_ns) / NS,
            gaps=self._gaps,
            windows={w: runs.totals(end_ns - origin_ns) for w, runs in zip(WINDOWS_S, self._windows, strict=True)},
            input_tokens=self._tokens[0],
            output_tokens=self._tokens[1],
            spearman=self._sample.spearman(),
            spearman_rows=self._sample.rows,
            grid_us=self._grid_us if self._grid_us is not None and self._grid_us >= _SMALLEST_GRID_US else 0,
            duplicates=0,
            extras=dict(self._extras),
            curve=self._curve,
        )


def _no_gaps() -> GapTotals:
    return GapTotals(0, 0.0, 0.0, np.zeros(0, dtype=np.int64), 0.0, 0, 0.0)


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


def _runs(index: Ints, counts: Ints | None) -> tuple[Ints, Ints]:
    """Equal neighbours of a sorted index as one, with the sums of their counts (1 each if none are given)."""
    starts = np.concatenate([[0], np.flatnonzero(index[1:] != index[:-1]) + 1])
    if counts is None:
        return index[starts], np.diff(starts, append=len(index))
    return index[starts], np.add.reduceat(counts, starts)


class _Runs:
    """Counts in windows of one width. Only the window that is still open is kept, the others are summed up."""

    def __init__(self, width_ns: int) -> None:
        self.width_ns = width_ns
        self._open: tuple[int, int] | None = None
        self._closed = WindowTotals()

    def add(self, index: Ints, counts: Ints) -> None:
        """Windows that were hit, each once and rising, and how often."""
        if self._open is not None:
            number, count = self._open
            if number == index[0]:
                counts = counts.copy()
                counts[0] += count
            else:
                self._closed += _closed(np.array([count]))
        self._closed += _closed(counts[:-1])
        self._open = int(index[-1]), int(counts[-1])

    def totals(self, span_ns: int) -> WindowTotals:
        windows = span_ns // self.width_ns
        closed = self._closed
        if self._open is not None and self._open[0] < windows:
            closed += _closed(np.array([self._open[1]]))
        return replace(closed, windows=windows)


def _closed(counts: Ints) -> WindowTotals:
    if not len(counts):
        return WindowTotals()
    return WindowTotals(
        arrivals=int(counts.sum()), squares=int(np.dot(counts, counts)), busy=len(counts), peak=int(counts.max())
    )


def _extended(curve: ArrivalCurve, second: Ints, counts: Ints) -> ArrivalCurve:
    """The curve with arrivals added; its bins grow when there would be too many of them."""
    while int(second[-1]) // curve.bin_s >= _CURVE_LENGTH:
        wider_s = _CURVE_BINS_S[_CURVE_BINS_S.index(curve.bin_s) + 1]
        wider = curve.in_bins_of(wider_s) if len(curve.counts) else curve.counts
        assert wider is not None
        curve = ArrivalCurve(wider_s, wider)
    index, counts = _runs(second // curve.bin_s, counts)
    total = curve.counts
    if int(index[-1]) >= len(total):
        total = np.concatenate([total, np.zeros(int(index[-1]) + 1 - len(total), dtype=np.int64)])
    total[index] += counts
    return ArrivalCurve(curve.bin_s, total)


def _coarser_grid(grid_us: int | None, gap_ns: Ints) -> int | None:
    """The greatest common divisor with further gaps; None once it is below a millisecond, for good."""
    if grid_us is None:
        return None
    gap_us = (gap_ns + 500) // 1000
    if np.abs(gap_ns - gap_us * 1000).max() > _GRID_SLACK_NS:
        return None
    if grid_us == 0 or (gap_us % grid_us).any():
        grid_us = math.gcd(grid_us, int(np.gcd.reduce(np.unique(gap_us))))
    return grid_us if grid_us == 0 or grid_us >= _SMALLEST_GRID_US else None


class _EvenSample:
    """Every k-th row, where k doubles when there are too many: the same rows however the trace is cut into chunks."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._stride = 1
        self._seen = 0
        self._kept: list[npt.NDArray[np.int32]] = []
        self.rows = 0

    def add(self, input_tokens: npt.NDArray[np.int32], output_tokens: npt.NDArray[np.int32]) -> None:
        pairs = np.stack([input_tokens, output_tokens])[:, -self._seen % self._stride :: self._stride]
        self._seen += len(input_tokens)
        self._kept.append(pairs)
        self.rows += pairs.shape[1]
        while self.rows > self._most:
            kept = np.concatenate(self._kept, axis=1)[:, ::2].copy()
            self._kept, self.rows, self._stride = [kept], kept.shape[1], 2 * self._stride

    def spearman(self) -> float:
        if not self._kept:
            return math.nan
        return rank_correlation(*np.concatenate(self._kept, axis=1))


def rank_correlation(left: npt.NDArray[np.int32], right: npt.NDArray[np.int32]) -> float:
    """Spearman's coefficient of integers from zero on, equal ones at their mean rank; NaN if either is constant."""
    centred = [_mean_ranks(values) - (len(values) + 1) / 2 for values in (left, right)]
    scale = math.sqrt(float(np.square(centred[0]).sum())) * math.sqrt(float(np.square(centred[1]).sum()))
    # Not by `np.dot`, the last digits of whose sums depend on the number of threads.
    return float((centred[0] * centred[1]).sum()) / scale if scale else math.nan


def _mean_ranks(values: npt.NDArray[np.int32]) -> Floats:
    counts = np.bincount(values)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[values]
    return ranks


class _Duplicates:
    """Rows equal in all columns to an earlier one. Only rows of equal times can be, and those lie together."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self._last_ns = -1
        self._numbers: dict[str, int] = {}  # of sources
        self._waiting: dict[str, Ints] = {}  # columns of the different rows at the last time

    def add(self, time_ns: Ints, chunk: Trace, extras: Columns) -> None:
        equal = time_ns[1:] == time_ns[:-1]
        goes_on = int(time_ns[0]) == self._last_ns
        self._last_ns = int(time_ns[-1])
        own = np.array([self._numbers.setdefault(name, len(self._numbers)) for name in chunk.sources], dtype=np.int64)
        # Rows beside one of the same time, and the last one, which may have such a neighbour in the next chunk.
        rows = np.flatnonzero(np.append(equal, True) | np.insert(equal, 0, goes_on))
        columns = self._columns(rows, time_ns, own, chunk, extras)
        if goes_on:
            names = dict.fromkeys([*self._waiting, *columns])
            columns = {name: _joined(self._waiting, columns, name) for name in names}
        order, again = _repeated(columns)
        repeats = np.bincount(columns["source"][order][again], minlength=len(self._numbers))
        for name, number in self._numbers.items():
            if repeats[number]:
                self.count[name] = self.count.get(name, 0) + int(repeats[number])
        different = order[~again]
        last = different[columns["time"][different] == self._last_ns]
        self._waiting = {name: column[last] for name, column in columns.items()}

    @staticmethod
    def _columns(rows: "slice | Ints", time_ns: Ints, own: Ints, chunk: Trace, extras: Columns) -> dict[str, Ints]:
        columns = {
            "time": time_ns[rows],
            "source": own[chunk.source[rows]],
            "input_tokens": chunk.input_tokens[rows],
            "output_tokens": chunk.output_tokens[rows],
        }
        more = {f"extra {name}": column[rows] for name, column in extras.items()}
        return {name: np.asarray(column, dtype=np.int64) for name, column in {**columns, **more}.items()}


def _joined(before: Mapping[str, Ints], after: Mapping[str, Ints], name: str) -> Ints:
    """A column that one of them lacks is zero there."""
    return np.concatenate([part.get(name, np.zeros(len(part["time"]), dtype=np.int64)) for part in (before, after)])


def _repeated(columns: Mapping[str, Ints]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """An order in which equal rows lie together, and which rows in that order are equal to the one before."""
    key = _key(columns.values())
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    return order, np.concatenate([[False], ordered[1:] == ordered[:-1]])


def _key(columns: Iterable[Ints]) -> Ints:
    """One number per row, equal where all columns are."""
    key, size = np.zeros(1, dtype=np.int64), 1
    for column in columns:
        lowest = int(column.min())
        values = int(column.max()) - lowest + 1
        if size * values >= 2**62:
            key = np.asarray(np.unique(key, return_inverse=True)[1], dtype=np.int64)
            size = len(key)
        key, size = key * values + (column - lowest), size * values
    return key


def quantiles(counts: Ints, levels: Sequence[float], values: Floats | None = None) -> Floats:
    """Quantiles of a histogram, linear between neighbours as those of NumPy; NaN for an empty one.

    Parameters
    ----------
    values
        What is counted in each place of `counts`; 0, 1, 2, ... if none is given.
    """
    below = np.cumsum(counts)
    if not len(below) or not below[-1]:
        return np.full(len(levels), np.nan)
    place = np.asarray(levels) * (int(below[-1]) - 1)
    lower = np.floor(place)
    index = [np.searchsorted(below, rank, side="right") for rank in (lower, np.ceil(place))]
    low, high = (index[k].astype(np.float64) if values is None else values[index[k]] for k in range(2))
    return np.asarray(low + (high - low) * (place - lower))


def token_mean(counts: Ints) -> float:
    """Mean of a histogram of tokens; NaN for an empty one."""
    rows = int(counts.sum())
    return int(np.dot(np.arange(len(counts)), counts)) / rows if rows else math.nan


def token_figures(counts: Ints) -> dict[str, Any]:
    """Mean, standard deviation, extremes, quantiles and zeros; None where there is no request."""
    used = np.flatnonzero(counts)
    if not len(used):
        return {"total": 0, **dict.fromkeys(("mean", "std", "min", "max", *LEVELS)), "zeros": 0}
    weights = counts[used]
    rows, total = int(weights.sum()), int(np.dot(used, weights))
    mean = total / rows
    return {
        "total": total,
        "mean": mean,
        "std": math.sqrt(float((np.square(used - mean) * weights).sum()) / rows),
        "min": int(used[0]),
        "max": int(used[-1]),
        **dict(zip(LEVELS, quantiles(counts, list(LEVELS.values())).tolist(), strict=True)),
        "zeros": int(counts[0]),
    }


def gap_figures(gaps: GapTotals) -> dict[str, Any]:
    """Mean, longest, quantiles (to within `GAP_PRECISION`) and zeros, in seconds; None where there is no gap."""
    if not gaps.count:
        return {**dict.fromkeys(("mean", "max", *LEVELS)), "zeros": 0}
    at = np.minimum(quantiles(gaps.bins, list(LEVELS.values()), gap_values_s(len(gaps.bins))), gaps.longest_s)
    named = dict(zip(LEVELS, at.tolist(), strict=True))
    return {"mean": gaps.mean_s, "max": gaps.longest_s, **named, "zeros": int(gaps.bins[0])}


def silence_figures(gaps: GapTotals) -> dict[str, Any]:
    """Gaps over a minute, and over `SILENCE_MEANS` times the mean (these to within the bins of the gaps)."""
    middle_s = gap_values_s(len(gaps.bins))
    long = middle_s > SILENCE_MEANS * gaps.mean_s
    bins = np.where(long, gaps.bins, 0) if gaps.mean_s else np.zeros_like(gaps.bins)
    return {
        "over_60s": {"count": gaps.minute_count, "total_s": gaps.minute_s},
        "over_20_means": {"count": int(bins.sum()), "total_s": float((bins * middle_s).sum())},
    }


def extra_figures(totals: Totals) -> dict[str, Any]:
    """Of each further column: the share of requests above zero, mean and largest value."""
    inputs = token_mean(totals.input_tokens) * totals.rows
    figures: dict[str, Any] = {}
    for name, extra in totals.extras.items():
        share, mean = extra.above_zero / totals.rows, extra.total / totals.rows
        figures[name] = {"share_of_rows": share, "mean": mean, "max": extra.largest}
        if name == "prefix_tokens":
            figures[name]["share_of_input_tokens"] = extra.total / inputs if inputs else None
    return figures


def figures(totals: Totals) -> dict[str, Any]:
    """Every figure of some requests, ready for JSON: None where one is not defined."""
    minutes = totals.windows[60.0]
    full = bool(minutes.windows)
    return {
        "rows": totals.rows,
        "first_arrival_s": totals.first_s,
        "span_s": totals.span_s,
        "rate_per_min": 60 * totals.rows / totals.span_s if totals.span_s else None,
        "full_minutes": minutes.windows,
        "peak_per_min": minutes.peak if full else None,
        "idle_minutes": minutes.windows - minutes.busy if full else None,
        "gap_cv": _defined(totals.gaps.cv),
        "gap_s": gap_figures(totals.gaps),
        "silences": silence_figures(totals.gaps),
        "dispersion": {f"{window_s:g}s": _defined(totals.windows[window_s].dispersion) for window_s in WINDOWS_S},
        "input_tokens": token_figures(totals.input_tokens),
        "output_tokens": token_figures(totals.output_tokens),
        "spearman": _defined(totals.spearman),
        "spearman_rows": totals.spearman_rows,
        "duplicates": totals.duplicates,
        "timestamp_grid_s": totals.grid_us / 1e6 if totals.grid_us else None,
        "extras": extra_figures(totals),
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
