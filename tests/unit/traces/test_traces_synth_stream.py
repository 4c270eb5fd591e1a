"""Traces made hour by hour: what they keep from hour to hour, curves, walks, followers, tokens by joint ranks."""

import hashlib
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import spearmanr

from simulator.errors import InputError
from simulator.workload import Trace
from traces.io.chunks import concatenate
from traces.synthetic.dispersion import model_dispersion
from traces.synthetic.generate import (
    WALK_LIMIT,
    Volatility,
    _followers,
    _Walk,
    embedded_hour,
    stream_trace,
    synthesise,
    without_bursts,
    without_curve,
)
from traces.synthetic.profile import Profile, RateComponent, SourceProfile, load_profile
from traces.synthetic.ratecurve import RateCurve

COLUMNS = ("arrival_s", "source", "input_tokens", "output_tokens")
WEEK = load_profile("azure-2024")


def tiny(*modulation: RateComponent, rate_per_s: float = 1.0, **others: object) -> Profile:
    source = SourceProfile(
        name="only",
        rate_per_s=rate_per_s,
        dispersion={},
        gap_cv=None,
        spearman=0.0,
        input_tokens=(0.0, 1000.0),
        output_tokens=(0.0, 1000.0),
        modulation=modulation,
    )
    return Profile(
        name="tiny",
        attribution="made up",
        quantile_levels=(0.0, 1.0),
        sources=(replace(source, **others),),  # type: ignore[arg-type]
    )


def equal(one: Trace, other: Trace) -> bool:
    return one.sources == other.sources and all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in COLUMNS
    )


def test_the_first_hour_is_the_one_that_was_published() -> None:
    """sha256 of the columns, times in units of 100 ns, as before traces were made hour by hour."""
    hour, digest = embedded_hour(0), hashlib.sha256()
    for column in (np.rint(hour.arrival_s * 1e7), hour.source, hour.input_tokens, hour.output_tokens):
        digest.update(column.astype("<i8").tobytes())
    assert digest.hexdigest() == "827cc8d8f522731fc108ccc72c654b1e11109b38ab75ddbf55f38699e3697a95"


@pytest.mark.parametrize("profile", [load_profile(), WEEK], ids=lambda profile: profile.name)
@pytest.mark.parametrize("volatility", [None, Volatility(sigma=0.05, step_s=420.0)])
def test_a_shorter_trace_is_the_beginning_of_a_longer_one(profile: Profile, volatility: Volatility | None) -> None:
    def made(duration_s: float) -> list[Trace]:
        return list(
            stream_trace(
                profile, duration_s=duration_s, seed=4, rate_factor=0.1, volatility=volatility, time_factor=1.5
            )
        )

    longer, shorter = made(4.5 * 3600), made(8000.0)
    assert len(longer) == 3  # an hour of the profile each, an hour and a half of the trace
    assert all(part.start == profile.curve_start for part in longer)
    one, other = concatenate(longer), concatenate(shorter)
    assert (np.diff(one.arrival_s) >= 0).all()
    assert equal(other, one.rows(slice(int(np.searchsorted(one.arrival_s, 8000.0)))))
    assert len(other) > 300


def test_in_memory_is_the_stream_as_one() -> None:
    whole = synthesise(WEEK, duration_s=9000, seed=1, rate_factor=0.02)
    parts = stream_trace(WEEK, duration_s=9000, seed=1, rate_factor=0.02)
    assert equal(whole, concatenate(list(parts)))
    assert whole.start == datetime(2024, 5, 10, tzinfo=UTC)


def test_hours_differ() -> None:
    first, second = stream_trace(tiny(rate_per_s=1.0), duration_s=7200, seed=0)
    assert first.arrival_s[:20].tolist() != (second.arrival_s[:20] - 3600).tolist()
    assert first.input_tokens[:20].tolist() != second.input_tokens[:20].tolist()
    assert 3600 <= second.arrival_s[0] < second.span_s < 7200


def test_a_level_goes_on_into_the_next_hour() -> None:
    """A factor that is hardly ever drawn anew: silence lasts, and so does its opposite."""
    lasting = RateComponent(time_scale_s=1e7, squared_cv=1.0, on_share=0.5)
    busy = [[len(hour) > 0 for hour in _hours(tiny(lasting), seed, 6)] for seed in range(12)]
    assert all(len(set(hours)) == 1 for hours in busy)
    assert {hours[0] for hours in busy} == {True, False}


def _hours(profile: Profile, seed: int, hours: int) -> list[list[float]]:
    trace = synthesise(profile, duration_s=hours * 3600.0, seed=seed)
    return [trace.arrival_s[trace.arrival_s // 3600 == hour].tolist() for hour in range(hours)]


def test_each_hour_has_the_count_of_the_curve() -> None:
    counts = (4000.0, 1000.0, 0.0, 9000.0)
    profile = tiny(RateComponent(time_scale_s=60.0, squared_cv=0.5), rate_per_s=3500 / 3600, requests_per_h=counts)
    made = np.mean([[len(hour) for hour in _hours(profile, seed, 8)] for seed in range(10)], axis=0)
    assert made == pytest.approx([*counts, *counts], rel=0.05)  # without scaling they would scatter by a fifth
    assert made[2] == made[6] == 0


def test_the_rate_is_continuous_across_an_hour() -> None:
    """Half as many requests before the hour as after it: near the hour the numbers meet."""
    profile = tiny(rate_per_s=1.5, requests_per_h=(3600.0, 7200.0))
    traces = [synthesise(profile, duration_s=7200, seed=seed).arrival_s for seed in range(20)]
    before, after = (np.mean([((a >= low) & (a < low + 120)).sum() for a in traces]) for low in (3480, 3600))
    assert after / before == pytest.approx(1.05, abs=0.08)


@pytest.mark.parametrize("zone", [UTC, None])
def test_a_start_within_the_week_begins_there_on_the_curve(zone: object) -> None:
    start = datetime(2024, 5, 10, 12, 30, tzinfo=zone)  # type: ignore[arg-type]
    begins = [start, start + timedelta(days=14), start - timedelta(days=7)]
    made = [next(stream_trace(WEEK, duration_s=3600, seed=3, rate_factor=0.1, start=b)) for b in begins]
    assert [trace.start for trace in made] == begins
    assert equal(made[0], made[1])
    assert equal(made[0], made[2])
    for k, source in enumerate(WEEK.sources):
        expected = 0.05 * sum(source.requests_per_h[12:14])
        assert (made[0].source == k).sum() == pytest.approx(expected, rel=0.08)


def test_stretched_time() -> None:
    once = synthesise(WEEK, duration_s=3600, seed=2, rate_factor=0.1)
    twice = concatenate(list(stream_trace(WEEK, duration_s=7200, seed=2, rate_factor=0.1, time_factor=2.0)))
    assert twice.arrival_s.tolist() == np.round(2 * once.arrival_s, 7).tolist()
    assert twice.output_tokens.tolist() == once.output_tokens.tolist()


def test_stretched_time_does_not_stretch_the_walk() -> None:
    def made(time_factor: float, step_s: float) -> Trace:
        walk = Volatility(sigma=0.2, step_s=step_s)
        duration_s = 3600 * time_factor
        return next(stream_trace(tiny(), duration_s=duration_s, seed=0, time_factor=time_factor, volatility=walk))

    assert made(2.0, 600.0).arrival_s.tolist() == np.round(2 * made(1.0, 300.0).arrival_s, 7).tolist()
    assert made(2.0, 300.0).arrival_s.tolist() != made(2.0, 600.0).arrival_s.tolist()


def test_without_curve_and_without_bursts() -> None:
    calm = without_bursts(without_curve(WEEK))
    assert calm.curve_start is None
    trace = synthesise(calm, duration_s=3 * 3600, seed=0)
    for k, source in enumerate(WEEK.sources):
        arrival_s = trace.arrival_s[trace.source == k]
        assert len(arrival_s) == pytest.approx(3 * 3600 * source.rate_per_s, rel=0.01)
        counts = np.bincount((arrival_s // 10).astype(int))
        assert counts.var() / counts.mean() == pytest.approx(1, abs=0.15)


def test_followers_come_closely_and_within_the_hour() -> None:
    profile = tiny(rate_per_s=2.0, follow_share=0.5, follow_delay_s=0.001)
    arrival_s = synthesise(profile, duration_s=4 * 3600, seed=1).arrival_s
    assert len(arrival_s) == pytest.approx(8 * 3600, rel=0.03)
    gaps = np.diff(arrival_s)
    assert (gaps < 0.01).mean() == pytest.approx(0.5 + 0.5 * 0.01, abs=0.02)  # 1 % by chance
    assert gaps[gaps < 0.01].mean() == pytest.approx(0.001, rel=0.1)


def test_a_cluster_that_would_leave_the_hour_comes_before_its_first_request() -> None:
    source = tiny(follow_share=0.9, follow_delay_s=0.5).sources[0]
    for leader_s, direction in ((3599.999, -1), (100.0, 1)):
        sets = [_followers(source, np.array([leader_s]), np.random.default_rng(seed)) for seed in range(300)]
        assert all(((times >= 0) & (times < 3600)).all() for times in sets)
        assert np.mean([len(times) for times in sets]) == pytest.approx(9, rel=0.15)
        gaps = np.concatenate([np.diff([leader_s, *times]) for times in sets])
        assert (direction * gaps > 0).all()
        assert np.abs(gaps).mean() == pytest.approx(0.5, rel=0.1)


def test_dispersion_of_followers() -> None:
    kinds = {"follow_share": 0.4, "follow_delay_s": 0.02}
    arrival_s = synthesise(tiny(rate_per_s=5.0, **kinds), duration_s=20 * 3600, seed=3).arrival_s
    for window_s in (0.01, 0.1, 5.0):
        counts = np.bincount((arrival_s / window_s).astype(np.int64))
        expected = model_dispersion(5.0, (), window_s, **kinds)
        assert counts.var() / counts.mean() == pytest.approx(expected, rel=0.03), window_s
    assert model_dispersion(5.0, (), 1e9, **kinds) == pytest.approx(1.4 / 0.6)
    assert model_dispersion(5.0, (), 1e-9, **kinds) == pytest.approx(1)


def test_joint_ranks_are_drawn_as_often_as_they_are_stated() -> None:
    joint = ((3.0, 0.0, 1.0), (1.0, 3.0, 0.0), (0.0, 1.0, 3.0))
    trace = synthesise(tiny(rate_per_s=30.0, joint=joint), duration_s=3600, seed=0)
    cell = np.minimum(trace.input_tokens * 3 // 1000, 2) * 3 + np.minimum(trace.output_tokens * 3 // 1000, 2)
    seen = np.bincount(cell, minlength=9) / len(trace)
    assert seen == pytest.approx(np.ravel(joint) / 12, abs=0.006)
    for tokens in (trace.input_tokens, trace.output_tokens):
        assert np.quantile(tokens, (0.05, 0.35, 0.6, 0.95)) == pytest.approx([50, 350, 600, 950], abs=8)
    mine = trace.rows(np.flatnonzero(cell == 0))  # within a cell there is no dependence
    assert abs(spearmanr(mine.input_tokens, mine.output_tokens).statistic) < 0.02


def test_volatility_is_a_walk_in_steps_of_its_sigma() -> None:
    times_s, levels = _Walk(Volatility(sigma=0.04), 0, "x").steps(0.0, 86_400.0 * 30)
    assert times_s[:3].tolist() == [0.0, 300.0, 600.0]
    assert levels[0] == 1
    assert levels.min() >= 1 / WALK_LIMIT
    assert levels.max() <= WALK_LIMIT
    inside = (levels[1:] > 1 / WALK_LIMIT) & (levels[1:] < WALK_LIMIT)
    steps = np.diff(np.log(levels))[inside]
    assert steps.std() == pytest.approx(0.04, rel=0.03)


def test_the_mean_of_a_walk_stays() -> None:
    ends = [_Walk(Volatility(sigma=0.2), seed, "x").steps(0.0, 1800.0)[1][-1] for seed in range(1500)]
    assert np.mean(ends) == pytest.approx(1, abs=0.04)  # 1.1 if the drift were not taken out


def test_a_walk_does_not_depend_on_how_it_is_asked_for() -> None:
    whole = _Walk(Volatility(sigma=0.1, step_s=420.0), 1, "x").steps(0.0, 10_800.0)
    walk = _Walk(Volatility(sigma=0.1, step_s=420.0), 1, "x")
    parts = [walk.steps(hour * 3600.0, hour * 3600.0 + 3600) for hour in range(3)]
    assert parts[1][0][0] == 3360  # the step that began in the first hour
    joined = {t: level for times_s, levels in parts for t, level in zip(times_s, levels, strict=True)}
    assert list(joined.items()) == list(zip(*whole, strict=True))


def test_sources_walk_on_their_own_and_tokens_do_not_mind() -> None:
    flat = without_bursts(without_curve(WEEK))
    walk = Volatility(sigma=0.3, step_s=300.0)
    trace = concatenate(list(stream_trace(flat, duration_s=7200, seed=0, volatility=walk)))
    counts = [np.bincount((trace.arrival_s[trace.source == k] // 300).astype(int)) for k in range(2)]
    for count in counts:
        assert np.log(count).std() > 0.2
    assert abs(np.corrcoef(np.diff(np.log(counts[0])), np.diff(np.log(counts[1])))[0, 1]) < 0.6
    conv = trace.input_tokens[trace.source == 0]
    assert np.median(conv) == pytest.approx(1020, abs=15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"duration_s": 0.0}, "duration_s: expected a finite number above zero, found 0.0"),
        ({"rate_factor": math.inf}, "rate_factor: expected a finite number above zero, found inf"),
        ({"time_factor": -1.0}, "time_factor: expected a finite number above zero, found -1.0"),
        ({"volatility": Volatility(sigma=math.nan)}, "volatility: expected a finite number from zero, found nan"),
        ({"volatility": Volatility(sigma=0.1, step_s=0.5)}, "volatility step: expected at least 1 s, found 0.5"),
    ],
)
def test_numbers_out_of_range_are_refused_at_once(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        stream_trace(WEEK, **{"duration_s": 60.0, "seed": 0, **arguments})  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_an_hour_that_would_not_fit_memory_is_refused() -> None:
    with pytest.raises(InputError, match=r"source only: expected at most 2e\+07 requests in an hour, found 3.6e\+07"):
        next(stream_trace(tiny(rate_per_s=10.0), duration_s=60, seed=0, rate_factor=1000.0))


def test_the_bends_of_a_curve() -> None:
    curve = RateCurve([3600.0, 7200.0])
    assert curve.period_s == 7200
    assert curve.mean_per_s == 1.5
    assert curve.bends_s(3600.0, 7200.0).tolist() == [5400.0]
    assert curve.bends_s(1000.0, 5500.0).tolist() == [1800.0, 3600.0, 5400.0]
    # At the hours the mean of the two rates, in the middle what their counts leave.
    assert curve.rate_per_s([0.0, 1800.0, 3600.0, 5400.0, 7200.0]).tolist() == [1.5, 0.5, 1.5, 2.5, 1.5]
