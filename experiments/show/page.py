"""A document as one HTML page that needs no network: Plotly's charts to zoom, hover and toggle, light and dark.

Colours of text, grid and paper are the page's (CSS), so that one drawing serves both themes; the script is Plotly's.
"""

import html
import json
from collections.abc import Mapping
from importlib import resources

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from experiments.show.colours import PARTS, group_colours, part_colours
from experiments.show.parts import AreaChart, BarChart, Chart, Document, FlowChart, Line, LineChart, Section, Table

CONFIG = {
    "responsive": True,
    "displaylogo": False,
    # Plotly 7 offers to upload the chart to its makers' cloud: a report stays where it is.
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "sendChartToCloud", "sendDataToCloud"],
}
CLEAR = "rgba(0,0,0,0)"
MARKED = 60  # curves of more points show no markers
NODE = "#8C8C8C"
FLOW_MARGIN = {"l": 8, "r": 8, "t": 56, "b": 12}
FLOW_PAD = 14  # between nodes of a column, in pixels
FLOW_WIDTH = "44rem"  # what the names of two columns need side by side; a narrower screen scrolls


def document_html(document: Document) -> str:
    """The page; the same document, the same bytes."""
    groups, parts = group_colours(document.charts), part_colours(document.charts)
    contents = "".join(
        f'<li><a href="#section-{number}">{_text(section.title)}</a></li>'
        for number, section in enumerate(document.sections)
    )
    sections = "".join(
        _section(section, f"section-{number}", groups, parts) for number, section in enumerate(document.sections)
    )
    specification = json.dumps(document.specification, indent=1, default=str)
    style = resources.files("experiments.show").joinpath("page.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{_text(document.title)}</title>\n<style>\n{style}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n<main>\n"
        f"<h1>{_text(document.title)}</h1>\n"
        + '<div class="summary">'
        + "".join(f"<p>{_text(sentence)}</p>" for sentence in document.summary)
        + f"</div>\n<nav><ul>{contents}</ul></nav>\n{sections}"
        f"<section><h2>Specification and versions</h2><details><summary>What was run, and with what</summary>"
        f"<pre>{_text(specification)}</pre></details></section>\n</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    return html.escape(str(text))


def _section(section: Section, name: str, groups: Mapping[str, str], parts: Mapping[str, str]) -> str:
    pieces = [f'<section id="{name}">\n<h2>{_text(section.title)}</h2>\n']
    pieces += [f"<p>{_text(sentence)}</p>\n" for sentence in section.text]
    tables = "".join(map(_table, section.tables))
    if section.detail and tables:
        tables = f"<details><summary>Tables</summary>{tables}</details>\n"
    pieces.append(tables)
    pieces += [_chart(chart, groups, parts) for chart in section.charts]
    return "".join(pieces) + "</section>\n"


def _table(table: Table) -> str:
    head = "".join(
        f'<th class="{"word" if number < table.labels else "number"}">{_text(name)}</th>'
        for number, name in enumerate(table.columns)
    )
    rows, before = [], ""
    for row in table.rows:
        first = ' class="first"' if table.labels > 1 and row[0] != before else ""
        before = row[0]
        cells = "".join(
            f'<td class="{"word" if number < table.labels else "number"}">{_text(cell)}</td>'
            for number, cell in enumerate(row)
        )
        rows.append(f"<tr{first}>{cells}</tr>")
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{_text(table.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}\n"
    )


def _chart(chart: Chart, groups: Mapping[str, str], parts: Mapping[str, str]) -> str:
    figure = plotly_figure(chart, groups, parts)
    drawn = plotly.io.to_html(
        figure, full_html=False, include_plotlyjs=False, div_id=f"chart-{chart.key}", config=CONFIG
    )
    note = f'<p class="note">{_text(chart.note)}</p>' if chart.note else ""
    box = f'<div class="chart">{drawn}</div>'
    if isinstance(chart, FlowChart):
        box = f'<div class="scroll"><div class="chart" style="min-width: {FLOW_WIDTH}">{drawn}</div></div>'
    return f"<figure><figcaption>{_text(chart.title)}</figcaption>{box}{note}</figure>\n"


def plotly_figure(chart: Chart, groups: Mapping[str, str], parts: Mapping[str, str]) -> go.Figure:
    """The chart with its colours; the page gives text, grid and background theirs."""
    figure = go.Figure(layout={"template": "none"})
    if isinstance(chart, LineChart):
        for line in chart.lines:
            figure.add_traces(_line(line, groups[line.group or line.name]))
        _axes(figure, chart.x_label, chart.y_label)
        figure.update_xaxes(type="log" if chart.log_x else "linear")
        figure.update_yaxes(**({"type": "log", "nticks": 5} if chart.log_y else {"type": "linear"}))
        if chart.from_zero and not chart.log_y:
            figure.update_yaxes(rangemode="tozero")
        if chart.x_ticks:
            figure.update_xaxes(tickvals=list(chart.x_ticks), ticktext=[_text(t) for t in chart.x_ticks.values()])
    elif isinstance(chart, BarChart):
        _bars(figure, chart, parts)
        _axes(figure, "", chart.y_label)
    elif isinstance(chart, AreaChart):
        for name, values in chart.areas.items():
            shape = {"color": parts[name], "width": 0.5, "shape": "hv"}
            figure.add_trace(
                go.Scatter(
                    x=list(chart.x), y=list(values), name=_text(name), stackgroup="all", line=shape, mode="lines"
                )
            )
        _axes(figure, chart.x_label, chart.y_label)
    else:
        figure.add_trace(_flows(chart))
        _headings(figure, chart)
    rows = len({trace.name for trace in figure.data})
    figure.update_layout(
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "system-ui, sans-serif", "size": 11 if isinstance(chart, FlowChart) else 13},
        margin=FLOW_MARGIN if isinstance(chart, FlowChart) else {"l": 8, "r": 8, "t": 28, "b": 8},
        height=420 + 12 * rows if not isinstance(chart, FlowChart) else _flow_height(chart),
        legend={"orientation": "h", "yanchor": "top", "y": -0.22, "x": 0},
        hovermode="closest",
        modebar={"bgcolor": CLEAR, "color": NODE, "activecolor": "#0072B2"},
        dragmode="zoom",
    )
    return figure


def _axes(figure: go.Figure, x_label: str, y_label: str) -> None:
    figure.update_xaxes(title=_text(x_label), automargin=True, zeroline=False, ticks="outside", showline=True)
    figure.update_yaxes(title=_text(y_label), automargin=True, zeroline=False)


def _line(line: Line, colour: str) -> list[go.Scatter]:
    x, group = list(line.x), _text(line.group or line.name)
    style = {"color": colour, "width": 2, "dash": "dash" if line.dashed else "solid"}
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
            error = {"type": "data", "array": above, "arrayminus": below, "color": NODE}
        figure.add_trace(
            go.Bar(x=categories, y=list(values), name=_text(name), marker_color=parts[name], error_y=error)
        )
    figure.update_layout(barmode="relative", showlegend=len(chart.parts) > 1)


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
        node={"label": [_text(n) for n in names], "x": x, "y": y, "pad": FLOW_PAD, "thickness": 12, "color": NODE},
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
        ((space - FLOW_PAD * (len(sizes) - 1)) / sum(sizes) for sizes in columns if sum(sizes) > 0), default=1.0
    )
    middles = []
    for sizes in columns:
        top = (space - scale * sum(sizes) - FLOW_PAD * (len(sizes) - 1)) / 2
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
