"""When a plan counts as verified, and what that says of the next draw."""

import pytest
from scipy.stats import binom

from experiments.verify.acceptance import Acceptance, draws_wanted, luck_of, share_of


def acceptance(**changes):
    parts = {"held_out": 0.9, "search": (0.2, 1.0), "fresh": (0.1, 1.0, 0.3), "wanted": 3, "number": 1}
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


def test_72_draws_are_the_fewest_that_give_95_percent():
    assert share_of(71) < 0.95 < share_of(72)
    assert acceptance(fresh=(0.5,) * 72, wanted=72).held_share == share_of(72)


@pytest.mark.parametrize("number", [1, 2, 5, 40])
def test_a_plan_below_the_share_passes_no_more_often_than_luck_allows(number):
    draws = draws_wanted(72, number)
    share = share_of(draws, number)
    assert binom.pmf(draws, draws, share) == pytest.approx(luck_of(number))
    assert 0.95 < share < 0.9515  # later plans pass more draws, for the same share


def test_all_plans_of_a_search_together_pass_by_luck_in_5_percent():
    assert sum(luck_of(number) for number in range(1, 10_000)) == pytest.approx(0.05, rel=1e-3)
    wanted = [draws_wanted(72, number) for number in range(1, 30)]
    assert wanted[0] == 72
    assert wanted == sorted(wanted)


def test_what_was_refused_promises_nothing():
    assert acceptance(fresh=(0.5, 2.0), wanted=72).held_share == 0.0
    assert acceptance(fresh=()).held_share == 0.0
