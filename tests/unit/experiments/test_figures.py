"""The figures can be read: nothing is cut off, nothing lies on something else, and the clock suits the run."""

from itertools import pairwise

import matplotlib
import numpy as np
import pytest

from experiments.replay.run import ReplayOptions, replay_policy, survey
from experiments.replay.store import ReplayWriter
from experiments.report import replay_figures
from experiments.scenario.scenario import load_scenario
from experiments.show import figures
from experiments.show.colours import group_colours, part_colours
from policies.registry import make_policy
from simulator.workload import Trace
from traces.source import TraceInMemory

PANELS = {"gpus_over_time.png", "demand_and_capacity.png"}  # one for each policy, on shared axes


def arrivals(span_s):
    """A few hundred requests of both sources, spread over so many seconds."""
    rng = np.random.default_rng(5)
    size = 600
    return Trace(
        sources=("conv", "code"),
        arrival_s=np.sort(rng.uniform(0.0, span_s, size)),
        source=rng.integers(0, 2, size).astype(np.int32),
        input_tokens=rng.integers(20, 4000, size).astype(np.int32),
        output_tokens=rng.integers(1, 400, size).astype(np.int32),
    )


def drawn(policies, span_s, interval_s, folder):
    """The figures of a replay by name, laid out as they are saved."""
    scenario = load_scenario("azure-2023")
    arriving = survey(scenario, TraceInMemory(arrivals(span_s)))
    options = ReplayOptions(interval_s=interval_s, seed=0)
    with ReplayWriter(folder, arriving.survey.sources) as writer:
        runs = [
            replay_policy(scenario, arriving, make_policy(name), options, sink=writer.sink(name, 0))
            for name in policies
        ]
        writer.finish(scenario, runs, {})
    charts = replay_figures.ReplayCharts(folder).figures()
    groups, parts = group_colours(charts), part_colours(charts)
    with matplotlib.rc_context(figures.STYLE):
        found = {f"{chart.key}.png": figures.figure_of(chart, groups, parts) for chart in charts}
        for figure in found.values():
            figure.draw_without_rendering()
    assert [path.name for path in replay_figures.draw_replay(folder)] == list(found)
    return found


@pytest.fixture(params=[["gh"], ["gh", "agh", "static[gh]"], ["gh", "agh", "static[gh]", "gh[-m1]"]], ids=len)
def some(request, tmp_path):
    return drawn(request.param, 1500.0, 300.0, tmp_path)


def texts(figure):
    """Every text outside the axes: titles, labels, legends."""
    shared = [figure._suptitle] if figure._suptitle else []
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    of_axes = [text for axes in figure.axes if axes.get_visible() for text in (axes.title, axes.xaxis.label)]
    return [*shared, *legends, *of_axes]


def test_nothing_is_cut_off_at_the_edge_of_a_picture(some):
    for name, figure in some.items():
        for text in texts(figure):
            box = text.get_window_extent()
            assert box.x0 >= 0, (name, text)
            assert box.x1 <= figure.bbox.x1, (name, text)
            assert box.y0 >= 0, (name, text)
            assert box.y1 <= figure.bbox.y1, (name, text)


def test_no_curve_leaves_its_axes_at_the_top(some):
    for name, figure in some.items():
        for axes in figure.axes:
            for line in axes.lines:
                assert np.nanmax(line.get_ydata(), initial=0.0) <= axes.get_ylim()[1], name


def test_labels_of_an_axis_do_not_overlap(some):
    for name, figure in some.items():
        for axes in figure.axes:
            ticks = [*axes.xaxis.get_major_ticks(), *axes.xaxis.get_minor_ticks()]
            labels = [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]
            boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
            assert all(left.x1 <= right.x0 for left, right in pairwise(boxes)), name


def test_each_policy_has_a_panel_or_a_curve(some):
    counts = {sum(axes.get_visible() for axes in some[name].axes) for name in PANELS}
    (policies,) = counts
    assert len(some["cost_over_time.png"].axes[0].lines) == policies
    assert len(some["latency_cdf.png"].axes[0].lines) == policies


@pytest.mark.parametrize(("span_s", "interval_s", "unit"), [(600.0, 300.0, "min"), (8e4, 2e4, "h"), (8e5, 2e5, "d")])
def test_the_clock_suits_the_length_of_the_run(span_s, interval_s, unit, tmp_path):
    found = drawn(["gh"], span_s, interval_s, tmp_path)
    seconds = {"min": 60.0, "h": 3600.0, "d": 86400.0}[unit]
    horizon_s = (span_s // 60 + 1) * 60
    for name in ("cost_over_time.png", "gpus_over_time.png", "violations_over_time.png", "demand_and_capacity.png"):
        axes = found[name].axes[0]
        assert axes.get_xlabel().endswith(f"[{unit}]"), name
        assert axes.get_xlim()[1] == pytest.approx(horizon_s / seconds, rel=0.1), name
