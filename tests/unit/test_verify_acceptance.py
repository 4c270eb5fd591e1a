"""When a plan counts as verified, and what that says of the next draw."""

import pytest
from scipy.stats import binom

from experiments.verify.acceptance import Acceptance, share_at_least


def acceptance(**changes):
    parts = {"held_out": 0.9, "search": (0.2, 1.0), "fresh": (0.1, 1.0, 0.3), "wanted": 3}
    return Acceptance(**(parts | changes))


def test_draws_that_just_hold_are_accepted():
    assert acceptance().accepted
    assert acceptance().worst == 1.0
    assert acceptance(held_out=None).accepted


@pytest.mark.parametrize(
    ("changes", "worst"),
    [
        ({"held_out": 1.001}, 1.001),
        ({"search": (1.2,), "fresh": ()}, 1.2),
        ({"fresh": (0.1, 1.5)}, 1.5),
        ({"fresh": (0.1, 0.2, 1.5)}, 1.5),
        ({"fresh": (0.1, 0.2)}, 1.0),
        ({"fresh": ()}, 1.0),
    ],
)
def test_one_draw_that_is_not_passed_or_is_missing_is_enough(changes, worst):
    assert not acceptance(**changes).accepted
    assert acceptance(**changes).worst == worst


def test_59_draws_are_the_fewest_that_give_95_percent():
    assert share_at_least(59, 59) == pytest.approx(0.05 ** (1 / 59))
    assert share_at_least(58, 58) < 0.95 < share_at_least(59, 59)
    assert acceptance(fresh=(0.5,) * 59, wanted=59).held_share == share_at_least(59, 59)


@pytest.mark.parametrize(("passed", "draws"), [(1, 1), (9, 10), (19, 20), (50, 59), (1, 20)])
def test_at_the_bound_so_many_passes_are_just_5_percent_likely(passed, draws):
    bound = share_at_least(passed, draws)
    assert binom.sf(passed - 1, draws, bound) == pytest.approx(0.05)
    assert bound < passed / draws


def test_what_did_not_pass_lowers_the_share():
    assert acceptance(fresh=(0.5, 2.0), wanted=59).held_share == share_at_least(1, 2)
    assert acceptance(fresh=()).held_share == share_at_least(0, 59) == 0.0
