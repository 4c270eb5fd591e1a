"""`Totals` as figures, ready for JSON."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from traces.statistics.totals import WINDOWS_S, Floats, GapTotals, Ints, Totals, gap_values_s

LEVELS = {f"p{percent:g}": percent / 100 for percent in (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)}

SILENCE_MEANS = 20.0
"""A gap this many times the mean gap is a silence: steady traffic has one in 500 million."""


def quantiles(counts: Ints, levels: Sequence[float] | Floats, values: Floats | None = None) -> Floats:
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
