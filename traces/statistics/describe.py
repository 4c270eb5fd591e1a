"""The `Totals` of a trace, gathered chunk by chunk in memory that does not grow with the number of rows."""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from simulator.workload import Trace
from traces.statistics.totals import (
    NS,
    WINDOWS_S,
    ArrivalCurve,
    ExtraTotals,
    Floats,
    GapTotals,
    Ints,
    Totals,
    WindowTotals,
    added,
    gap_bin,
    nanoseconds,
)

Columns = Mapping[str, npt.NDArray[np.int32]]

SILENCE_S = 60.0
"""A gap longer than this is counted for itself."""

SAMPLE_ROWS = 2**20
"""Up to this many rows the rank correlation is exact; above, it is that of evenly spaced rows, half as many or more."""

_WIDTHS_NS = tuple(round(window_s * NS) for window_s in WINDOWS_S)
_GRID_SLACK_NS = 10  # rounding of seconds as float64, up to two years from the start
_SMALLEST_GRID_US = 1000
_CURVE_BINS_S = (1, 10, 60, 600, 3600, 86_400, 864_000)
_CURVE_LENGTH = 2**16


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
            of_rows = {extra: column[rows] for extra, column in extras.items()}
            group = self._groups.setdefault(name, self._new())
            group.add(time_ns[rows], chunk.input_tokens[rows], chunk.output_tokens[rows], of_rows)

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
            every_other = np.concatenate(self._kept, axis=1)[:, ::2].copy()
            self._kept, self.rows, self._stride = [every_other], every_other.shape[1], 2 * self._stride

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
        number_of_source = np.array(
            [self._numbers.setdefault(name, len(self._numbers)) for name in chunk.sources], dtype=np.int64
        )
        # Rows beside one of the same time, and the last one, which may have such a neighbour in the next chunk.
        rows = np.flatnonzero(np.append(equal, True) | np.insert(equal, 0, goes_on))
        columns = self._columns(rows, time_ns, number_of_source, chunk, extras)
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
    def _columns(
        rows: "slice | Ints", time_ns: Ints, number_of_source: Ints, chunk: Trace, extras: Columns
    ) -> dict[str, Ints]:
        columns = {
            "time": time_ns[rows],
            "source": number_of_source[chunk.source[rows]],
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
