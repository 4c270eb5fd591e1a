"""The picture of a trace: rate over time, gaps, dispersion and tokens; of one trace or of two."""

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.show.style import CLOCK_UNITS, METADATA, POLICY_COLOURS, STYLE
from simulator.errors import InputError
from traces.statistics.totals import WINDOWS_S, Totals, gap_values_s

CURVE_BINS_S = (1, 10, 60, 600, 3600, 86_400, 864_000)
CURVE_POINTS = 240  # at most: more would be hair
FEWEST_WINDOWS = 10
MAX_SERIES = len(POLICY_COLOURS)
REFERENCE: dict[str, Any] = {"color": "#555555", "linestyle": "--", "linewidth": 1.2}


def draw_description(groups: Mapping[str, Totals], *, title: str, path: Path) -> None:
    """Draw the picture, whole or not at all; the same figures, the same bytes.

    Parameters
    ----------
    groups
        What is compared, by name: the sources of one trace, or two traces. Eight at most are drawn.
    """
    style: dict[str, Any] = {**STYLE, "svg.hashsalt": "tokenfleet"}
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"--figure: {path}: cannot be written: {error.strerror}") from None
    try:
        with matplotlib.rc_context(style), os.fdopen(handle, "wb") as file:  # type: ignore[arg-type]
            metadata = {"Date": None} if path.suffix == ".svg" else METADATA
            picture(groups, title).savefig(file, format=path.suffix[1:], metadata=metadata)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(f"--figure: {path}: cannot be written: {error.strerror or error}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def picture(groups: Mapping[str, Totals], title: str) -> Figure:
    """Five panels, a line per group in each."""
    figure = Figure(figsize=(10, 10), layout="constrained")
    panels = figure.subplot_mosaic([["rate", "rate"], ["gaps", "dispersion"], ["input", "output"]])
    figure.suptitle(title)
    used = {name: totals for name, totals in list(groups.items())[:MAX_SERIES] if totals.rows}
    _rate(panels["rate"], used)
    _gaps(panels["gaps"], used)
    _dispersion(panels["dispersion"], used)
    _tokens(panels["input"], {name: totals.input_tokens for name, totals in used.items()}, "input")
    _tokens(panels["output"], {name: totals.output_tokens for name, totals in used.items()}, "output")
    if len(used) > 1:
        handles, labels = panels["rate"].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _line(index: int) -> dict[str, Any]:
    return {"color": POLICY_COLOURS[index], "linewidth": 1.6}


def _rate(axes: Axes, groups: Mapping[str, Totals]) -> None:
    """Rates in bins of a round width, by time since the very first arrival."""
    first_s = min(totals.first_s for totals in groups.values())
    last_s = max(totals.first_s + totals.span_s for totals in groups.values())
    span_s = max(last_s - first_s, 1.0)
    finest_s = max(totals.curve.bin_s for totals in groups.values() if totals.curve is not None)
    bins = [bin_s for bin_s in CURVE_BINS_S if bin_s >= finest_s]
    bin_s = next((bin_s for bin_s in bins if span_s / bin_s <= CURVE_POINTS), bins[-1])
    unit_s, unit = next(((size, name) for size, name in CLOCK_UNITS if span_s > 5 * size), (1.0, "s"))
    for index, (name, totals) in enumerate(groups.items()):
        counts = None if totals.curve is None else totals.curve.in_bins_of(bin_s)
        if counts is None:
            continue
        whole = counts[:-1] if len(counts) > 1 else counts  # the last bin is not full
        edges_s = totals.first_s - first_s + bin_s * np.arange(len(whole) + 1)
        rate_per_min = np.append(whole, whole[-1]) * 60 / bin_s
        axes.step(edges_s / unit_s, rate_per_min, where="post", label=name, **_line(index))
    axes.set(title=f"Rate, in bins of {bin_s:,} s", xlabel=f"time [{unit}]", ylabel="requests per minute")
    axes.set_xlim(0, span_s / unit_s)
    axes.set_ylim(bottom=0)


def _gaps(axes: Axes, groups: Mapping[str, Totals]) -> None:
    """Share of gaps above each length, over the mean gap, against the exponential ones of steady traffic."""
    lowest = 1.0
    for index, (name, totals) in enumerate(groups.items()):
        gaps = totals.gaps
        if not gaps.mean_s:
            continue
        used = np.flatnonzero(gaps.bins)
        used = used[used > 0]
        above = gaps.count - np.cumsum(gaps.bins)[used]
        x, y = gap_values_s(len(gaps.bins))[used] / gaps.mean_s, above / gaps.count
        axes.step(x[y > 0], y[y > 0], where="post", label=name, **_line(index))
        lowest = min(lowest, 1 / gaps.count)
    x = np.geomspace(1e-3, max(-math.log(lowest), 1.0), 200)
    axes.plot(x, np.exp(-x), label="exponential", **REFERENCE)
    axes.set(xscale="log", yscale="log", xlabel="gap / mean gap", ylabel="share of gaps above")
    axes.set_title("Gaps against exponential ones (dashed)")
    axes.set_xlim(left=1e-3)
    axes.set_ylim(lowest / 2, 1.5)


def _dispersion(axes: Axes, groups: Mapping[str, Totals]) -> None:
    for index, (name, totals) in enumerate(groups.items()):
        counted = [(w, totals.windows[w]) for w in WINDOWS_S if totals.windows[w].windows >= FEWEST_WINDOWS]
        x = [window_s for window_s, windows in counted if windows.dispersion > 0]
        y = [windows.dispersion for _, windows in counted if windows.dispersion > 0]
        axes.plot(x, y, marker="o", markersize=4, label=name, **_line(index))
    axes.axhline(1.0, label="Poisson", **REFERENCE)
    axes.set(xscale="log", yscale="log", xlabel="window [s]", ylabel="variance / mean of counts")
    axes.set_xlim(WINDOWS_S[0] / 2, WINDOWS_S[-1] * 2)
    lowest, highest = axes.get_ylim()
    axes.set_ylim(min(lowest, 0.3), max(highest, 30.0))  # what is nearly Poisson is to look so
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_title("Index of dispersion against Poisson (dashed)")


def _tokens(axes: Axes, groups: Mapping[str, npt.NDArray[np.int64]], which: str) -> None:
    """Shares of requests in bins of equal width on a logarithmic axis, but never narrower than one token."""
    largest = max(len(counts) for counts in groups.values()) - 1
    smallest = min((int(used[0]) for c in groups.values() if len(used := np.flatnonzero(c[1:]) + 1)), default=1)
    edges = np.unique(np.rint(np.geomspace(smallest, max(largest, smallest) + 1, 61)).astype(np.int64))
    for index, (name, counts) in enumerate(groups.items()):
        below = np.concatenate([[0], np.cumsum(counts)])
        inside = np.diff(below[np.minimum(edges, len(counts))]) / max(int(below[-1]), 1)
        # Per unit of the logarithm: a bin that had to be wider than the others is not taller for it.
        density = inside / np.diff(np.log(edges)) * math.log(2)
        axes.step(edges, np.append(density, density[-1:]), where="post", label=name, **_line(index))
    axes.set(xscale="log", xlabel=f"{which} tokens", ylabel="share of requests per doubling")
    axes.set_title(f"{which.capitalize()} tokens")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(bottom=0)
