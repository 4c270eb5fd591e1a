"""Ticks: round trip, order, and agreement of the scalar with the array form."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulator.ticks import MAX_TICKS, to_seconds, to_ticks, to_ticks_array

SECONDS = st.floats(0, 2.0**22, exclude_max=True)


@given(st.integers(0, 2**53))
def test_ticks_survive_the_round_trip(ticks):
    assert to_ticks(to_seconds(ticks)) == ticks


@given(SECONDS)
def test_seconds_survive_within_half_a_tick(seconds):
    assert abs(to_seconds(to_ticks(seconds)) - seconds) <= 2.0**-41
    assert 0 <= to_ticks(seconds) <= MAX_TICKS


@given(SECONDS, SECONDS)
def test_order_is_kept(first, second):
    assert (to_ticks(first) <= to_ticks(second)) >= (first <= second)


@given(st.lists(SECONDS, max_size=20))
def test_array_form_agrees(seconds):
    assert to_ticks_array(np.array(seconds, dtype=np.float64)).tolist() == [to_ticks(s) for s in seconds]
