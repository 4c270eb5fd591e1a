"""One colour for each group of a whole document, safe for the colour-blind and visible on light and dark."""

from collections.abc import Sequence

from experiments.show.parts import AreaChart, BarChart, Chart, LineChart, single_charts

# Okabe and Ito (2008), with grey in the place of black, then Tol's muted.
GROUPS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#999933", "#AA4499", "#44AA99")
PARTS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB", "#882255", "#44AA99", "#999933")


REFERENCE = "#8C8C8C"  # of what curves are held against, and of the nodes of flows


def group_colours(charts: Sequence[Chart]) -> dict[str, str]:
    """Of the groups of lines, in the order in which they come."""
    drawn = [chart for chart in single_charts(charts) if isinstance(chart, LineChart)]
    return _numbered([line.group or line.name for chart in drawn for line in chart.lines if not line.reference], GROUPS)


def part_colours(charts: Sequence[Chart]) -> dict[str, str]:
    """Of the parts of bars, and of those of areas, in the order in which they come."""
    singles = single_charts(charts)
    bars = [name for chart in singles if isinstance(chart, BarChart) for name in chart.parts]
    areas = [name for chart in singles if isinstance(chart, AreaChart) for name in chart.areas]
    return {**_numbered(areas, PARTS), **_numbered(bars, PARTS)}


def _numbered(names: Sequence[str], palette: Sequence[str]) -> dict[str, str]:
    return {name: palette[number % len(palette)] for number, name in enumerate(dict.fromkeys(names))}
