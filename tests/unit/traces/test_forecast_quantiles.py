"""Quantiles around a forecast: by hand, and as often right as they say."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from traces.forecast.port import Setting
from traces.forecast.quantiles import DOUBT, MIN_ERRORS, WINDOW, Forecaster
from traces.forecast.registry import make_forecaster


class Constant:
    """Says 100 whatever comes."""

    def __init__(self, setting, *, seasonal=False):
        self.seasonal = seasonal
        self._rate = 100.0 / setting.step

    def update(self, counts, duration):
        pass

    def predict(self, horizon):
        return np.full((horizon, 1), self._rate)


def constant(seasonal=False, horizon=1, **changes):
    setting = Setting(**{"series": 1, "season": 10**6, "prior": np.array([100.0]), **changes})
    return Forecaster(Constant(setting, seasonal=seasonal), setting, horizon=horizon)


def quantiles(forecaster, *levels):
    return forecaster.forecast(levels).quantiles[-1, 0].tolist()


def doubted(mean, squared_cv, level):
    variance = mean + squared_cv * mean**2
    return stats.gamma(a=mean**2 / variance, scale=variance / mean).ppf(level)


def test_before_anything_is_seen_there_is_doubt():
    expected = [doubted(100.0, DOUBT**2, level) for level in (0.1, 0.5, 0.9)]
    assert quantiles(constant(), 0.1, 0.5, 0.9) == pytest.approx(expected)


def test_a_few_errors_change_the_doubt():
    """Four errors of a tenth, with the assumption for another four."""
    forecaster = constant()
    for count in (90.0, 110.0, 90.0, 110.0):
        forecaster.observe([count])
    squared_cv = (4 * DOUBT**2 + 4 * 0.1**2) / 8
    assert quantiles(forecaster, 0.9) == pytest.approx([doubted(100.0, squared_cv, 0.9)], rel=1e-3)


def test_the_rank_of_the_error_that_counts():
    """Nineteen errors, -9 to 9: of rank ceil(20 level)."""
    forecaster = constant()
    for count in np.random.default_rng(0).permutation(np.arange(91.0, 110.0)):
        forecaster.observe([count])
    assert quantiles(forecaster, 0.05, 0.5, 0.51, 0.9, 0.95) == pytest.approx([91, 100, 101, 108, 109])
    beyond = quantiles(forecaster, 0.96, 0.99)
    assert beyond[0] >= 109
    assert beyond[1] > beyond[0], "beyond the largest error, doubt decides where it says more"


@pytest.mark.parametrize(("errors", "known"), [(MIN_ERRORS - 1, False), (MIN_ERRORS, True)])
def test_few_errors_have_no_quantiles(errors, known):
    forecaster = constant()
    for _ in range(errors):
        forecaster.observe([100.0])
    assert (quantiles(forecaster, 0.5) == pytest.approx([100.0])) == known


def test_errors_are_relative_to_the_forecast_or_to_the_mean_if_that_is_more():
    few, many = constant(), constant()
    for _ in range(20):
        few.observe([50.0])
        many.observe([200.0])
    assert quantiles(few, 0.5) == pytest.approx([50.0])
    assert quantiles(many, 0.5) == pytest.approx([200.0])


class Alternating(Constant):
    """Says 10, 190, 10, ... whatever comes."""

    def update(self, counts, duration):
        self._rate = 200.0 - self._rate


def test_a_small_forecast_makes_no_large_relative_error():
    """Always ten too few: a tenth of the mean of 110 at most, not all of the forecast of ten."""
    setting = Setting(series=1, season=1, prior=np.array([10.0]))
    point = Alternating(setting)
    point._rate = 10.0
    forecaster = Forecaster(point, setting)
    for _ in range(2 * WINDOW):
        forecaster.observe(forecaster.forecast().mean[0] + 10.0)
    assert quantiles(forecaster, 0.95) == pytest.approx([10.0 + 10.0], rel=0.01)
    forecaster.observe([20.0])
    assert quantiles(forecaster, 0.95) == pytest.approx([190.0 * (1 + 10 / 110)], rel=0.01)


def test_only_the_latest_errors_count():
    forecaster = constant()
    for count in [500.0] * 50 + [100.0] * WINDOW:
        forecaster.observe([count])
    assert quantiles(forecaster, 0.99) == pytest.approx([100.0])


def test_the_errors_of_the_first_season_are_forgotten():
    seasonal, other = constant(seasonal=True, season=20), constant(season=20)
    for _ in range(20):
        seasonal.observe([500.0])
        other.observe([500.0])
    assert quantiles(other, 0.9) == pytest.approx([500.0])
    assert quantiles(seasonal, 0.9) == pytest.approx([doubted(100.0, DOUBT**2, 0.9)])


def test_each_lead_has_its_own_errors():
    """On a straight line the last value is wrong by one interval's rise for the next, by three for the third."""
    forecaster = make_forecaster("last", Setting(series=1, season=1), horizon=3)
    for count in np.arange(1000.0, 1060.0):
        forecaster.observe([count])
    forecast = forecaster.forecast([0.5, 0.9])
    assert forecast.mean[:, 0].tolist() == [1059.0] * 3
    for lead in range(3):
        assert forecast.quantiles[lead, 0] == pytest.approx([1060.0 + lead] * 2, abs=0.4)


@pytest.mark.parametrize("kind", ["poisson", "bursty"])
@pytest.mark.parametrize("name", ["last", "ewma", "adaptive"])
def test_quantiles_are_right_as_often_as_they_say(name, kind):
    """Three thousand intervals: three standard errors of a share are below 1.7 %."""
    rng = np.random.default_rng(7)
    rate = 50.0 if kind == "poisson" else 50.0 * rng.lognormal(0.0, 0.5, 3000)
    counts = rng.poisson(rate, 3000).astype(np.float64)
    forecaster = make_forecaster(name, Setting(series=1, season=24))
    levels, below = np.array([0.5, 0.9, 0.95]), []
    for now, came in pairwise(counts):
        forecaster.observe([now])
        below.append(came <= forecaster.forecast(levels).quantiles[0, 0])
    shares = np.mean(below[100:], axis=0)
    assert shares == pytest.approx(levels, abs=0.025)


def test_a_forecast_cannot_be_changed_by_who_gets_it():
    forecast = constant().forecast([0.5])
    with pytest.raises(ValueError, match="read-only"):
        forecast.mean[0, 0] = 1.0
