"""Seconds to ticks and back: one rounding, and a documented limit."""

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.ticks import MAX_TICKS, TICKS_PER_S, to_seconds, to_ticks, to_ticks_array


def test_ticks_by_hand():
    assert to_ticks(0.0) == 0
    assert to_ticks(1.0) == TICKS_PER_S == 1_099_511_627_776
    assert to_ticks(1.5e-3) == 1_649_267_442  # 1,649,267,441.66
    assert to_ticks(86_400.0) == 86_400 * 2**40
    assert to_seconds(2**39) == 0.5


def test_halves_round_to_even_in_both_forms():
    seconds = np.array([0.5, 1.5, 2.5, 2.5000001]) / TICKS_PER_S
    assert [to_ticks(s) for s in seconds.tolist()] == [0, 2, 2, 3]
    assert to_ticks_array(seconds).tolist() == [0, 2, 2, 3]


def test_the_limit_is_48_days_and_two_times_can_be_added():
    assert to_ticks(2.0**22 - 2.0**-20) == MAX_TICKS + 1 - 2**20
    assert 48 * 86_400 < to_seconds(MAX_TICKS) < 49 * 86_400
    assert np.iinfo(np.int64).max == 2 * MAX_TICKS + 1


@pytest.mark.parametrize("seconds", [2.0**22, 1e300, float("inf"), float("nan"), -1e-9, -1e-300])
def test_times_out_of_range_are_refused(seconds):
    with pytest.raises(InputError, match=r"expected 0 to 4194304 s \(48\.5 days\)"):
        to_ticks(seconds)
    with pytest.raises(InputError, match=f"{seconds:g} s".replace("+", r"\+")):
        to_ticks_array(np.array([1.0, seconds]))
