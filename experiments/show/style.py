"""Colours, units of time and settings of every picture that Matplotlib draws."""

from typing import Any

POLICY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
LINE_STYLES = ("-", "--", "-.", ":")
TIER_COLOURS = (
    "#4477AA",
    "#EE6677",
    "#228833",
    "#CCBB44",
    "#66CCEE",
    "#AA3377",
    "#BBBBBB",
    "#882255",
    "#44AA99",
    "#999933",
)
CLOCK_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
METADATA = {"Software": None, "Creation Time": None}  # the same picture, the same bytes
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
}
