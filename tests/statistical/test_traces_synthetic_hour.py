"""The synthetic hour against the measured statistics of the trace that it stands in for.

The seeds are fixed, so these tests do not flicker. Tolerances are what the model's hours scatter by, not what the real
hour would need: a wrong factor in the generator leaves them.
"""

from statistics import mean

import numpy as np
import pytest
from scipy.stats import spearmanr

from simulator.workload import Trace
from traces.statistics.totals import index_of_dispersion
from traces.synthetic.dispersion import model_dispersion
from traces.synthetic.generate import embedded_hour, synthesise
from traces.synthetic.profile import Profile, RateComponent, SourceProfile, load_profile

SEEDS = range(8)
PROFILE = load_profile()
each_source = pytest.mark.parametrize("k", range(len(PROFILE.sources)), ids=[s.name for s in PROFILE.sources])


@pytest.fixture(scope="module")
def hours() -> list[Trace]:
    return [embedded_hour(seed) for seed in SEEDS]


@each_source
def test_rate(hours: list[Trace], k: int) -> None:
    expected = PROFILE.sources[k].rate_per_s * 3600
    for hour in hours:
        assert abs((hour.source == k).sum() - expected) < 4 * expected**0.5  # Poisson given the rate


@each_source
def test_dispersion(hours: list[Trace], k: int) -> None:
    for window_s, measured in PROFILE.sources[k].dispersion.items():
        seen = [index_of_dispersion(hour.arrival_s[hour.source == k], window_s, 3600.0) for hour in hours]
        assert mean(seen) == pytest.approx(measured, rel=0.25), window_s
        assert all(1 + (measured - 1) / 3 < value < 1 + (measured - 1) * 3 for value in seen), window_s


@each_source
def test_variation_of_gaps(hours: list[Trace], k: int) -> None:
    gaps = [np.diff(hour.arrival_s[hour.source == k]) for hour in hours]
    seen = [float(gap_s.std() / gap_s.mean()) for gap_s in gaps]
    assert mean(seen) == pytest.approx(PROFILE.sources[k].gap_cv, rel=0.15)


def test_only_the_code_source_falls_silent(hours: list[Trace]) -> None:
    conv, code = ([np.diff(hour.arrival_s[hour.source == k]) for hour in hours] for k in range(2))
    assert max(gap_s.max() for gap_s in conv) < 10
    assert mean(int((gap_s > 60).sum()) for gap_s in code) == pytest.approx(12, rel=0.4)  # 12 in the real hour
    assert all(100 < gap_s.max() < 500 for gap_s in code)  # 217 s in the real hour


@each_source
@pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
def test_token_quantiles(hours: list[Trace], k: int, field: str) -> None:
    tokens = np.concatenate([getattr(hour, field)[hour.source == k] for hour in hours])
    quantiles = getattr(PROFILE.sources[k], field)
    for level in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        # The share below a quantile rather than its value: where the density is low the value may jump.
        expected = quantiles[PROFILE.quantile_levels.index(level)]
        below, up_to = (tokens < expected - 0.5).mean(), (tokens <= expected + 0.5).mean()
        assert below - 0.006 < level < up_to + 0.006, level


@each_source
def test_token_means(hours: list[Trace], k: int) -> None:
    real = [(22361870 / 19366, 4088665 / 19366), (18059974 / 8819, 245896 / 8819)][k]
    for expected, field in zip(real, ("input_tokens", "output_tokens"), strict=True):
        tokens = np.concatenate([getattr(hour, field)[hour.source == k] for hour in hours])
        assert tokens.mean() == pytest.approx(expected, rel=0.03)


@each_source
def test_rank_correlation(hours: list[Trace], k: int) -> None:
    given, made = (
        np.concatenate([getattr(hour, field)[hour.source == k] for hour in hours])
        for field in ("input_tokens", "output_tokens")
    )
    assert spearmanr(given, made).statistic == pytest.approx(PROFILE.sources[k].spearman, abs=0.012)


@pytest.mark.parametrize("spearman", [-0.8, -0.3, 0.5, 0.95])
def test_copula_gives_the_rank_correlation_asked_for(spearman: float) -> None:
    trace = synthesise(_smooth(spearman=spearman), duration_s=3600, seed=1)
    assert len(trace) > 30_000
    assert spearmanr(trace.input_tokens, trace.output_tokens).statistic == pytest.approx(spearman, abs=0.015)


@pytest.mark.parametrize(("squared_cv", "on_share"), [(0.4, 1.0), (2.0, 0.4)])
def test_formula_of_dispersion_agrees_with_the_generator(squared_cv: float, on_share: float) -> None:
    """Over many levels the scatter is small and the formula must hold closely; each hour is scaled to its mean."""
    modulation = (
        RateComponent(time_scale_s=0.5, squared_cv=0.3),
        RateComponent(time_scale_s=4.0, squared_cv=squared_cv, on_share=on_share),
    )
    profile, duration_s = _smooth(modulation), 20_000.0
    traces = [synthesise(profile, duration_s=duration_s, seed=seed) for seed in range(24)]
    for window_s in (0.1, 1.0, 10.0, 60.0):
        seen = mean(index_of_dispersion(trace.arrival_s, window_s, duration_s) for trace in traces)
        assert seen == pytest.approx(model_dispersion(10.0, modulation, window_s), rel=0.08), window_s


def _smooth(modulation: tuple[RateComponent, ...] = (), spearman: float = 0.0) -> Profile:
    source = SourceProfile(
        name="only",
        rate_per_s=10.0,
        dispersion={},
        gap_cv=1.0,
        spearman=spearman,
        input_tokens=(0.0, 100_000.0),
        output_tokens=(0.0, 100_000.0),
        modulation=modulation,
    )
    return Profile(name="smooth", attribution="made up", quantile_levels=(0.0, 1.0), sources=(source,))
