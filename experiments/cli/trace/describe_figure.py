"""The picture of a trace: rate over time, gaps, dispersion and tokens; of one trace or of two."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.show.figures import draw_whole
from experiments.show.parts import Line, LineChart, Panels
from experiments.show.units import clock
from simulator.errors import InputError
from traces.statistics.totals import WINDOWS_S, Totals, gap_values_s

CURVE_BINS_S = (1, 10, 60, 600, 3600, 86_400, 864_000)
CURVE_POINTS = 240  # at most: more would be hair
FEWEST_WINDOWS = 10
MAX_SERIES = 8

Floats = npt.NDArray[np.floating[Any]]


def draw_description(groups: Mapping[str, Totals], *, title: str, path: Path) -> None:
    """Draw the picture, whole or not at all; the same figures, the same bytes.

    Parameters
    ----------
    groups
        What is compared, by name: the sources of one trace, or two traces. Eight at most are drawn.
    """
    try:
        draw_whole(picture(groups, title), path)
    except OSError as error:
        raise InputError(f"--figure: {path}: cannot be written: {error.strerror or error}") from None


def picture(groups: Mapping[str, Totals], title: str) -> Panels:
    """Five panels, a line per group in each."""
    used = {name: totals for name, totals in list(groups.items())[:MAX_SERIES] if totals.rows}
    return Panels(
        key="trace",
        title=title,
        charts=[
            _rate(used),
            _gaps(used),
            _dispersion(used),
            _tokens({name: totals.input_tokens for name, totals in used.items()}, "input"),
            _tokens({name: totals.output_tokens for name, totals in used.items()}, "output"),
        ],
        columns=2,
        share_y=False,
    )


def _rate(groups: Mapping[str, Totals]) -> LineChart:
    """Rates in bins of a round width, by time since the very first arrival."""
    first_s = min(totals.first_s for totals in groups.values())
    last_s = max(totals.first_s + totals.span_s for totals in groups.values())
    span_s = max(last_s - first_s, 1.0)
    finest_s = max(totals.curve.bin_s for totals in groups.values() if totals.curve is not None)
    bins = [bin_s for bin_s in CURVE_BINS_S if bin_s >= finest_s]
    bin_s = next((bin_s for bin_s in bins if span_s / bin_s <= CURVE_POINTS), bins[-1])
    unit_s, unit = clock(span_s)
    lines = []
    for name, totals in groups.items():
        counts = None if totals.curve is None else totals.curve.in_bins_of(bin_s)
        if counts is None:
            continue
        whole = counts[:-1] if len(counts) > 1 else counts  # the last bin is not full
        edges_s = totals.first_s - first_s + bin_s * np.arange(len(whole) + 1)
        lines.append(_steps(name, edges_s / unit_s, whole * 60 / bin_s))
    return LineChart(
        key="rate",
        title=f"Rate, in bins of {bin_s:,} s",
        x_label=f"time [{unit}]",
        y_label="requests per minute",
        lines=lines,
        from_zero=True,
        x_range=(0.0, span_s / unit_s),
    )


def _steps(name: str, edges: Floats, values: Floats) -> Line:
    """A value between each two edges."""
    return Line(name=name, x=edges.tolist(), y=[*values.tolist(), *values[-1:].tolist()], steps=True, markers=False)


def _gaps(groups: Mapping[str, Totals]) -> LineChart:
    """Share of gaps above each length, over the mean gap, against the exponential ones of steady traffic."""
    lowest, lines = 1.0, []
    for name, totals in groups.items():
        gaps = totals.gaps
        if not gaps.mean_s:
            continue
        used = np.flatnonzero(gaps.bins)
        used = used[used > 0]
        above = gaps.count - np.cumsum(gaps.bins)[used]
        x, y = gap_values_s(len(gaps.bins))[used] / gaps.mean_s, above / gaps.count
        lines.append(Line(name=name, x=x[y > 0].tolist(), y=y[y > 0].tolist(), steps=True, markers=False))
        lowest = min(lowest, 1 / gaps.count)
    x = np.geomspace(1e-3, max(-math.log(lowest), 1.0), 200)
    exponential = Line(name="exponential", x=x.tolist(), y=np.exp(-x).tolist(), reference=True, markers=False)
    longest = max((value for line in [*lines, exponential] for value in line.x), default=1.0)
    return LineChart(
        key="gaps",
        title="Gaps against exponential ones (dashed)",
        x_label="gap / mean gap",
        y_label="share of gaps above",
        lines=[*lines, exponential],
        log_x=True,
        log_y=True,
        x_range=(1e-3, 1.5 * longest),
        y_range=(lowest / 2, 1.5),
    )


def _dispersion(groups: Mapping[str, Totals]) -> LineChart:
    lines = []
    for name, totals in groups.items():
        counted = [(w, totals.windows[w]) for w in WINDOWS_S if totals.windows[w].windows >= FEWEST_WINDOWS]
        shown = [(float(window_s), windows.dispersion) for window_s, windows in counted if windows.dispersion > 0]
        lines.append(Line(name=name, x=[x for x, _ in shown], y=[y for _, y in shown]))
    x_range = WINDOWS_S[0] / 2, WINDOWS_S[-1] * 2.0
    poisson = Line(name="Poisson", x=x_range, y=(1.0, 1.0), reference=True, markers=False)
    known = [value for line in lines for value in line.y if value is not None]
    return LineChart(
        key="dispersion",
        title="Index of dispersion against Poisson (dashed)",
        x_label="window [s]",
        y_label="variance / mean of counts",
        lines=[*lines, poisson],
        log_x=True,
        log_y=True,
        x_range=x_range,
        y_range=(min([0.3, *(0.8 * value for value in known)]), max([30.0, *(1.25 * value for value in known)])),
    )  # what is nearly Poisson is to look so


def _tokens(groups: Mapping[str, npt.NDArray[np.int64]], which: str) -> LineChart:
    """Shares of requests in bins of equal width on a logarithmic axis, but never narrower than one token."""
    largest = max(len(counts) for counts in groups.values()) - 1
    smallest = min((int(used[0]) for c in groups.values() if len(used := np.flatnonzero(c[1:]) + 1)), default=1)
    edges = np.unique(np.rint(np.geomspace(smallest, max(largest, smallest) + 1, 61)).astype(np.int64))
    lines = []
    for name, counts in groups.items():
        below = np.concatenate([[0], np.cumsum(counts)])
        inside = np.diff(below[np.minimum(edges, len(counts))]) / max(int(below[-1]), 1)
        # Per unit of the logarithm: a bin that had to be wider than the others is not taller for it.
        density = inside / np.diff(np.log(edges)) * math.log(2)
        lines.append(_steps(name, edges.astype(np.float64), density))
    return LineChart(
        key=f"{which}_tokens",
        title=f"{which.capitalize()} tokens",
        x_label=f"{which} tokens",
        y_label="share of requests per doubling",
        lines=lines,
        log_x=True,
        from_zero=True,
    )
