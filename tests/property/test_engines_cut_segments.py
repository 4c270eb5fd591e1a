"""Where an arrival cuts a row of steps: a root in floats, corrected in integers, must be exact up to 2^62 ticks."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulator.engine import choose_engine

if choose_engine().name != "compiled":
    pytest.skip("there is no compiled engine here", allow_module_level=True)

from simulator.replica.kernel import elapsed_ticks, steps_until

END = 2**62


def exact(first, growth, steps):
    return first * steps + growth * (steps * (steps - 1) // 2)


@st.composite
def segments(draw):
    """First step, growth, and as many steps as end before all time does; small numbers and large ones of all sizes."""
    first = draw(st.integers(1, 50) | st.integers(0, 61).map(lambda bits: 2**bits) | st.integers(1, END - 1))
    growth = draw(st.integers(0, 50) | st.integers(0, 61).map(lambda bits: 2**bits) | st.integers(0, END - 1))
    low, high = 1, 10**8
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if exact(first, growth, middle) < END else (low, middle - 1)
    return first, growth, draw(st.integers(1, low))


EXACT = settings(deadline=None, max_examples=500)


@EXACT
@given(segments(), st.floats(0, 1))
@example((2**56, 1, 60), 0.5)  # the root is off by up to eight steps, to either side
@example((3 * 2**53, 2, 120), 0.5)
def test_cut_is_at_the_first_boundary_not_before_the_arrival(segment, place):
    first, growth, limit = segment
    for steps in range(1, limit + 1) if limit <= 120 else {1, 1 + int(place * (limit - 1)), limit}:
        start, end = exact(first, growth, steps - 1), exact(first, growth, steps)
        assert elapsed_ticks(first, growth, steps) == end
        for elapsed in {start + 1, (start + 1 + end) // 2, end}:
            assert steps_until(first, growth, limit, elapsed) == steps


@EXACT
@given(segments())
def test_cut_of_an_arrival_at_the_start_or_after_the_end(segment):
    first, growth, limit = segment
    assert steps_until(first, growth, limit, 0) == 1
    assert steps_until(first, growth, limit, END - 1) == limit
