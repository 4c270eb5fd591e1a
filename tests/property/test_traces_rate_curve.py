"""Whatever the counts, a rate curve keeps them, is never below zero, and has no jumps."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from traces.synthetic.ratecurve import RateCurve

COUNTS = st.lists(st.one_of(st.just(0.0), st.floats(0, 1e6)), min_size=1, max_size=30)


@given(COUNTS)
def test_each_hour_keeps_its_count(counts: list[float]) -> None:
    curve = RateCurve(counts)
    for hour, count in enumerate(counts):
        knots_s = hour * 3600 + np.array([0.0, 1800.0, 3600.0 - 1e-6])
        found = np.trapezoid(curve.rate_per_s(knots_s), knots_s)
        assert abs(found - count) <= 1e-6 * max(*counts, 1.0) + 1e-6 * count


@given(COUNTS, st.floats(-1e6, 1e6))
def test_it_is_never_below_zero_and_repeats(counts: list[float], time_s: float) -> None:
    curve = RateCurve(counts)
    rate = float(curve.rate_per_s(time_s))
    assert rate >= -1e-9 * max(counts)
    again = float(curve.rate_per_s(time_s + curve.period_s))
    assert abs(again - rate) <= 1e-6 * (max(counts) + 1)


@given(COUNTS, st.integers(0, 60))
def test_it_does_not_jump(counts: list[float], half_hour: int) -> None:
    curve = RateCurve(counts)
    before, after = curve.rate_per_s(half_hour * 1800.0 + np.array([-1e-3, 1e-3]))
    assert abs(after - before) <= 1e-5 * (max(counts) + 1)
