"""What can be shown: words, tables and a few kinds of charts, without a word on how they are drawn.

Every chart has a `key`, which names its file and its place in a page. Colours follow the groups of lines, so that a
policy has one colour on a whole page.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

DASH = "-"  # in a table: nothing is known

Values = Sequence[float | None]  # None: nothing is known there; the line has a gap
Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve, with a band where `low` and `high` are given; all of one length.

    `group` names what decides the colour (the policy), the name of the line itself if there is none. A reference is
    what the others are held against: grey and dashed.
    """

    name: str
    x: Sequence[float]
    y: Values
    low: Values | None = None
    high: Values | None = None
    group: str | None = None
    dashed: bool = False
    reference: bool = False
    steps: bool = False  # the value holds until the next point
    markers: bool = True
    labels: Sequence[str] | None = None  # a word on each point, shown where there is room or on hover


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """Curves over one axis; units stand in the axis labels."""

    key: str
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False  # the y axis begins at zero
    x_range: Range | None = None
    y_range: Range | None = None
    x_ticks: Mapping[float, str] | None = None
    note: str = ""

    @property
    def xs(self) -> list[float]:
        return [value for line in self.lines for value in line.x]

    @property
    def ys(self) -> list[float]:
        return [value for line in self.lines for value in line.y if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BarChart:
    """Bars, one for each category; several parts are stacked on one another."""

    key: str
    title: str
    y_label: str
    categories: Sequence[str]
    parts: Mapping[str, Values]  # name of the part -> value for each category
    low: Values | None = None  # of the whole bar
    high: Values | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaChart:
    """Areas stacked on one another over one axis, each value holding until the next point."""

    key: str
    title: str
    x_label: str
    y_label: str
    x: Sequence[float]
    areas: Mapping[str, Values]
    x_range: Range | None = None
    y_range: Range | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panels:
    """Charts side by side under one title and one legend; with `share_y` all have one y axis, named once a row."""

    key: str
    title: str
    charts: Sequence[LineChart | AreaChart]
    columns: int = 3
    share_y: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A band from one node to another, as wide as `value`."""

    source: str
    target: str
    value: float
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowChart:
    """Nodes in columns and the flows between neighbouring columns: a plan as a picture.

    Node names are unique over all columns.
    """

    key: str
    title: str
    columns: Sequence[tuple[str, Sequence[str]]]  # heading, names of the nodes from top to bottom
    flows: Sequence[Flow]
    note: str = ""


Chart = LineChart | BarChart | AreaChart | FlowChart | Panels


def single_charts(charts: Sequence[Chart]) -> list[LineChart | BarChart | AreaChart | FlowChart]:
    """The charts with the panels of each set in its place."""
    return [single for chart in charts for single in (chart.charts if isinstance(chart, Panels) else (chart,))]


def bar_totals(chart: BarChart) -> list[str]:
    """What is written above the bars: the sums of their parts, where there are several, all of one sign."""
    values = [[value or 0.0 for value in part] for part in chart.parts.values()]
    if len(values) < 2 or any(value < 0 for part in values for value in part):
        return []
    return [f"{math.fsum(parts):,.2f}" for parts in zip(*values, strict=True)]


def merged(lines: Sequence[Line]) -> list[Line]:
    """Lines that lie on each other as one that names them all: `agh = exact`. It keeps the colour of the first."""
    kept: list[Line] = []
    for line in lines:
        same = next((n for n, other in enumerate(kept) if _points(other) == _points(line)), None)
        if same is None:
            kept.append(line)
        else:
            first = kept[same]
            kept[same] = replace(first, name=f"{first.name} = {line.name}", group=first.group or first.name)
    return kept


def _points(line: Line) -> tuple[object, ...]:
    columns = (line.x, line.y, line.low, line.high)
    return (line.dashed, *(None if c is None else [v if v is None else round(v, 6) for v in c] for c in columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as text. The first `labels` columns are words, aligned left; the others are numbers.

    A part of the table ends after each row whose number is in `breaks`; the cells (row, column) in `alarms` stand out.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    breaks: Collection[int] = ()
    alarms: Collection[tuple[int, int]] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with sentences, tables and charts under it, in this order."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    detail: bool = False  # left out where space is short: on a terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole report: the summary first, what was run and with what at the end."""

    title: str
    summary: Sequence[str]
    sections: Sequence[Section]
    specification: Mapping[str, object] = field(default_factory=dict)

    @property
    def charts(self) -> list[Chart]:
        return [chart for section in self.sections for chart in section.charts]
