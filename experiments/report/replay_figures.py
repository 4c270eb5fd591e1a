"""Figures of a replay, with matplotlib. Each function draws one file."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.measures.load import replicas_ready
from experiments.measures.summary import COST_PARTS, cost_by_interval, gpus_by_tier, interval_edges, interval_table
from experiments.replay.run import ReplayRun
from experiments.scenario.scenario import Scenario
from experiments.show.style import CLOCK_UNITS, LINE_STYLES, METADATA, POLICY_COLOURS, STYLE, TIER_COLOURS


def _save(path: Path, draw: Callable[[], Figure]) -> None:
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = draw()
        figure.savefig(path, metadata=METADATA)


def _line(index: int) -> dict[str, Any]:
    return {
        "color": POLICY_COLOURS[index % len(POLICY_COLOURS)],
        "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
        "linewidth": 1.8,
    }


def draw_replay(scenario: Scenario, runs: Sequence[ReplayRun], folder: Path) -> list[Path]:
    """Draw every figure of a replay into `folder`; return the files."""
    figures: dict[str, Callable[[Scenario, Sequence[ReplayRun]], Figure]] = {
        "cost_over_time.png": _cost_over_time,
        "cost_parts.png": _cost_parts,
        "gpus_over_time.png": _gpus_over_time,
        "latency_cdf.png": _latency_cdf,
        "violations_over_time.png": _violations_over_time,
        "demand_and_capacity.png": _demand_and_capacity,
    }
    paths = []
    for name, draw in figures.items():
        path = folder / name
        _save(path, partial(draw, scenario, runs))
        paths.append(path)
    return paths


def _clock(runs: Sequence[ReplayRun]) -> tuple[float, str]:
    """Seconds of the unit that suits the length of the runs, and its name."""
    horizon_s = max(run.result.horizon_s for run in runs)
    return next(((size, unit) for size, unit in CLOCK_UNITS if horizon_s > 5 * size), CLOCK_UNITS[-1])


def _single(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    return figure, axes


def _grid(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """One panel per policy, side by side, on shared axes."""
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(4.2 * columns, 8.0), 3.6 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for extra in axes.flat[count:]:
        extra.set_visible(False)
    figure.suptitle(title)
    return figure, list(axes.flat[:count])


def _cost_over_time(scenario: Scenario, runs: Sequence[ReplayRun]) -> Figure:
    unit_s, unit = _clock(runs)
    figure, axes = _single("Money spent", f"time [{unit}]", "cost since the start [USD]")
    for index, run in enumerate(runs):
        edges = interval_edges(run.result, run.tally.starts_s)
        cost = sum(cost_by_interval(scenario, run.result, run.tally).values())
        axes.plot(edges / unit_s, np.concatenate([[0.0], np.cumsum(cost)]), label=run.policy, **_line(index))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(title="policy")
    return figure


def _cost_parts(scenario: Scenario, runs: Sequence[ReplayRun]) -> Figure:
    figure, axes = _single("Cost by its parts", "cost [USD]", "")
    names = [run.policy for run in runs]
    left = np.zeros(len(runs))
    costs = [cost_by_interval(scenario, run.result, run.tally) for run in runs]
    for part, colour in zip(COST_PARTS, TIER_COLOURS, strict=False):
        widths = np.array([cost[part].sum() for cost in costs])
        axes.barh(names, widths, left=left, color=colour, label=part.replace("_", " "), height=0.6)
        left += widths
    for row, total in enumerate(left):
        axes.text(total, row, f" {total:.2f}", va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, max(left.max() * 1.12, 1e-9))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=len(COST_PARTS))
    return figure


def _gpus_over_time(scenario: Scenario, runs: Sequence[ReplayRun]) -> Figure:
    del scenario
    unit_s, unit = _clock(runs)
    figure, panels = _grid(len(runs), "GPUs rented, by tier")
    end_s = max(run.result.horizon_s for run in runs)
    times_s = np.unique(
        np.concatenate([[0.0, end_s], *([r.rent_s, r.end_s] for run in runs for r in run.result.rentals)]).clip(
            0, end_s
        )
    )
    counts = [gpus_by_tier(run.result, times_s) for run in runs]
    tiers = sorted({tier for count in counts for tier in count})
    colour = {tier: TIER_COLOURS[k % len(TIER_COLOURS)] for k, tier in enumerate(tiers)}
    for axes, run, count in zip(panels, runs, counts, strict=True):
        used = [tier for tier in tiers if tier in count]
        if used:
            axes.stackplot(times_s / unit_s, [count[t] for t in used], colors=[colour[t] for t in used], step="post")
        axes.set(title=run.policy, xlabel=f"time [{unit}]")
        axes.set_xlim(0, end_s / unit_s)
    panels[0].set_ylabel("GPUs rented")
    handles = [matplotlib.patches.Patch(color=colour[tier], label=tier) for tier in tiers]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, max(1, len(handles))))
    return figure


def _latency_cdf(scenario: Scenario, runs: Sequence[ReplayRun]) -> Figure:
    del scenario
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    columns = (
        ("time to first token [s]", "ttft_s"),
        ("time per output token [s]", "tpot_s"),
        ("end to end [s]", "e2e_s"),
    )
    for axes, (label, column) in zip(panels, columns, strict=True):
        for index, run in enumerate(runs):
            values, share = getattr(run.tally, column).curve()
            axes.step(values, share, where="post", label=run.policy, **_line(index))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        if np.ptp(np.log10(axes.get_xlim())) < 2:  # too few powers of ten to read a value from
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.set_xlabel(label)
        axes.set_ylim(0, 1.01)
    panels[0].set_ylabel("share of served requests")
    panels[-1].legend(title="policy", loc="lower right")
    figure.suptitle("Latency of served requests")
    return figure


def _violations_over_time(scenario: Scenario, runs: Sequence[ReplayRun]) -> Figure:
    unit_s, unit = _clock(runs)
    title = "Requests out of their SLO or not served"
    figure, axes = _single(title, f"time of arrival [{unit}]", "share of arrivals [%]")
    for index, run in enumerate(runs):
        table = interval_table(scenario, run.tally)
        sums = table.groupby("interval_start_s")[["arrived", "served", "slo_violations"]].sum()
        with np.errstate(invalid="ignore"):
            share = 100 * (sums["arrived"] - sums["served"] + sums["slo_violations"]) / sums["arrived"]
        edges = interval_edges(run.result, run.tally.starts_s)
        values = np.append(share.to_numpy(), share.to_numpy()[-1])
        axes.step(edges / unit_s, values, where="post", label=run.policy, **_line(index))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(title="policy")
    return figure


def _demand_and_capacity(scenario: Scenario, runs: Sequence[ReplayRun]) -> Figure:
    del scenario
    unit_s, unit = _clock(runs)
    figure, panels = _grid(len(runs), "Demand against capacity: replicas needed at their limit, and replicas ready")
    for axes, run in zip(panels, runs, strict=True):
        edges = np.append(run.tally.load_starts_s, run.result.horizon_s)
        needed = run.tally.work_s / np.diff(edges)
        ready = replicas_ready(run.result, edges)
        for values, colour, width, label in (
            (needed, "#D55E00", 1.2, "needed by the demand"),
            (ready, "#0072B2", 2.0, "ready"),
        ):
            ends = np.append(values, values[-1])
            axes.step(edges / unit_s, ends, where="post", color=colour, linewidth=width, label=label)
        axes.set(title=run.policy, xlabel=f"time [{unit}]")
        axes.set_xlim(0, edges[-1] / unit_s)
    panels[0].set_ylim(bottom=0)  # of all panels, once all is drawn: it ends the scaling
    panels[0].set_ylabel("replicas")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
