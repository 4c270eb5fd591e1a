"""Forecasters against what can be worked out by hand."""

import numpy as np
import pytest

from traces.forecast.points import PROFILE_WEIGHT, Adaptive, Ewma, Last, Oracle, Seasonal, SeasonalNaive
from traces.forecast.port import Setting

SEASON = 24
DAY = 1e5 * (2 + np.sin(np.arange(SEASON) * 2 * np.pi / SEASON))


def setting(**changes):
    return Setting(**{"series": 1, "season": SEASON, **changes})


def said(forecaster, past, horizon=1):
    """Forecasts made after each interval, shape (intervals, horizon)."""
    forecasts = []
    for count in past:
        forecaster.update(np.array([count]), 1.0)
        forecasts.append(forecaster.predict(horizon)[:, 0])
    return np.array(forecasts)


def wape(forecaster, series, first):
    mean = said(forecaster, series[:-1])[:, 0]
    return np.abs(mean - series[1:])[first:].sum() / series[1:][first:].sum()


def test_the_last_one():
    assert said(Last(setting()), [3.0, 8.0, 0.0], horizon=2).tolist() == [[3, 3], [8, 8], [0, 0]]


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0])
def test_ewma_in_closed_form(weight):
    past = np.array([7.0, 1.0, 4.0, 12.0, 5.0])
    age = np.arange(len(past))[::-1]
    shares = weight * (1 - weight) ** age
    with_prior = said(Ewma(setting(weight=weight, prior=np.array([20.0]))), past)[-1, 0]
    assert with_prior == pytest.approx(shares @ past + (1 - weight) ** len(past) * 20.0)
    shares[0] = (1 - weight) ** age[0]
    assert said(Ewma(setting(weight=weight)), past)[-1, 0] == pytest.approx(shares @ past)


def test_ewma_takes_rates_of_intervals_of_any_length():
    forecaster = Ewma(setting(prior=np.array([10.0])))
    forecaster.update(np.array([8.0]), 0.5)
    assert forecaster.predict(1)[0, 0] == pytest.approx(0.5 * 10 + 0.5 * 16)


class TestSeasonalNaive:
    def test_it_repeats_the_season_at_every_lead(self):
        forecasts = said(SeasonalNaive(setting()), np.tile(DAY, 2), horizon=2 * SEASON)
        for now in range(SEASON - 1, 2 * SEASON):
            assert np.array_equal(forecasts[now], np.tile(DAY, 4)[now + 1 : now + 1 + 2 * SEASON])

    def test_the_first_season_is_that_of_ewma(self):
        first = said(SeasonalNaive(setting()), DAY)[: SEASON - 1]
        assert np.array_equal(first, said(Ewma(setting()), DAY)[: SEASON - 1])


class TestSeasonal:
    def test_it_repeats_a_season_that_repeats(self):
        forecasts = said(Seasonal(setting()), np.tile(DAY, 3), horizon=SEASON)
        for now in range(SEASON, 2 * SEASON):
            assert forecasts[now] == pytest.approx(np.tile(DAY, 4)[now + 1 : now + 1 + SEASON])

    def test_a_day_of_a_third_of_the_demand_is_seen_at_its_first_interval(self):
        """With weight one the profile is scaled to the last interval."""
        forecasts = said(Seasonal(setting(weight=1.0)), np.concatenate([DAY, DAY, DAY / 3]))
        assert forecasts[2 * SEASON : -1, 0] == pytest.approx(DAY[1:] / 3, rel=1e-4)

    def test_with_half_the_weight_half_of_the_way(self):
        """Rates over profiles: the means after one interval of double demand are 1.5 of the profile."""
        flat = np.full(2 * SEASON, 1000.0)
        forecasts = said(Seasonal(setting()), [*flat, 2000.0])
        before = 1 - 0.5**SEASON  # the means of rates and profiles started from zero a season ago
        level = (0.5 * before * 1000 + 0.5 * 2000 + 1) / (0.5 * before * 1000 + 0.5 * 1000 + 1)
        assert forecasts[-1, 0] == pytest.approx(1000 * level)

    def test_the_profile_weighs_the_latest_season_most(self):
        days = [np.full(SEASON, rate) for rate in (4e6, 2e6, 1e6)]
        forecasts = said(Seasonal(setting(weight=1.0)), np.concatenate(days)[: 2 * SEASON + 1], horizon=SEASON)
        keep = 1 - PROFILE_WEIGHT
        old, new = (4 * keep + 2) / (keep + 1), (4 * keep**2 + 2 * keep + 1) / (keep**2 + keep + 1)
        level = 1 / old  # of the one interval of the third day over its profile before
        assert forecasts[-1, :-1] == pytest.approx(np.full(SEASON - 1, 1e6 * old * level), rel=1e-5)
        assert forecasts[-1, -1] == pytest.approx(1e6 * new * level, rel=1e-5)

    def test_silence_is_no_division_by_zero_and_its_end_no_explosion(self):
        past = np.zeros(3 * SEASON)
        past[SEASON // 2 :: SEASON] = 100.0  # one interval of each season speaks
        past[2 * SEASON + 3] = 5.0  # and then one that never did
        forecasts = said(Seasonal(setting(weight=1.0)), past)
        assert np.isfinite(forecasts).all()
        assert forecasts.max() <= 6 * 100.0


class TestAdaptive:
    def week(self, seed=1):
        """Five days of a profile, two of a quarter of it, with some noise; then again."""
        rng = np.random.default_rng(seed)
        days = [DAY * (0.25 if day % 7 in (3, 4) else 1.0) for day in range(14)]
        return np.concatenate(days) * rng.lognormal(0.0, 0.03, 14 * SEASON)

    def test_with_a_season_it_beats_those_that_know_one_thing_only(self):
        week = self.week()
        own = wape(Adaptive(setting()), week, SEASON)
        for other, at_most in ((Last, 0.6), (Ewma, 0.4), (SeasonalNaive, 0.3), (Seasonal, 1.0)):
            assert own < at_most * wape(other(setting()), week, SEASON), other

    def test_without_a_season_it_averages_out_what_the_last_value_repeats(self):
        noise = np.random.default_rng(2).poisson(100.0, 1000).astype(np.float64)
        best = np.abs(noise - 100.0)[SEASON + 1 :].sum() / noise[SEASON + 1 :].sum()
        own = wape(Adaptive(setting()), noise, SEASON)
        assert own < 1.15 * best
        assert own < 0.85 * wape(Last(setting()), noise, SEASON)

    def test_on_a_random_walk_it_follows_the_last_value(self):
        walk = 1e4 * np.exp(np.random.default_rng(3).normal(0, 0.1, 1000).cumsum() * 0.5)
        assert wape(Adaptive(setting()), walk, SEASON) < 1.1 * wape(Last(setting()), walk, SEASON)


def test_the_oracle_stands_still_after_the_end():
    truth = np.array([[1.0], [2.0], [3.0]])
    oracle = Oracle(setting(), truth)
    assert oracle.predict(5)[:, 0].tolist() == [1, 2, 3, 3, 3]
    oracle.update(np.array([0.0]), 0.5)
    assert oracle.predict(1)[0, 0] == 1.0, "in the midst of the first interval"
    oracle.update(np.array([0.0]), 0.5)
    assert oracle.predict(1)[0, 0] == 2.0
