"""What can be shown: words, tables and a few kinds of charts, without a word on how they are drawn.

Every chart has a `key`, which names its file and its place in a page. Colours follow the groups of lines, so that a
policy has one colour on a whole page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

DASH = "-"  # in a table: nothing is known

Values = Sequence[float | None]  # None: nothing is known there; the line has a gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve, with a band where `low` and `high` are given; all of one length.

    `group` names what decides the colour (the policy), the name of the line itself if there is none.
    """

    name: str
    x: Sequence[float]
    y: Values
    low: Values | None = None
    high: Values | None = None
    group: str | None = None
    dashed: bool = False
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
    x_ticks: Mapping[float, str] | None = None
    note: str = ""


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


Chart = LineChart | BarChart | AreaChart | FlowChart


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as text. The first `labels` columns are words, aligned left; the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
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
