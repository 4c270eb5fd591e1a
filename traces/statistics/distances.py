"""How far a trace is from another: two-sample distances, the bounds within which they count as alike, and chance.

Everything is computed from `traces.statistics.describe.Totals`, so traces may be larger than memory. What chance alone
gives is measured on the traces themselves: each is cut into blocks of time, and halves of the blocks are compared.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from simulator.workload import Trace
from traces.statistics.describe import TraceStatistics
from traces.statistics.figures import quantiles, token_mean
from traces.statistics.totals import Floats, Ints, Totals, gap_values_s

BLOCKS = 10
"""Blocks in time; there are 126 ways to halve them, and all are taken."""
CHANCE_LEVEL = 0.95
CHANCE_MARGIN = 1.5
"""From the two standard deviations of that level to three: there are dozens of measures."""
BLOCK_SAMPLE_ROWS = 2**17
FEWEST_ROWS = 200
"""Of fewer rows halves say nothing."""
FEWEST_WINDOWS = 20
"""From fewer windows no variance is compared."""
FEWEST_WINDOWS_OF_HALF = 5
FEWEST_HOURS = 6
HOUR_S = 3600
PART_S = 600
"""How the count of an hour scatters is told from those of its parts of this length."""


class Kind(StrEnum):
    """How a figure is compared."""

    RATIO = "ratio"  # of the second over the first; off by its logarithm
    DISTANCE = "distance"  # between two distributions or curves
    DIFFERENCE = "difference"  # second minus first
    CORRELATION = "correlation"  # off by what is missing to one


class Status(StrEnum):
    """What came of a comparison."""

    ALIKE = "alike"
    DIFFERS = "differs"
    CHANCE = "chance"  # out of bounds, but no more than chance may be
    UNKNOWN = "unknown"  # too few data


@dataclass(frozen=True, slots=True)
class Measure:
    """One comparison: `bound` is a factor for ratios, the least value for correlations, otherwise the largest value."""

    kind: Kind
    bound: float
    label: str

    def off(self, value: float) -> float:
        """How far a value is from that of equal traces, on a scale on which chance grows as one over a square root."""
        match self.kind:
            case Kind.RATIO:
                return abs(math.log(value)) if 0 < value < math.inf else (math.nan if math.isnan(value) else math.inf)
            case Kind.CORRELATION:
                return 1 - value
            case _:
                return abs(value)

    def on_scale_of_bound(self, off: float) -> float:
        """The inverse: how `off` is stated beside the bound."""
        match self.kind:
            case Kind.RATIO:
                return math.exp(min(off, 700.0))
            case Kind.CORRELATION:
                return 1 - off
            case _:
                return off


def _of_tokens(which: str) -> dict[str, Measure]:
    return {
        f"{which}_mean": Measure(Kind.RATIO, 1.05, f"{which} mean"),
        f"{which}_p50": Measure(Kind.RATIO, 1.1, "  p50"),
        f"{which}_p90": Measure(Kind.RATIO, 1.1, "  p90"),
        f"{which}_p99": Measure(Kind.RATIO, 1.25, "  p99"),
        f"{which}_ks": Measure(Kind.DISTANCE, 0.05, "  KS"),
        f"{which}_w1": Measure(Kind.DISTANCE, 0.1, "  W1 / mean"),
    }


COMPARED_WINDOWS_S = (1.0, 10.0, 60.0, 600.0)
MEASURES: dict[str, Measure] = {
    "rate": Measure(Kind.RATIO, 1.05, "rate [1/min]"),
    "gap_cv": Measure(Kind.RATIO, 1.25, "gap CV"),
    "gap_ks": Measure(Kind.DISTANCE, 0.1, "  KS"),
    "gap_w1": Measure(Kind.DISTANCE, 0.2, "  W1 / mean"),
    **{
        f"dispersion_{window_s:g}s": Measure(Kind.RATIO, 1.5, ("dispersion" if k == 0 else " ") + f" {window_s:g} s")
        for k, window_s in enumerate(COMPARED_WINDOWS_S)
    },
    "hourly_correlation": Measure(Kind.CORRELATION, 0.9, "hourly corr."),
    "hourly_rms": Measure(Kind.DISTANCE, 0.15, "  RMS / mean"),
    **_of_tokens("input"),
    **_of_tokens("output"),
    "spearman": Measure(Kind.DIFFERENCE, 0.1, "Spearman"),
}
"""docs/traces.md says why these bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One measure of two traces.

    Attributes
    ----------
    first, second
        The figure of each trace, NaN where the measure is one of both only.
    value
        NaN if it is not known.
    chance
        How far chance alone may bring them apart, stated as the bound is; NaN if it is not known.
    """

    name: str
    first: float
    second: float
    value: float
    chance: float
    status: Status

    @property
    def measure(self) -> Measure:
        return MEASURES[self.name]

    def to_dict(self) -> dict[str, Any]:
        numbers = {key: getattr(self, key) for key in ("first", "second", "value", "chance")}
        known = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return {"kind": str(self.measure.kind), **known, "bound": self.measure.bound, "status": str(self.status)}


class Blocks:
    """The `Totals` of the blocks of a trace that has been gone through before: takes its chunks once more.

    Parameters
    ----------
    whole
        Of the same trace.
    """

    def __init__(self, whole: Totals) -> None:
        self._edges_s = whole.first_s + whole.span_s * np.arange(BLOCKS + 1) / BLOCKS
        self._length_s = whole.span_s / BLOCKS
        self._of: list[tuple[Totals, dict[str, Totals]]] = []
        self._statistics = self._new(0)

    def _new(self, block: int) -> TraceStatistics:
        return TraceStatistics(origin_s=float(self._edges_s[block]), sample_rows=BLOCK_SAMPLE_ROWS)

    def add(self, chunk: Trace) -> None:
        """Count the requests of a chunk."""
        while len(self._of) < BLOCKS - 1:
            cut = int(np.searchsorted(chunk.arrival_s, self._edges_s[len(self._of) + 1]))
            if cut == len(chunk):
                break
            self._statistics.add(chunk.rows(slice(cut)))
            self._close()
            chunk = chunk.rows(slice(cut, None))
        self._statistics.add(chunk)

    def _close(self) -> None:
        end_s = float(self._edges_s[len(self._of) + 1])
        # A block is as long as it is, however late its first request.
        whole = replace(self._statistics.totals(end_s), span_s=self._length_s)
        sources = self._statistics.by_source(end_s)
        self._of.append((whole, {name: replace(t, span_s=self._length_s) for name, t in sources.items()}))
        if len(self._of) < BLOCKS:
            self._statistics = self._new(len(self._of))

    def totals(self, source: str | None) -> list[Totals]:
        """By block, of one source or (None) of all requests."""
        while len(self._of) < BLOCKS:
            self._close()
        nothing = TraceStatistics(origin_s=0.0).totals(self._length_s)
        silent = replace(nothing, span_s=self._length_s)
        return [whole if source is None else sources.get(source, silent) for whole, sources in self._of]


def compare(
    first: Totals, second: Totals, blocks: tuple[Sequence[Totals], Sequence[Totals]] | None = None
) -> list[Comparison]:
    """Every measure of two traces, or of one source in each.

    Parameters
    ----------
    blocks
        Of the first and of the second, in time (see `Blocks`). Without them chance is not known.
    """
    known = values(first, second)
    by_chance = {}
    if blocks is not None and min(first.rows, second.rows) >= FEWEST_ROWS:
        by_chance = chance(*blocks)
    hours = hourly(first, second)
    if hours is not None:
        known |= hours.values
        by_chance |= hours.chance
    return [_judged(name, known.get(name, _UNKNOWN), by_chance.get(name, math.nan)) for name in MEASURES]


@dataclass(frozen=True, slots=True)
class _Value:
    value: float
    first: float = math.nan
    second: float = math.nan


_UNKNOWN = _Value(math.nan)


def _judged(name: str, known: _Value, off_by_chance: float) -> Comparison:
    measure = MEASURES[name]
    off = measure.off(known.value)
    allowed = measure.off(measure.bound)
    if math.isnan(off):
        status = Status.UNKNOWN
    elif off <= allowed:
        status = Status.ALIKE
    else:
        status = Status.CHANCE if off <= off_by_chance else Status.DIFFERS
    return Comparison(
        name=name,
        first=known.first,
        second=known.second,
        value=known.value,
        chance=measure.on_scale_of_bound(off_by_chance),
        status=status,
    )


def values(first: Totals, second: Totals, fewest_windows: int = FEWEST_WINDOWS) -> dict[str, _Value]:
    """The measures that need no common clock."""
    found = {
        "rate": _ratio(*(60 * t.rows / t.span_s if t.span_s else math.nan for t in (first, second))),
        "gap_cv": _ratio(first.gaps.cv, second.gaps.cv),
        "spearman": _Value(second.spearman - first.spearman, first.spearman, second.spearman),
    }
    gaps = first.gaps.bins, second.gaps.bins
    middle_s = gap_values_s(max(map(len, gaps)))
    found |= _between("gap", gaps, middle_s, first.gaps.mean_s)
    for window_s in COMPARED_WINDOWS_S:
        counted = first.windows[window_s], second.windows[window_s]
        enough = all(totals.windows >= fewest_windows for totals in counted)
        dispersion = [totals.dispersion if enough else math.nan for totals in counted]
        found[f"dispersion_{window_s:g}s"] = _ratio(*dispersion)
    for which in ("input", "output"):
        counts: tuple[Ints, Ints] = getattr(first, f"{which}_tokens"), getattr(second, f"{which}_tokens")
        means = [token_mean(c) for c in counts]
        found[f"{which}_mean"] = _ratio(*means)
        at = [quantiles(c, (0.5, 0.9, 0.99)).tolist() for c in counts]
        for k, level in enumerate(("p50", "p90", "p99")):
            found[f"{which}_{level}"] = _ratio(at[0][k], at[1][k])
        found |= _between(which, counts, np.arange(max(map(len, counts)), dtype=np.float64), means[0])
    return found


def _ratio(first: float, second: float) -> _Value:
    if first == second:
        return _Value(1.0, first, second)
    if first == 0:
        return _Value(math.inf, first, second)
    return _Value(second / first, first, second)


def _between(name: str, counts: tuple[Ints, Ints], at: Floats, mean: float) -> dict[str, _Value]:
    """Kolmogorov-Smirnov distance, and the Wasserstein distance of order one over the mean of the first."""
    if not (counts[0].any() and counts[1].any()):
        return {}
    apart = np.abs(_distribution(counts[0], len(at)) - _distribution(counts[1], len(at)))
    found = {f"{name}_ks": _Value(float(apart.max()))}
    if mean > 0:
        found[f"{name}_w1"] = _Value(float((apart[:-1] * np.diff(at)).sum()) / mean)
    return found


def _distribution(counts: Ints, length: int) -> Floats:
    below = np.cumsum(counts) / counts.sum()
    return np.concatenate([below, np.ones(length - len(below))])


def chance(first: Sequence[Totals], second: Sequence[Totals]) -> dict[str, float]:
    """How far apart chance may bring two traces that are given in blocks, on the scale of `Measure.off`.

    If a figure of a trace has the variance v, that of half a trace has 2 v, and two halves differ with 4 v. Two traces
    differ with the sum of their v: a quarter of that of the halves of the one and of the other.
    """
    levels = [_between_halves(blocks) for blocks in (first, second)]
    both = [name for name in levels[0] if name in levels[1]]
    return {name: CHANCE_MARGIN * math.hypot(levels[0][name], levels[1][name]) / 2 for name in both}


def _between_halves(blocks: Sequence[Totals]) -> dict[str, float]:
    """How far apart halves of the blocks are, at `CHANCE_LEVEL`; only measures that all halves have."""
    off: dict[str, list[float]] = {}
    halves = [half for half in itertools.combinations(range(len(blocks)), len(blocks) // 2) if 0 in half]
    for half in halves:
        parts = [[block for k, block in enumerate(blocks) if (k in half) is side] for side in (True, False)]
        one, other = (reduce(add, part) for part in parts)
        for name, found in values(one, other, FEWEST_WINDOWS_OF_HALF).items():
            off.setdefault(name, []).append(MEASURES[name].off(found.value))
    complete = {name: np.array(found) for name, found in off.items() if len(found) == len(halves)}
    return {
        name: float(np.quantile(found, CHANCE_LEVEL)) for name, found in complete.items() if np.isfinite(found).all()
    }


@dataclass(frozen=True, slots=True)
class _Hours:
    values: dict[str, _Value]
    chance: dict[str, float]


def hourly(first: Totals, second: Totals) -> _Hours | None:
    """Rates by the hour from the first arrival on, over their means; None if fewer than `FEWEST_HOURS` are common.

    By chance the count of an hour scatters as the sum of its parts does, each of which scatters about their mean.
    """
    parts = [_parts_of_hours(totals) for totals in (first, second)]
    hours = min(map(len, parts))
    if hours < FEWEST_HOURS or not all(counts[:hours].any() for counts in parts):
        return None
    relative = [counts[:hours] / (counts[:hours].sum() / hours) for counts in parts]
    shape = [counts.sum(axis=1) for counts in relative]
    noise = [counts.shape[1] * float(counts.var(axis=1, ddof=1).mean()) for counts in relative]
    scatter = [float(np.var(curve)) for curve in shape]
    correlation = float(np.corrcoef(shape[0], shape[1])[0, 1]) if all(scatter) else math.nan
    found = {
        "hourly_correlation": _Value(correlation),
        "hourly_rms": _Value(float(np.sqrt(np.mean(np.square(shape[1] - shape[0]))))),
    }
    from scipy.special import chdtri  # here: SciPy takes longer to load than most commands

    highest = float(chdtri(hours, 1 - CHANCE_LEVEL)) / hours  # of the mean square of so many deviations, over its mean
    signal = max(scatter[0] - noise[0] * highest, 0.0)
    expected = signal / math.sqrt((signal + noise[0]) * (signal + noise[1])) if signal else 0.0
    # On the scale of Fisher's transform, whose standard deviation is known.
    from scipy.special import ndtri

    deviations = CHANCE_MARGIN * float(ndtri(CHANCE_LEVEL))
    lowest = math.tanh(math.atanh(min(expected, 1 - 1e-9)) - deviations / math.sqrt(hours - 3))
    largest = CHANCE_MARGIN * math.sqrt(math.fsum(noise) * highest)
    return _Hours(found, {"hourly_correlation": 1 - lowest, "hourly_rms": largest})


def _parts_of_hours(totals: Totals) -> Ints:
    """Counts, a row per full hour; none if the rate is not known so finely."""
    per_hour = HOUR_S // PART_S
    counts = None if totals.curve is None else totals.curve.in_bins_of(PART_S)
    hours = 0 if counts is None else int(totals.span_s // HOUR_S)
    return (
        np.zeros((0, per_hour), dtype=np.int64)
        if counts is None
        else counts[: hours * per_hour].reshape(hours, per_hour)
    )
