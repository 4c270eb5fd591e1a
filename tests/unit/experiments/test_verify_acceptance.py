"""When a plan counts as verified, and what that says of the next draw."""

import pytest
from scipy.stats import binom

from experiments.verify.acceptance import FAILURES, Acceptance, draws_wanted, luck_of, share_of


def acceptance(**changes):
    parts = {"held_out": 0.9, "search": (0.2, 1.0), "fresh": (0.1, 1.0, 0.3), "first": 3, "number": 1}
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
def test_a_draw_that_is_not_passed_or_missing_is_enough(changes, worst):
    assert not acceptance(**changes).accepted
    assert acceptance(**changes).worst == worst


def test_94_draws_are_the_fewest_that_give_95_percent():
    assert share_of(93) < 0.95 < share_of(94)
    assert acceptance(fresh=(0.5,) * 94, first=94).held_share == share_of(94)


@pytest.mark.parametrize("failures", range(FAILURES + 1))
def test_failures_are_made_up_for_by_more_draws(failures):
    wanted = draws_wanted(94, 1, failures)
    slo_ratios = (1.1,) * failures + (0.5,) * (wanted - failures)
    assert acceptance(fresh=slo_ratios, first=94).accepted
    assert not acceptance(fresh=slo_ratios[:-1], first=94).accepted
    assert acceptance(fresh=slo_ratios, first=94).failures == failures
    assert wanted - failures >= draws_wanted(94, 1, max(0, failures - 1))


def test_a_third_failure_ends_it():
    assert not acceptance(fresh=(1.1,) * 3 + (0.5,) * 1000, first=94).accepted


@pytest.mark.parametrize("number", [1, 2, 5, 40])
def test_a_plan_below_the_share_passes_no_more_often_than_luck_allows(number):
    """Exactly, over all ways to be accepted: a walk through the draws that stops where the plan is accepted."""
    share = share_of(94)
    wanted = [draws_wanted(94, number, failures) for failures in range(FAILURES + 1)]
    state, accepted = {0: 1.0}, 0.0
    for draw in range(1, wanted[-1] + 1):
        after: dict[int, float] = {}
        for failures, chance in state.items():
            after[failures] = after.get(failures, 0.0) + chance * share
            if failures < FAILURES:
                after[failures + 1] = after.get(failures + 1, 0.0) + chance * (1 - share)
        accepted += sum(chance for failures, chance in after.items() if draw >= wanted[failures])
        state = {failures: chance for failures, chance in after.items() if draw < wanted[failures]}
    assert 0.3 * luck_of(number) < accepted <= luck_of(number)


def test_all_plans_of_a_search_together_pass_by_luck_in_5_percent():
    assert sum(luck_of(number) for number in range(1, 10_000)) == pytest.approx(0.05, rel=1e-3)
    wanted = [draws_wanted(94, number) for number in range(1, 30)]
    assert wanted[0] == 94
    assert wanted == sorted(wanted)


def test_the_share_is_the_exact_binomial_bound():
    for draws, failures in ((94, 0), (140, 1), (200, 2)):
        bound = share_of(draws, 1, failures)
        assert binom.cdf(failures, draws, 1 - bound) == pytest.approx(luck_of(1) / (FAILURES + 1))


def test_what_was_refused_promises_nothing():
    assert acceptance(fresh=(0.5, 2.0), first=94).held_share == 0.0
    assert acceptance(fresh=()).held_share == 0.0
