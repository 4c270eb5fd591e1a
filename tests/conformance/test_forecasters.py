"""What every forecaster of the registry owes to its callers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from traces.forecast.port import Setting
from traces.forecast.registry import FORECASTERS, ORACLE, make_forecaster, season_intervals

LEVELS = (0.5, 0.9, 0.95, 0.99)
SEASON = 6
EVERY = pytest.mark.parametrize("name", FORECASTERS)
BLIND = pytest.mark.parametrize("name", [name for name in FORECASTERS if name != ORACLE])

counts = st.lists(st.lists(st.integers(0, 500), min_size=2, max_size=2), min_size=1, max_size=60).map(
    lambda rows: np.array(rows, dtype=np.float64)
)


def setting(**changes):
    return Setting(**{"series": 2, "season": SEASON, **changes})


def told(name, past, *, horizon=1, truth=None, **changes):
    """The forecasts after each interval: means (intervals, horizon, series), quantiles with levels as well."""
    forecaster = make_forecaster(
        name, setting(series=past.shape[1], **changes), horizon=horizon, truth=past if truth is None else truth
    )
    forecasts = []
    for row in past:
        forecaster.observe(row)
        forecasts.append(forecaster.forecast(LEVELS))
    return np.array([f.mean for f in forecasts]), np.array([f.quantiles for f in forecasts])


@EVERY
@settings(max_examples=30)
@given(past=counts, horizon=st.integers(1, 9))
def test_forecasts_are_finite_and_not_negative_and_quantiles_rise(name, past, horizon):
    mean, quantiles = told(name, past, horizon=horizon)
    assert mean.shape == (len(past), horizon, 2)
    assert quantiles.shape == (len(past), horizon, 2, len(LEVELS))
    for values in (mean, quantiles):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert (np.diff(quantiles, axis=-1) >= 0).all()


@BLIND
@settings(max_examples=20)
@given(past=counts, future=counts, horizon=st.integers(1, 3))
def test_the_future_changes_no_forecast_of_the_past(name, past, future, horizon):
    alone = told(name, past, horizon=horizon)
    followed = told(name, np.concatenate([past, future]), horizon=horizon)
    for one, other in zip(alone, followed, strict=True):
        assert np.array_equal(one, other[: len(past)])


@EVERY
def test_a_series_is_forecast_from_its_own_past_alone(name):
    past = np.random.default_rng(1).poisson(40.0, (40, 3)).astype(np.float64)
    together = told(name, past, horizon=2)
    for series in range(3):
        alone = told(name, past[:, [series]], horizon=2)
        for one, other in zip(alone, together, strict=True):
            assert one[:, :, 0] == pytest.approx(other[:, :, series], rel=1e-12)


@EVERY
def test_the_same_past_gives_the_same_bits_and_is_left_alone(name):
    past = np.random.default_rng(2).poisson(40.0, (40, 2)).astype(np.float64)
    before = past.copy()
    prior = np.array([10.0, 20.0])
    first, second = told(name, past, prior=prior), told(name, past, prior=prior)
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert np.array_equal(past, before)
    assert prior.tolist() == [10.0, 20.0]


@EVERY
@pytest.mark.parametrize("step", [0.25, 1.0, 7.0])
def test_rates_are_per_unit_of_time(name, step):
    """The same counts in intervals of another length: the same forecasts, as counts."""
    past = np.random.default_rng(3).poisson(40.0, (40, 2)).astype(np.float64)
    plain, scaled = told(name, past), told(name, past, step=step, truth=past / step)
    for one, other in zip(plain, scaled, strict=True):
        assert other * step == pytest.approx(one, rel=1e-9)


@EVERY
def test_ten_times_the_requests_are_ten_times_the_forecast(name):
    """But for the Poisson part of the doubt while there are few errors, and for the one request that profiles add."""
    past = np.random.default_rng(4).poisson(1e6, (40, 2)) * np.linspace(1, 5, 40)[:, None]
    (mean, quantiles), (more, more_quantiles) = told(name, past), told(name, 10 * past)
    assert more == pytest.approx(10 * mean, rel=1e-5)
    assert more_quantiles == pytest.approx(10 * quantiles, rel=1e-5)


@EVERY
def test_before_anything_is_seen_the_prior_is_the_forecast_of_all_but_the_oracle(name):
    prior = np.array([30.0, 50.0])
    forecast = make_forecaster(name, setting(prior=prior), horizon=2, truth=np.ones((3, 2))).forecast(LEVELS)
    expected = np.ones((2, 2)) if name == ORACLE else np.tile(prior, (2, 1))
    assert np.array_equal(forecast.mean, expected)
    nothing = make_forecaster(name, setting(), truth=np.ones((3, 2))).forecast(LEVELS)
    assert np.isfinite(nothing.quantiles).all()


@EVERY
def test_a_steady_series_is_forecast_exactly(name):
    mean, _ = told(name, np.full((40, 2), 50.0), horizon=8)
    assert mean == pytest.approx(np.full_like(mean, 50.0), rel=1e-12)


COUNTING = [name for name, entry in FORECASTERS.items() if entry.make is None or entry.make.seasonal]


@pytest.mark.parametrize("name", COUNTING)
def test_where_intervals_are_counted_parts_of_one_make_a_whole_one(name):
    past = np.random.default_rng(5).poisson(40.0, (20, 2)).astype(np.float64)
    whole = make_forecaster(name, setting(), truth=past)
    parts = make_forecaster(name, setting(), truth=past)
    for row in past:
        whole.observe(row)
        for share in (0.2, 0.5, 0.3):
            parts.observe(row * share, share)
        assert parts.forecast(LEVELS).mean == pytest.approx(whole.forecast(LEVELS).mean)


@EVERY
def test_several_intervals_at_once_are_seen_as_their_mean(name):
    truth = np.full((9, 2), 30.0)
    forecaster = make_forecaster(name, setting(), truth=truth)
    forecaster.observe([90.0, 90.0], 3.0)
    assert forecaster.forecast().mean == pytest.approx(truth[:1])


def test_the_oracle_is_never_wrong_whatever_the_level():
    past = np.random.default_rng(6).poisson(40.0, (30, 2)).astype(np.float64)
    mean, quantiles = told(ORACLE, past, horizon=3)
    for lead in range(3):
        came = past[lead + 1 :]
        assert np.array_equal(mean[: len(came), lead], came)
        assert np.array_equal(quantiles[: len(came), lead], np.repeat(came[:, :, None], len(LEVELS), axis=2))


def test_only_the_oracle_gets_the_truth():
    with pytest.raises(ValueError, match="truth"):
        make_forecaster(ORACLE, setting())


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="did you mean 'seasonal'"):
        make_forecaster("saisonal", setting())


@EVERY
def test_a_season_is_a_whole_number_of_intervals_where_it_matters(name):
    if FORECASTERS[name].make is None or not FORECASTERS[name].make.seasonal:
        assert season_intervals(name, 86400.0, 420.0) == 1, "whatever it is"
        return
    assert season_intervals(name, 86400.0, 300.0) == 288
    assert season_intervals(name, 86400.0, 86400.0 / 7) == 7
    for interval_s in (420.0, 2 * 86400.0):
        with pytest.raises(InputError, match="whole number of intervals"):
            season_intervals(name, 86400.0, interval_s)
