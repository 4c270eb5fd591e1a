"""A document as one HTML page that needs no network: Plotly's charts to zoom, hover and toggle, light and dark.

Colours of text, grid and paper are the page's (CSS), so that one drawing serves both themes; the script is Plotly's.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from experiments.show.colours import PARTS, REFERENCE, group_colours, part_colours
from experiments.show.parts import (
    AreaChart,
    BarChart,
    Chart,
    Document,
    FlowChart,
    Line,
    LineChart,
    Panels,
    Range,
    bar_totals,
)
from experiments.show.units import log_ticks

CONFIG = {
    "responsive": True,
    "displaylogo": False,
    # Plotly 7 offers to upload the chart to its makers' cloud: a report stays where it is.
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "sendChartToCloud", "sendDataToCloud"],
}
CLEAR = "rgba(0,0,0,0)"
MARKED = 60  # curves of more points show no markers
MARGIN = {"l": 8, "r": 8, "t": 28, "b": 8}
FLOW_MARGIN = {"l": 8, "r": 8, "t": 56, "b": 12}
FLOW_PAD = 14  # between nodes of a column, in pixels
FLOW_REM = 44  # what the names of two columns need side by side; a narrower screen scrolls
PANEL_REM = 17
HEIGHT, PANEL_HEIGHT, LEGEND_ROW = 420, 300, 12  # pixels


def document_html(document: Document) -> str:
    """The page; the same document, the same bytes."""
    groups, parts = group_colours(document.charts), part_colours(document.charts)

    def drawn(chart: Chart) -> Markup:
        figure = plotly_figure(chart, groups, parts)
        name = f"chart-{chart.key}"
        return Markup(plotly.io.to_html(figure, full_html=False, include_plotlyjs=False, div_id=name, config=CONFIG))

    environment = Environment(
        loader=PackageLoader("experiments.show", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    style = resources.files("experiments.show").joinpath("page.css").read_text("utf-8")
    return environment.get_template("page.html.j2").render(
        document=document,
        drawn=drawn,
        width_of=_least_width,
        style=Markup(style),
        plotly=Markup(get_plotlyjs()),
        specification=json.dumps(document.specification, indent=1, default=str),
    )


def _least_width(chart: Chart) -> str:
    """What a chart needs to be read; a narrower screen scrolls it by itself."""
    if isinstance(chart, FlowChart):
        return f"{FLOW_REM}rem"
    if isinstance(chart, Panels):
        return f"{PANEL_REM * min(len(chart.charts), chart.columns)}rem"
    return "0"


def _text(text: str) -> str:
    return html.escape(str(text))


def plotly_figure(chart: Chart, groups: Mapping[str, str], parts: Mapping[str, str]) -> go.Figure:
    """The chart with its colours; the page gives text, grid and background theirs."""
    singles = chart.charts if isinstance(chart, Panels) else [chart]
    if isinstance(chart, FlowChart):
        figure = go.Figure(layout={"template": "none"})
        figure.add_trace(_flows(chart))
        _headings(figure, chart)
        height, margin = _flow_height(chart), FLOW_MARGIN
    else:
        columns = max(1, min(len(singles), chart.columns)) if isinstance(chart, Panels) else 1
        rows = max(1, -(-len(singles) // columns))
        titles = [_text(single.title) for single in singles] if isinstance(chart, Panels) else None
        height = PANEL_HEIGHT * rows + 120 if isinstance(chart, Panels) else HEIGHT
        shared = "all" if isinstance(chart, Panels) and chart.share_y else False
        figure = make_subplots(
            rows, columns, subplot_titles=titles, shared_yaxes=shared, vertical_spacing=min(0.3, 110 / height)
        )
        figure.update_layout(template="none")
        for number, single in enumerate(singles):
            place = {"row": 1 + number // columns, "col": 1 + number % columns}
            _draw(figure, single, groups, parts, place)
        margin = MARGIN if titles is None else {**MARGIN, "t": 60}
    names = _one_legend(figure) if isinstance(chart, Panels) else {trace.name for trace in figure.data}
    figure.update_layout(
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "system-ui, sans-serif", "size": 11 if isinstance(chart, FlowChart) else 13},
        margin=margin,
        height=height if isinstance(chart, FlowChart) else height + LEGEND_ROW * len(names),
        legend={"orientation": "h", "yanchor": "top", "y": -85 / height, "x": 0},
        hovermode="closest",
        modebar={"bgcolor": CLEAR, "color": REFERENCE, "activecolor": "#0072B2"},
        dragmode="zoom",
    )
    return figure


def _one_legend(figure: go.Figure) -> set[str]:
    """Each name stands in the legend once, and toggles its curves in all panels."""
    seen: set[str] = set()
    for trace in figure.data:
        trace.legendgroup = trace.legendgroup or trace.name
        trace.showlegend = trace.showlegend is not False and trace.name not in seen
        seen.add(trace.name)
    return seen


def _draw(
    figure: go.Figure, chart: Chart, groups: Mapping[str, str], parts: Mapping[str, str], place: dict[str, int]
) -> None:
    """One chart in its place of the figure."""
    if isinstance(chart, LineChart):
        for line in chart.lines:
            colour = REFERENCE if line.reference else groups[line.group or line.name]
            for trace in _line(line, colour):
                figure.add_trace(trace, **place)
        _axes(figure, chart.x_label, chart.y_label, place)
        figure.update_xaxes(**_scale(chart.log_x, chart.x_range, chart.xs), **place)
        figure.update_yaxes(**_scale(chart.log_y, chart.y_range, chart.ys), **place)
        if chart.from_zero and chart.y_range is None:
            figure.update_yaxes(rangemode="tozero", **place)
        if chart.x_ticks:
            names = [_text(name) for name in chart.x_ticks.values()]
            figure.update_xaxes(tickvals=list(chart.x_ticks), ticktext=names, **place)
    elif isinstance(chart, BarChart):
        _bars(figure, chart, parts)
        _axes(figure, "", chart.y_label, place)
    elif isinstance(chart, AreaChart):
        for name, values in chart.areas.items():
            shape = {"color": parts[name], "width": 0.5, "shape": "hv"}
            stack = {"stackgroup": f"stack-{place}", "fillcolor": parts[name], "line": shape, "mode": "lines"}
            figure.add_trace(go.Scatter(x=list(chart.x), y=list(values), name=_text(name), **stack), **place)
        _axes(figure, chart.x_label, chart.y_label, place)
        figure.update_xaxes(**_scale(False, chart.x_range), **place)
        figure.update_yaxes(**_scale(False, chart.y_range), **place)


def _scale(log: bool, limits: Range | None, values: Sequence[float] = ()) -> dict[str, Any]:
    """An axis with its limits, which Plotly wants as powers of ten on a logarithmic one."""
    axis: dict[str, Any] = {"type": "log" if log else "linear"}
    if limits is not None:
        axis["range"] = np.log10(limits).tolist() if log else list(limits)
    if log:
        axis |= {"tickvals": log_ticks(values)} if log_ticks(values) else {"dtick": 1}
    return axis


def _axes(figure: go.Figure, x_label: str, y_label: str, place: Mapping[str, int]) -> None:
    line = {"automargin": True, "zeroline": False}
    figure.update_xaxes(title=_text(x_label), ticks="outside", showline=True, **line, **place)
    first_of_row = place["col"] == 1
    figure.update_yaxes(title=_text(y_label) if first_of_row else None, **line, **place)


def _line(line: Line, colour: str) -> list[go.Scatter]:
    x, group = list(line.x), _text(line.group or line.name)
    style = {"color": colour, "width": 2, "dash": "dash" if line.dashed or line.reference else "solid"}
    style |= {"shape": "hv"} if line.steps else {}
    traces = []
    if line.low is not None and line.high is not None:
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": group}
        traces.append(go.Scatter(x=x, y=list(line.high), **edge))
        traces.append(go.Scatter(x=x, y=list(line.low), fill="tonexty", fillcolor=_pale(colour), **edge))
    marked = line.markers and len(x) <= MARKED
    named = {"text": [_text(label) for label in line.labels], "textposition": "top center"} if line.labels else {}
    mode = "lines" + ("+markers" if marked else "") + ("+text" if line.labels and len(x) <= 8 else "")
    traces.append(
        go.Scatter(x=x, y=list(line.y), name=_text(line.name), legendgroup=group, mode=mode, line=style, **named)
    )
    return traces


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"


def _bars(figure: go.Figure, chart: BarChart, parts: Mapping[str, str]) -> None:
    categories = [_text(name) for name in chart.categories]
    for name, values in chart.parts.items():
        error = None
        if len(chart.parts) == 1 and chart.low is not None and chart.high is not None:
            above = [None if h is None or v is None else h - v for h, v in zip(chart.high, values, strict=True)]
            below = [None if h is None or v is None else v - h for h, v in zip(chart.low, values, strict=True)]
            error = {"type": "data", "array": above, "arrayminus": below, "color": REFERENCE}
        figure.add_trace(
            go.Bar(x=categories, y=list(values), name=_text(name), marker_color=parts[name], error_y=error)
        )
    for name, total, text in zip(categories, _tops(chart), bar_totals(chart), strict=False):
        figure.add_annotation(x=name, y=total, text=text, showarrow=False, yshift=10)
    figure.update_layout(barmode="relative", showlegend=len(chart.parts) > 1)


def _tops(chart: BarChart) -> list[float]:
    return [math.fsum(value or 0.0 for value in values) for values in zip(*chart.parts.values(), strict=True)]


def _flows(chart: FlowChart) -> go.Sankey:
    names = [name for _, nodes in chart.columns for name in nodes]
    place = {name: number for number, name in enumerate(names)}
    last = max(1, len(chart.columns) - 1)
    x = [0.001 + 0.998 * column / last for column, (_, nodes) in enumerate(chart.columns) for _ in nodes]
    y = _middles(chart)
    sources = dict.fromkeys(flow.source for flow in chart.flows)
    colour = {name: PARTS[number % len(PARTS)] for number, name in enumerate(sources)}
    return go.Sankey(
        arrangement="snap",
        node={"label": [_text(n) for n in names], "x": x, "y": y, "pad": FLOW_PAD, "thickness": 12, "color": REFERENCE},
        link={
            "source": [place[flow.source] for flow in chart.flows],
            "target": [place[flow.target] for flow in chart.flows],
            "value": [flow.value for flow in chart.flows],
            "label": [_text(flow.text) for flow in chart.flows],
            "color": [_pale(colour[flow.source]).replace("0.2)", "0.45)") for flow in chart.flows],
        },
    )


def _middles(chart: FlowChart) -> list[float]:
    """Where the middle of each node stands, of the height: left to itself, Plotly lets nodes run off the picture."""
    out: dict[str, float] = {}
    into: dict[str, float] = {}
    for flow in chart.flows:
        out[flow.source] = out.get(flow.source, 0.0) + flow.value
        into[flow.target] = into.get(flow.target, 0.0) + flow.value
    space = _flow_height(chart) - FLOW_MARGIN["t"] - FLOW_MARGIN["b"]
    columns = [[max(out.get(name, 0.0), into.get(name, 0.0)) for name in nodes] for _, nodes in chart.columns]
    scale = min(
        ((space - FLOW_PAD * (len(sizes) - 1)) / math.fsum(sizes) for sizes in columns if math.fsum(sizes) > 0),
        default=1.0,
    )
    middles = []
    for sizes in columns:
        top = (space - scale * math.fsum(sizes) - FLOW_PAD * (len(sizes) - 1)) / 2
        for size in sizes:
            middles.append((top + scale * size / 2) / space)
            top += scale * size + FLOW_PAD
    return middles


def _headings(figure: go.Figure, chart: FlowChart) -> None:
    last = len(chart.columns) - 1
    for column, (heading, _) in enumerate(chart.columns):
        figure.add_annotation(
            text=_text(heading),
            x=column / max(1, last),
            y=1.0,
            xref="paper",
            yref="paper",
            xanchor="right" if column == last and last else "left",
            yanchor="bottom",
            showarrow=False,
        )


def _flow_height(chart: FlowChart) -> int:
    most: int = max(len(nodes) for _, nodes in chart.columns)
    return 160 + 56 * most
