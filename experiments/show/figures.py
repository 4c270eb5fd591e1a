"""Charts as PNG and SVG for papers, with Matplotlib: the same charts, the same bytes."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from experiments.show.atomic_write import replace_whole
from experiments.show.colours import PARTS, REFERENCE, group_colours, part_colours
from experiments.show.parts import AreaChart, BarChart, Chart, FlowChart, LineChart, Panels, Values, bar_totals
from experiments.show.units import log_ticks

GAP = 0.04  # between the nodes of a column, of its height
NODE_WIDTH = 0.03
MARKED = 60
WIDTH, HEIGHT = 8.0, 4.6  # inches
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.4
METADATA = {
    ".png": {"Software": None, "Creation Time": None},
    ".svg": {"Date": None},
}  # the same picture, the same bytes
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 130,
    "svg.hashsalt": "tokenfleet",
}


def draw(charts: Sequence[Chart], folder: Path, *, suffixes: Sequence[str] = (".png", ".svg")) -> list[Path]:
    """Draw every chart as KEY.png and KEY.svg into a folder that is there; return the files."""
    groups, parts = group_colours(charts), part_colours(charts)
    paths = []
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        for chart in charts:
            figure = figure_of(chart, groups, parts)
            for suffix in suffixes:
                paths.append(folder / f"{chart.key}{suffix}")
                figure.savefig(paths[-1], metadata=METADATA[suffix])
    return paths


def draw_whole(chart: Chart, path: Path) -> None:
    """Draw one chart into a file, .png or .svg, whole or not at all; raises an OSError if it cannot be written."""
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = figure_of(chart, group_colours([chart]), part_colours([chart]))
        figure.savefig(drawn, format=path.suffix[1:], metadata=METADATA[path.suffix])
    replace_whole(path, drawn.getvalue())


def figure_of(chart: Chart, groups: Mapping[str, str], parts: Mapping[str, str]) -> Figure:
    """A chart with its legend, under the style that is in force."""
    if isinstance(chart, Panels):
        columns = max(1, min(len(chart.charts), chart.columns))
        rows = max(1, -(-len(chart.charts) // columns))
        size = max(PANEL_WIDTH * columns, WIDTH), PANEL_HEIGHT * rows + 0.7
        figure = Figure(figsize=size, layout="constrained")
        panels = list(figure.subplots(rows, columns, sharey=chart.share_y, squeeze=False).flat)
        for axes, single in zip(panels, chart.charts, strict=False):
            _draw(axes, single, groups, parts)
        for number, axes in enumerate(panels):
            axes.set_visible(number < len(chart.charts))
            if chart.share_y and number % columns:
                axes.set_ylabel("")
        figure.suptitle(chart.title, x=0.01, ha="left", fontsize=12)
    else:
        height = 1.5 + 0.55 * _most_nodes(chart) if isinstance(chart, FlowChart) else HEIGHT
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        panels = [figure.subplots()]
        _draw(panels[0], chart, groups, parts)
    named = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(named) > 1:
        figure.legend(named.values(), named, loc="outside lower center", ncols=min(len(named), 4), fontsize=9)
    return figure


def _most_nodes(chart: FlowChart) -> int:
    return max(len(nodes) for _, nodes in chart.columns)


def _draw(axes: Axes, chart: Chart, groups: Mapping[str, str], parts: Mapping[str, str]) -> None:
    axes.set_title(chart.title, loc="left", fontsize=11)
    if isinstance(chart, LineChart):
        _lines(axes, chart, groups)
    elif isinstance(chart, BarChart):
        _bars(axes, chart, parts)
    elif isinstance(chart, AreaChart):
        areas = {name: np.nan_to_num(_numbers(values)) for name, values in chart.areas.items()}
        if areas:
            colours = [parts[name] for name in areas]
            axes.stackplot(list(chart.x), *areas.values(), labels=list(areas), colors=colours, step="post")
    elif isinstance(chart, FlowChart):
        _flows(axes, chart)
    if isinstance(chart, LineChart | AreaChart):
        axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
        if chart.x_range is not None:
            axes.set_xlim(*chart.x_range)
        if chart.y_range is not None:
            axes.set_ylim(*chart.y_range)


def _numbers(values: Values) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _lines(axes: Axes, chart: LineChart, groups: Mapping[str, str]) -> None:
    for line in chart.lines:
        colour = REFERENCE if line.reference else groups[line.group or line.name]
        x, y = np.array(line.x, dtype=np.float64), _numbers(line.y)
        axes.plot(
            x,
            y,
            color=colour,
            linestyle="--" if line.dashed or line.reference else "-",
            marker="o" if line.markers and len(x) <= MARKED else None,
            markersize=3.5,
            linewidth=1.6,
            drawstyle="steps-post" if line.steps else "default",
            label=line.name,
        )
        if line.low is not None and line.high is not None:
            axes.fill_between(x, _numbers(line.low), _numbers(line.high), color=colour, alpha=0.18, linewidth=0)
        for number, label in enumerate(line.labels or ()):
            axes.annotate(label, (x[number], y[number]), (4, 4), textcoords="offset points", fontsize=7, color=colour)
    if chart.log_x:
        axes.set_xscale("log")
        _label_powers(axes.xaxis, chart.xs)
    if chart.log_y:
        axes.set_yscale("log")
        _label_powers(axes.yaxis, chart.ys)
    elif chart.from_zero:
        axes.set_ylim(bottom=0)
    if chart.x_ticks:
        axes.xaxis.set_major_locator(FixedLocator(list(chart.x_ticks)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels(list(chart.x_ticks.values()))


def _label_powers(axis: Axis, values: Sequence[float]) -> None:
    """Numbers as a reader writes them, and some between the powers of ten where there are too few of those."""
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axis.set_minor_formatter(NullFormatter())
    if log_ticks(values):
        axis.set_major_locator(FixedLocator(log_ticks(values)))


def _bars(axes: Axes, chart: BarChart, parts: Mapping[str, str]) -> None:
    x = np.arange(len(chart.categories))
    above, below = np.zeros(len(x)), np.zeros(len(x))
    for name, values in chart.parts.items():
        y = np.nan_to_num(_numbers(values))
        bottom = np.where(y >= 0, above, below)
        axes.bar(x, y, bottom=bottom, color=parts[name], label=name, width=0.7)
        above, below = above + np.maximum(y, 0), below + np.minimum(y, 0)
    for place, text in enumerate(bar_totals(chart)):
        axes.annotate(text, (x[place], above[place]), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    if len(chart.parts) == 1 and chart.low is not None and chart.high is not None:
        (values,) = chart.parts.values()
        spread = np.stack([_numbers(values) - _numbers(chart.low), _numbers(chart.high) - _numbers(values)])
        axes.errorbar(x, _numbers(values), yerr=np.nan_to_num(spread), fmt="none", ecolor="#444444", capsize=3)
    axes.set_xticks(x, list(chart.categories), rotation=30 if len(x) > 4 else 0, ha="right" if len(x) > 4 else "center")
    side = max(0.6, 1.6 - len(x) / 2)  # a bar alone is no wall
    axes.set_xlim(-side, len(x) - 1 + side)
    reached = [
        0.0,
        *above,
        *below,
        *(value for value in (*(chart.low or ()), *(chart.high or ())) if value is not None),
    ]
    axes.set_ylim(1.1 * min(reached), 1.1 * max(reached) or None)  # room for what is written above the bars
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(chart.y_label)


def _flows(axes: Axes, chart: FlowChart) -> None:
    """Nodes as boxes in columns, flows as bands between them, all on a scale on which the largest column is one."""
    into: dict[str, float] = {}
    out: dict[str, float] = {}
    for flow in chart.flows:
        out[flow.source] = out.get(flow.source, 0.0) + flow.value
        into[flow.target] = into.get(flow.target, 0.0) + flow.value
    size = {name: max(into.get(name, 0.0), out.get(name, 0.0)) for _, nodes in chart.columns for name in nodes}
    most = max((math.fsum(size[name] for name in nodes) for _, nodes in chart.columns), default=1.0) or 1.0
    top: dict[str, float] = {}
    left: dict[str, float] = {}
    last = max(1, len(chart.columns) - 1)
    for column, (heading, nodes) in enumerate(chart.columns):
        y, x = 0.0, column / last
        axes.text(x, -0.05, heading, ha=_side(column, last), va="bottom", fontsize=9, color="#555555")
        for name in nodes:
            height = size[name] / most
            axes.add_patch(Rectangle((x - NODE_WIDTH / 2, y), NODE_WIDTH, height, color="#777777"))
            shift = NODE_WIDTH if column < last else -NODE_WIDTH
            axes.text(x + shift, y + height / 2, name, ha=_side(column, last), va="center", fontsize=8, zorder=3)
            top[name], left[name] = y, x
            y += height + GAP
    used_out, used_in = dict.fromkeys(size, 0.0), dict.fromkeys(size, 0.0)
    colour = {name: PARTS[n % len(PARTS)] for n, name in enumerate(dict.fromkeys(f.source for f in chart.flows))}
    for flow in chart.flows:
        height = flow.value / most
        x0, x1 = left[flow.source] + NODE_WIDTH / 2, left[flow.target] - NODE_WIDTH / 2
        y0, y1 = top[flow.source] + used_out[flow.source], top[flow.target] + used_in[flow.target]
        used_out[flow.source] += height
        used_in[flow.target] += height
        axes.add_patch(PathPatch(_band(x0, x1, y0, y1, height), facecolor=colour[flow.source], alpha=0.4, linewidth=0))
    axes.set(xlim=(-0.05, 1.05), ylim=(1 + GAP * max((len(n) for _, n in chart.columns), default=1), -0.1))
    axes.axis("off")


def _side(column: int, last: int) -> str:
    return "left" if column < last else "right"


def _band(x0: float, x1: float, y0: float, y1: float, height: float) -> Outline:
    middle = (x0 + x1) / 2
    points = [
        *((x0, y0), (middle, y0), (middle, y1), (x1, y1)),
        *((x1, y1 + height), (middle, y1 + height), (middle, y0 + height), (x0, y0 + height), (x0, y0)),
    ]
    codes = [Outline.MOVETO, *[Outline.CURVE4] * 3, Outline.LINETO, *[Outline.CURVE4] * 3, Outline.CLOSEPOLY]
    return Outline(points, codes)
