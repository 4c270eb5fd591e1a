"""What is measured of a trace of the user's, and that a profile fitted to a synthetic trace is the one it came from."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import spearmanr

from simulator.errors import InputError
from simulator.workload import Trace
from traces.statistics.figures import quantiles
from traces.synthetic import tokens
from traces.synthetic.dispersion import model_dispersion
from traces.synthetic.fitting import _whole_hours, dispersion_within_hours, fit_profile, fit_silence
from traces.synthetic.generate import synthesise
from traces.synthetic.profile import Profile, RateComponent, SourceProfile, load_profile, parse_profile, profile_toml
from traces.synthetic.tokens import TokenCounts, joint_ranks, spearman

START = datetime(2024, 5, 10, tzinfo=UTC)


def made(hours: int, *, follow_share: float = 0.2) -> tuple[Profile, Trace]:
    """Two sources with a curve of a day; the tokens of the first go together."""
    names, factors = ("first", "second"), (RateComponent(time_scale_s=3.0, squared_cv=0.2),)
    curve = tuple(3600.0 * (1.5 + np.sin(2 * np.pi * np.arange(24) / 24)))
    profile = Profile(
        name="made",
        attribution="made up",
        quantile_levels=(0.0, 0.5, 1.0),
        curve_start=START,
        sources=tuple(
            SourceProfile(
                name=name,
                rate_per_s=1.5,
                dispersion={},
                gap_cv=None,
                spearman=spearman,
                input_tokens=(0.0, 300.0, 2000.0),
                output_tokens=(10.0, 20.0, 90.0),
                modulation=factors,
                requests_per_h=curve,
                follow_share=follow_share,
                follow_delay_s=0.002,
            )
            for name, spearman in zip(names, (0.8, 0.0), strict=True)
        ),
    )
    return profile, synthesise(profile, duration_s=hours * 3600.0, seed=2)


def test_a_profile_comes_back() -> None:
    profile, trace = made(26)
    fitted = fit_profile(trace, name="again", attribution='me & "you"')
    assert parse_profile(profile_toml(fitted), name="x").attribution == 'me & "you"'
    assert fitted.curve_start is not None
    assert (fitted.curve_start - START).total_seconds() == pytest.approx(0, abs=5)  # the first request
    for source, given in zip(fitted.sources, profile.sources, strict=True):
        assert len(source.requests_per_h) == 24  # whole days
        assert source.requests_per_h == pytest.approx(given.requests_per_h, rel=0.12)
        assert source.rate_per_s == pytest.approx(1.5, rel=0.03)
        assert source.spearman == pytest.approx(given.spearman, abs=0.01)
        assert source.follow_share == pytest.approx(0.2, abs=0.02)
        assert source.follow_delay_s == pytest.approx(0.002, rel=0.2)
        for window_s, seen in source.dispersion.items():
            expected = model_dispersion(
                1.5, given.modulation, window_s, follow_share=given.follow_share, follow_delay_s=given.follow_delay_s
            )
            assert seen == pytest.approx(expected, rel=0.1), window_s


def test_a_written_profile_reads_back_as_it_was_rounded() -> None:
    profile = load_profile("azure-2024")
    assert parse_profile(profile_toml(profile), name="again") == profile


def test_a_short_trace_has_no_curve() -> None:
    _, trace = made(2)
    fitted = fit_profile(trace, name="short", attribution="")
    assert fitted.curve_start is None
    assert [source.requests_per_h for source in fitted.sources] == [(), ()]
    assert synthesise(fitted, duration_s=60, seed=0).sources == ("first", "second")


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0.5, 0), (2.98, 0), (2.995, 3), (23.9, 23), (24.0, 24), (47.5, 24), (167.995, 168), (400.0, 336)],
)
def test_whole_hours_days_and_weeks(hours: float, expected: int) -> None:
    assert _whole_hours(hours * 3600) == expected


def test_dispersion_within_hours_is_about_the_curve() -> None:
    """Poisson arrivals along a steep curve: about the mean of an hour they would seem to burst."""
    counts = (3600.0, 36_000.0, 108_000.0)
    calm = Profile(
        name="calm",
        attribution="",
        quantile_levels=(0.0, 1.0),
        sources=(
            SourceProfile(
                name="only",
                rate_per_s=sum(counts) / 3 / 3600,
                dispersion={},
                gap_cv=None,
                spearman=0.0,
                input_tokens=(0.0, 1.0),
                output_tokens=(0.0, 1.0),
                modulation=(),
                requests_per_h=counts,
            ),
        ),
    )
    arrival_s = synthesise(calm, duration_s=3 * 3600, seed=0).arrival_s
    seen = np.bincount((arrival_s // 3600).astype(int))
    for window_s in (1.0, 60.0):
        assert dispersion_within_hours(arrival_s, window_s, seen) == pytest.approx(1, abs=0.15)
    hour = arrival_s[(arrival_s >= 3600) & (arrival_s < 7200)]
    plain = np.bincount((hour // 60).astype(int) - 60)
    assert plain.var() / plain.mean() > 20


def test_joint_ranks_by_hand() -> None:
    inputs, outputs = np.array([1, 2, 3, 4], dtype=np.int32), np.array([5, 5, 7, 6], dtype=np.int32)
    assert joint_ranks(TokenCounts(inputs), TokenCounts(outputs), 2) == ((2.0, 0.0), (0.0, 2.0))
    # Equal tokens share their ranks.
    assert joint_ranks(TokenCounts(inputs), TokenCounts(np.array([5, 5, 5, 5], dtype=np.int32)), 2) == (
        (1.0, 1.0),
        (1.0, 1.0),
    )
    table = np.array(joint_ranks(TokenCounts(np.repeat(inputs, 5)), TokenCounts(np.tile(outputs, 5)), 3))
    assert table.sum(axis=0) == pytest.approx([20 / 3] * 3)
    assert table.sum(axis=1) == pytest.approx([20 / 3] * 3)


@pytest.mark.parametrize("rows", [100, 1000])
def test_what_is_counted_by_values_is_what_sorting_gives(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "PART_ROWS", 64)
    rng = np.random.default_rng(rows)
    inputs = rng.integers(0, 50, rows).astype(np.int32) ** 2
    outputs = (inputs // 100 + rng.integers(0, 9, rows)).astype(np.int32)
    levels = (0.0, 0.001, 0.25, 0.333, 0.5, 0.99, 1.0)
    counted = TokenCounts(inputs), TokenCounts(outputs)
    assert quantiles(counted[0].counts, levels) == pytest.approx(np.quantile(inputs, levels))
    assert spearman(*counted) == pytest.approx(spearmanr(inputs, outputs).statistic)
    assert spearman(counted[0], TokenCounts(np.full(rows, 7, dtype=np.int32))) == 0.0
    assert np.sum(joint_ranks(*counted)) == pytest.approx(rows)


def test_silence_is_told_from_low_rates() -> None:
    rng = np.random.default_rng(1)
    assert fit_silence(rng.exponential(30.0, 5000), 150_000.0, 600.0) == ()
    silent = rng.random(20_000) < 0.02
    gap_s = np.where(silent, rng.exponential(300.0, 20_000), rng.exponential(1.0, 20_000))
    (found,) = fit_silence(gap_s, float(gap_s.sum()), 20.0)
    assert found.on_share == pytest.approx(gap_s[~silent].sum() / gap_s.sum(), rel=0.1)


def test_too_little_to_fit() -> None:
    _, trace = made(1)
    few = trace.rows(slice(150))
    with pytest.raises(InputError, match="source first: expected at least 100 requests, found"):
        fit_profile(few, name="few", attribution="")
    at_once = Trace(
        sources=("only",),
        start=START + timedelta(hours=1),
        arrival_s=np.zeros(200),
        source=np.zeros(200, dtype=np.int32),
        input_tokens=np.arange(200, dtype=np.int32),
        output_tokens=np.arange(200, dtype=np.int32),
    )
    with pytest.raises(InputError, match="source only: all of its requests have the same time"):
        fit_profile(at_once, name="once", attribution="")
