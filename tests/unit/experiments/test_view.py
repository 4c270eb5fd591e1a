"""Means with confidence intervals over seeds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.show.parts import Line, merged
from experiments.studies.shared.view import cell, curve, estimate, rows_where


def test_nothing_and_one_seed_have_no_interval():
    assert estimate([]) is None
    assert estimate([None, float("nan")]) is None
    one = estimate([3.0])
    assert (one.mean, one.low, one.high) == (3.0, None, None)
    assert one.text() == "3.00"


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """95 % of intervals of 30 normal numbers; the percentile bootstrap is known to be a little short."""
    draw = np.random.default_rng(1)
    found = [estimate(draw.normal(5.0, 2.0, 30).tolist()) for _ in range(400)]
    covered = np.mean([e.low <= 5.0 <= e.high for e in found])
    assert 0.90 <= covered <= 0.98
    width = np.mean([e.high - e.low for e in found])
    assert width == pytest.approx(2 * 1.96 * 2.0 / np.sqrt(30), rel=0.06)


def test_it_is_the_same_each_time_and_moves_with_the_values():
    values = [1.0, 2.0, 4.0, 8.0]
    assert estimate(values) == estimate(values)
    moved = estimate([v + 10 for v in values])
    assert moved.low == pytest.approx(estimate(values).low + 10)
    assert estimate([2.0, 2.0, 2.0]).text() == "2.00"
    assert estimate([1.0, 3.0]).text(1) == "2.0 ±1.0"


def test_lines_on_each_other_are_one():
    a, b, c = (Line(name=name, x=[1.0, 2.0], y=[y, None]) for name, y in (("a", 1.0), ("b", 1.0 + 1e-9), ("c", 2.0)))
    assert [line.name for line in merged([a, b, c])] == ["a = b", "c"]
    assert len(merged([a, replace(b, dashed=True)])) == 2


def test_tables_and_curves_are_of_the_same_numbers():
    frame = pd.DataFrame({"policy": ["a"] * 4 + ["b"], "x": [1.0, 1.0, 2.0, 2.0, 1.0], "y": [1.0, 3.0, 5.0, 7.0, None]})
    line = curve(rows_where(frame, policy="a"), "a", "x", "y", factor=100)
    assert (line.x, line.y) == ([1.0, 2.0], [200.0, 600.0])
    assert line.low[0] <= 200 <= line.high[0]
    assert cell(rows_where(frame, policy="a", x=2.0), "y", 0).startswith("6")
    assert cell(rows_where(frame, policy="b"), "y") == "-"
    assert len(rows_where(frame, y=None)) == 1
