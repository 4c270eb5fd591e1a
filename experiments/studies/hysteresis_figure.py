"""The figure of the hysteresis study: what each weight costs, against how much it moves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from experiments.figures import METADATA, POLICY_COLOURS, STYLE
from simulator.problem import FloatArray

MARKERS = ("o", "s", "^", "D", "v", "P")
KEY = "number: weight of the price of moving (0 ignored, 1 true); ring: the cheapest of a policy"
APART_PX = 18.0  # labels nearer to each other than this are shared


def draw(means: Sequence[Mapping[str, Any]], *, setting: str, folder: Path) -> list[Path]:
    """Draw hysteresis.png and hysteresis.svg; the same means, the same bytes."""
    paths = [folder / "hysteresis.png", folder / "hysteresis.svg"]
    style: dict[str, Any] = {**STYLE, "svg.hashsalt": "tokenfleet"}
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        figure = frontier(means, setting)
        figure.savefig(paths[0], metadata=METADATA)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def frontier(means: Sequence[Mapping[str, Any]], setting: str) -> Figure:
    """One line per policy through its weights, each point labelled; dotted: what never moving costs."""
    figure = Figure(figsize=(8.5, 5.6), layout="constrained")
    axes = figure.subplots()
    figure.suptitle("Churn against cost, by how much of the price of moving a policy heeds")
    axes.set_title(setting, fontsize=9, color="#555555")
    axes.set_xlabel("churn [replicas started or stopped per hour]")
    axes.set_ylabel("total cost, moving at its true price [USD]")
    lines = []
    for index, policy in enumerate(dict.fromkeys(mean["policy"] for mean in means)):
        colour = POLICY_COLOURS[index % len(POLICY_COLOURS)]
        own = [mean for mean in means if mean["policy"] == policy]
        moving = [mean for mean in own if mean["weight"] is not None]
        xy = np.array([(mean["churn_per_h"], mean["total_usd"]) for mean in moving])
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(*xy.T, color=colour, marker=marker, markersize=5, linewidth=1.6, clip_on=False, label=policy)
        never_usd = next(mean["total_usd"] for mean in own if mean["weight"] is None)
        label = f"{policy}: never moves, {never_usd:,.2f} USD"
        axes.axhline(never_usd, color=colour, linewidth=1.0, linestyle=":", label=label)
        best = int(xy[:, 1].argmin())
        axes.plot(*xy[best], "o", markersize=13, markerfacecolor="none", markeredgecolor=colour, clip_on=False)
        lines.append((xy, [mean["weight"] for mean in moving], colour))
    axes.set_xlim(left=0)
    axes.set_ylim(*_heights(np.concatenate([xy[:, 1] for xy, _, _ in lines])))  # never moving may be far above
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, title=KEY)
    figure.draw_without_rendering()  # settles the layout: labels are placed in pixels
    for xy, weights, colour in lines:
        _label(axes, xy, weights, colour)
    return figure


def _heights(usd: FloatArray) -> tuple[float, float]:
    """Limits of the axis: the points with a margin, and some height even where all cost the same."""
    margin = max(0.15 * float(np.ptp(usd)), 0.01 * float(usd.max()), 1e-6)
    return float(usd.min()) - margin, float(usd.max()) + margin


def _label(axes: Axes, xy: FloatArray, weights: Sequence[float], colour: str) -> None:
    """Weights beside their points; points that lie on each other share a label."""
    pixels = axes.transData.transform(xy)
    groups: list[list[int]] = []
    for point in range(len(xy)):
        near = (g for g in groups if np.hypot(*(pixels[g[0]] - pixels[point])) < APART_PX)
        group = next(near, None)
        if group is None:
            groups.append([point])
        else:
            group.append(point)
    lowest = int(xy[:, 1].argmin())
    for group in groups:
        below = lowest in group  # the line comes down to it from both sides
        axes.annotate(
            ", ".join(f"{weights[point]:g}" for point in group),
            xy[group[0]],
            xytext=(0, -16) if below else (6, 6),
            textcoords="offset points",
            horizontalalignment="center" if below else "left",
            color=colour,
            fontsize=9,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
