"""Profiles, the generator's contract, and the formula behind its burstiness."""

import dataclasses
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from simulator.errors import InputError
from traces.statistics.totals import index_of_dispersion
from traces.synthetic.dispersion import model_dispersion
from traces.synthetic.generate import embedded_hour, synthesise
from traces.synthetic.profile import (
    Profile,
    RateComponent,
    SourceProfile,
    list_profiles,
    load_profile,
    parse_profile,
    profile_toml,
    read_profile,
)

CONV = 'name = "conv"'
TEXT = (resources.files("traces") / "profiles" / "azure-2023.toml").read_text(encoding="utf-8")


def tiny(*modulation: RateComponent, rate_per_s: float = 10.0, spearman: float = 0.0) -> Profile:
    source = SourceProfile(
        name="only",
        rate_per_s=rate_per_s,
        dispersion={},
        gap_cv=1.0,
        spearman=spearman,
        input_tokens=(10.0, 20.0, 90.0),
        output_tokens=(5.0, 5.0, 7.0),
        modulation=modulation,
    )
    return Profile(name="tiny", attribution="made up", quantile_levels=(0.0, 0.5, 1.0), sources=(source,))


def test_the_package_carries_the_azure_profile_with_its_attribution() -> None:
    assert list_profiles() == ("azure-2023", "azure-2024")
    for name in list_profiles():
        profile = load_profile(name)
        assert profile.name == name
        assert [source.name for source in profile.sources] == ["conv", "code"]
        for words in ("Microsoft", "CC-BY-4.0", "Patel et al., ISCA 2024"):
            assert words in profile.attribution


def test_the_week_of_2024() -> None:
    """Totals as published are 27,303,999 and 16,803,695: digitised hours leave three in ten thousand of code."""
    profile = load_profile("azure-2024")
    assert [sum(source.requests_per_h) for source in profile.sources] == [27_303_998, 16_798_262]
    assert [len(source.requests_per_h) for source in profile.sources] == [168, 168]
    assert profile.curve_start == datetime(2024, 5, 10, tzinfo=UTC)
    assert profile.sources[1].requests_per_h[0] == 77540  # 10 May, printed in a public notebook
    assert profile.sources[0].requests_per_h[48] == 91156  # 12 May, exact
    assert "assumed from azure-2023" in profile.attribution
    assert "Diego Hommerding Amorim" in profile.attribution
    assert [sentence.partition(" are ")[0] for sentence in profile.assumptions][:2] == ["bursts", "tokens"]


def test_a_written_profile_reads_back_equal() -> None:
    profile = load_profile()
    assert parse_profile(profile_toml(profile), name="again") == profile


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"there is no trace profile '\.\./x'; known profiles: azure-2023, azure-2024"):
        load_profile("../x")


def test_a_profile_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT, encoding="utf-8")
    assert read_profile(str(path)) == load_profile() == read_profile("azure-2023")
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"mine\.toml: expected text in UTF-8"):
        read_profile(str(path))
    with pytest.raises(InputError, match=r"none\.toml: cannot be read: No such file or directory"):
        read_profile(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "rate_per_s = 5.53",
            "rate_per_s = -1",
            "p.toml: sources[0].rate_per_s: Input should be greater than 0, found -1",
        ),
        ("rate_per_s = 5.53", "", "p.toml: sources[0].rate_per_s: Field required"),
        ("gap_cv = 13.15", "gap = 13.15", "p.toml: sources[1].gap: this key does not exist"),
        ('name = "code"', 'name = "conv"', "p.toml: (top level): sources names 'conv' twice"),
        ("  0, 0.001,", "  0, 0, 0.001,", "p.toml: (top level): quantile_levels must rise from 0 to 1"),
        ("  2, 8, 16.8,", "  8, 2, 16.8,", "p.toml: (top level): sources[0].input_tokens must not fall"),
        ("  2, 8, 16.8,", "  8, 16.8,", "p.toml: (top level): sources[0].input_tokens has 108 values, expected 109"),
        ("on_share = 0.2915", "on_share = 0.1", "squared_cv must be at least 1 / on_share - 1 = 9"),
        ("format =", "format", "p.toml: expected TOML: "),
        (
            "time_scale_s = 0.5",
            "time_scale_s = 0.0005",
            "sources[0].modulation[0].time_scale_s: Input should be greater",
        ),
        (f"{CONV}\n", f"{CONV}\nfollow_share = 1\n", "sources[0].follow_share: Input should be less than 1, found 1"),
        (
            f"{CONV}\n",
            f"{CONV}\njoint = [[1, 2], [2, 2]]\n",
            "sources[0]: joint: every row must have the same sum, or the token quantiles are not kept",
        ),
        (f"{CONV}\n", f"{CONV}\njoint = [[1, 2], [3]]\n", "sources[0]: joint must have rows of equal lengths"),
        (
            f"{CONV}\n",
            f"{CONV}\nrequests_per_h = [19908, 3600]\n",
            "sources[0]: rate_per_s must be the mean of requests_per_h, 3.265 per second",
        ),
        (
            f"{CONV}\n",
            f"{CONV}\nrequests_per_h = [19908]\n",
            "(top level): requests_per_h must have the same length in all sources",
        ),
    ],
)
def test_a_bad_profile_is_refused_with_the_field(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(InputError) as caught:
        parse_profile(TEXT.replace(old, new, 1), name="p.toml")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["duration_s", "rate_factor"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_duration_and_factor_must_be_above_zero(name: str, value: float) -> None:
    arguments = {"duration_s": 60.0, "rate_factor": 1.0, name: value}
    with pytest.raises(InputError, match=f"{name}: expected a finite number above zero"):
        synthesise(load_profile(), seed=0, **arguments)


def test_a_trace_is_well_formed() -> None:
    trace = embedded_hour()
    assert trace.sources == ("conv", "code")
    assert trace.start is None
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert trace.arrival_s[0] >= 0
    assert trace.span_s < 3600
    for k, source in enumerate(load_profile().sources):
        mine = trace.source == k
        for tokens, quantiles in (
            (trace.input_tokens, source.input_tokens),
            (trace.output_tokens, source.output_tokens),
        ):
            assert tokens.dtype == np.int32
            assert tokens[mine].min() >= quantiles[0]
            assert tokens[mine].max() <= quantiles[-1]


def test_times_are_multiples_of_100_ns() -> None:
    ticks = embedded_hour().arrival_s * 1e7
    assert np.abs(ticks - np.rint(ticks)).max() < 1e-4


def test_same_seed_same_bytes_other_seed_other_trace() -> None:
    one, again, other = (synthesise(load_profile(), duration_s=300, seed=s) for s in (3, 3, 4))
    for column in ("arrival_s", "source", "input_tokens", "output_tokens"):
        assert getattr(one, column).tobytes() == getattr(again, column).tobytes()
    assert one.arrival_s[:50].tolist() != other.arrival_s[:50].tolist()


def test_a_short_trace_is_the_beginning_of_the_hour() -> None:
    hour, short = embedded_hour(5), synthesise(load_profile(), duration_s=600, seed=5)
    count = int(np.searchsorted(hour.arrival_s, 600))
    assert len(short) == count > 1000
    assert short.arrival_s.tolist() == hour.arrival_s[:count].tolist()


def test_a_source_does_not_depend_on_the_others() -> None:
    profile = load_profile()
    alone = synthesise(dataclasses.replace(profile, sources=profile.sources[1:]), duration_s=3600, seed=2)
    hour = embedded_hour(2)
    code = hour.source == 1
    assert alone.arrival_s.tolist() == hour.arrival_s[code].tolist()
    assert alone.input_tokens.tolist() == hour.input_tokens[code].tolist()


def test_rate_factor_scales_the_count() -> None:
    once, thrice = (len(synthesise(load_profile(), duration_s=3600, seed=1, rate_factor=f)) for f in (1.0, 3.0))
    assert thrice / once == pytest.approx(3, rel=0.03)


def test_silence_from_end_to_end_gives_no_arrival() -> None:
    silent = RateComponent(time_scale_s=1e12, squared_cv=1e9, on_share=1e-9)
    assert len(synthesise(tiny(silent), duration_s=60, seed=0)) == 0


def test_rank_correlation_of_one_sorts_output_by_input() -> None:
    trace = synthesise(tiny(spearman=1.0), duration_s=600, seed=0)
    by_input = trace.output_tokens[np.argsort(trace.input_tokens, kind="stable")]
    assert len(trace) > 5000
    assert (np.diff(by_input) >= 0).all()


def test_formula_of_dispersion_at_its_limits() -> None:
    factor = RateComponent(time_scale_s=5.0, squared_cv=0.7)
    assert model_dispersion(10.0, (), 60.0) == 1
    # A window much shorter than the time scale sees the whole variance, a longer one 2 T / w of it.
    assert model_dispersion(10.0, (factor,), 1e-3, 1e12) == pytest.approx(1 + 10 * 1e-3 * 0.7, rel=1e-4)
    assert model_dispersion(10.0, (factor,), 1e6, 1e12) == pytest.approx(1 + 10 * 2 * 5.0 * 0.7, rel=1e-4)
    # Independent factors multiply: (1 + v) (1 + v) - 1.
    assert model_dispersion(10.0, (factor, factor), 1e-3, 1e12) == pytest.approx(1 + 1e-2 * (1.7**2 - 1), rel=1e-3)


@pytest.mark.parametrize("source", load_profile().sources, ids=lambda source: source.name)
def test_fitted_factors_imply_the_measured_dispersion(source: SourceProfile) -> None:
    implied = {w: model_dispersion(source.rate_per_s, source.modulation, w) for w in source.dispersion}
    assert implied == pytest.approx(source.dispersion, rel=0.05)


def test_index_of_dispersion_by_hand() -> None:
    arrival_s = np.array([0.1, 0.2, 0.3, 2.5, 3.9])  # counts 3, 0, 1; the window cut by the end is left out
    assert index_of_dispersion(arrival_s, 1.0, 3.9) == pytest.approx((14 / 9) / (4 / 3))
