"""First guesses of the headroom: peak over mean of the load by hand, and which guess is taken."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.verify.guess import LEAST_CAP, Guess, Peak, choose, index_of_dispersion, peak, window_of
from tests.verify_samples import NOTHING, SLOW, configuration, of_type, sample_of, small

H, F = 400, 99
Z95 = 1.6448536
HORIZON_S = 100.0
CHAT, BOTH = np.array([1.0, 0.0]), np.array([1.0, 1.0])


@pytest.fixture
def scenario(tmp_path):
    return small(tmp_path)


@pytest.fixture
def second(scenario):
    """A configuration with a TPOT target at which requests of H and F tokens stay for a second."""
    prefill_s = scenario.step_cost(configuration(SLOW).deployment_key).prefill_s_per_token * H
    assert prefill_s < 0.5
    return replace(configuration(SLOW), tpot_target_s=(1 - prefill_s) / (1.5 + F - 1))


def pulses(sizes):
    """So many requests at the middle of each second."""
    return of_type(np.repeat(np.arange(len(sizes)) + 0.5, sizes), H, F)


EVEN = pulses([2] * 100)
PAIRS = pulses([4, 0] * 50)


def factor(guess, scenario, second, *types, share=CHAT, level=0.95):
    types = (*types, NOTHING)[:2]
    found = peak(guess, scenario, sample_of(*types, horizon_s=HORIZON_S), second, share, level)
    assert found.window_s == pytest.approx(1.0)
    return found.factor


class TestWindow:
    def test_residence_is_half_a_step_prefill_and_decode(self, scenario):
        sample = sample_of(pulses([1] * 100), NOTHING, horizon_s=HORIZON_S)
        prefill_s = scenario.step_cost(configuration(SLOW).deployment_key).prefill_s_per_token * H
        for target_s in (0.02, 0.05):
            c = configuration(SLOW, target_s)
            assert window_of(scenario, sample, c, CHAT) == pytest.approx(1.5 * target_s + prefill_s + 98 * target_s)
        slowest = window_of(scenario, sample, configuration(SLOW, None), CHAT)
        assert slowest == window_of(scenario, sample, configuration(SLOW, 0.05), CHAT)

    def test_types_count_by_their_work(self, scenario):
        """The window of a mix lies between those of its types, and nearer to the one with more work."""
        few, many = of_type(np.arange(10.0), H, F), of_type(np.arange(90.0), 2 * H, 3 * F)
        c = configuration(SLOW)
        first, second, mix = (
            window_of(scenario, sample_of(few, many, horizon_s=HORIZON_S), c, np.array(share))
            for share in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0])
        )
        assert first < mix < second
        assert second - mix < 0.1 * (second - first)

    def test_without_requests_it_is_a_second(self, scenario):
        assert window_of(scenario, sample_of(NOTHING, NOTHING, horizon_s=10.0), configuration(SLOW), BOTH) == 1.0


class TestDispersion:
    def test_by_hand(self):
        assert index_of_dispersion(EVEN.arrival_s, 100.0, 1.0) == 0.0
        assert index_of_dispersion(PAIRS.arrival_s, 100.0, 1.0) == pytest.approx(4 / 2)  # 4 or 0, mean 2
        assert index_of_dispersion(PAIRS.arrival_s, 100.0, 2.0) == 0.0

    def test_of_poisson_it_is_one(self):
        draw = np.random.default_rng(1)
        arrival_s = np.sort(draw.uniform(0, 1e4, 30_000))
        assert index_of_dispersion(arrival_s, 1e4, 1.0) == pytest.approx(1.0, abs=0.06)

    def test_of_nothing_it_is_one(self):
        assert index_of_dispersion(np.zeros(0), 100.0, 1.0) == 1.0


class TestStaffing:
    """With equal requests at rate lam and a window of a second: M = 1 + z sqrt(I / lam)."""

    def test_one_type(self, scenario, second):
        assert factor(Guess.STAFFING, scenario, second, PAIRS) == pytest.approx(1 + Z95 * np.sqrt(2 / 2))
        assert factor(Guess.STAFFING, scenario, second, EVEN) == 1.0
        assert factor(Guess.STAFFING, scenario, second, PAIRS, level=0.5) == 1.0
        assert factor(Guess.STAFFING, scenario, second, PAIRS, level=0.99) == pytest.approx(1 + 2.3263479)

    def test_a_part_of_a_type_is_thinned(self, scenario, second):
        """Half of them: 1 a second, and their dispersion is half way between 2 and that of Poisson."""
        half = factor(Guess.STAFFING, scenario, second, PAIRS, share=CHAT / 2)
        assert half == pytest.approx(1 + Z95 * np.sqrt(1.5 / 1))

    def test_types_pool(self, scenario, second):
        """2 a second at dispersion 2 and 2 a second at 0: L = 4 v, variance 4 v^2."""
        assert factor(Guess.STAFFING, scenario, second, PAIRS, EVEN, share=BOTH) == pytest.approx(1 + Z95 * 2 / 4)

    def test_more_traffic_needs_less_headroom(self, scenario, second):
        draw = np.random.default_rng(2)
        found = [
            factor(Guess.STAFFING, scenario, second, of_type(np.sort(draw.uniform(0, HORIZON_S, n)), H, F))
            for n in (100, 400, 1600, 6400)
        ]
        assert found == sorted(found, reverse=True)
        assert found[-1] == pytest.approx(1 + Z95 / np.sqrt(64), rel=0.05)


class TestSequence:
    def test_even_arrivals_need_no_headroom(self, scenario, second):
        assert factor(Guess.SEQUENCE, scenario, second, of_type(np.arange(0, 100, 0.25), H, F)) == pytest.approx(1.0)

    @pytest.mark.parametrize(("level", "expected"), [(0.5, 1.0), (0.89, 1.0), (0.91, 20.0), (0.95, 20.0)])
    def test_a_burst_by_hand(self, scenario, second, level, expected):
        """In 100 s 70 requests alone in their second, 20 at once, and 10 half a second later: they meet the 20."""
        alone = np.delete(np.arange(100.0) + 0.1, [*range(40, 60), *range(90, 100)])
        arrival_s = np.sort(np.concatenate([alone, np.full(20, 50.1), np.full(10, 50.6)]))
        assert factor(Guess.SEQUENCE, scenario, second, of_type(arrival_s, H, F), level=level) == pytest.approx(
            expected
        )

    def test_the_type_that_meets_the_highest_peak_counts(self, scenario, second):
        """Bursts of one type stand on the even load of the other: 4 + 2 over a mean of 2 + 2."""
        found = factor(Guess.SEQUENCE, scenario, second, EVEN, PAIRS, share=BOTH)
        assert found == pytest.approx(6 / 4)
        assert factor(Guess.SEQUENCE, scenario, second, EVEN, PAIRS, share=CHAT) == pytest.approx(1.0)


class TestCaps:
    @pytest.mark.parametrize(("factor", "cap"), [(1.0, 1.0), (4.0, 0.25), (0.5, 1.0), (1e9, LEAST_CAP)])
    def test_the_cap_is_one_over_the_peak(self, factor, cap):
        assert Peak(factor=factor, window_s=1.0).cap == cap

    def test_no_guess_and_no_traffic_leave_the_cap_alone(self, scenario, second):
        assert factor(Guess.NONE, scenario, second, PAIRS) == 1.0
        sample = sample_of(NOTHING, PAIRS, horizon_s=HORIZON_S)
        for guess in (Guess.STAFFING, Guess.SEQUENCE):
            assert peak(guess, scenario, sample, second, CHAT, 0.95).factor == 1.0


def test_staffing_where_arrivals_are_like_poisson_and_else_the_sequence():
    draw = np.random.default_rng(3)
    poisson = np.sort(draw.uniform(0, 1000, 2000))
    bursts = np.sort(np.repeat(draw.uniform(0, 1000, 500), 4))
    for arrival_s, guess in ((poisson, Guess.STAFFING), (bursts, Guess.SEQUENCE)):
        halves = of_type(arrival_s[::2], H, F), of_type(arrival_s[1::2], H, F)
        assert choose(sample_of(*halves, horizon_s=1000.0)) is guess
