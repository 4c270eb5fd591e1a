"""`tokenfleet trace compare`: its measures by hand, what chance gives, and the command."""

import json
import math

import numpy as np
import pytest

from experiments.cli.trace.compare import split_paths
from simulator.workload import Trace
from traces.io.parquet import write_parquet
from traces.statistics.describe import TraceStatistics
from traces.statistics.distances import MEASURES, Blocks, Kind, Status, chance, compare, hourly
from traces.synthetic.generate import synthesise
from traces.synthetic.profile import load_profile


def poisson(seed, rate_per_s=2.0, span_s=3600.0, median_tokens=400, sources=("conv",)):
    rng = np.random.default_rng(seed)
    rows = rng.poisson(rate_per_s * span_s)
    return Trace(
        sources=sources,
        arrival_s=np.sort(rng.uniform(0, span_s, rows)),
        source=rng.integers(0, len(sources), rows).astype(np.int32),
        input_tokens=rng.lognormal(math.log(median_tokens), 1.0, rows).astype(np.int32),
        output_tokens=rng.lognormal(4.0, 1.0, rows).astype(np.int32),
    )


def rated(counts, *, seed=0, window_s=3600.0):
    """A trace with so many arrivals in each window, spread at random."""
    rng = np.random.default_rng(seed)
    parts = [np.sort(rng.uniform(k, k + 1, count)) for k, count in enumerate(counts)]
    arrival_s = np.concatenate([[0.0], *parts, [len(counts)]]) * window_s
    tokens = rng.integers(1, 500, len(arrival_s)).astype(np.int32)
    source = np.zeros(len(arrival_s), dtype=np.int32)
    return Trace(sources=("conv",), arrival_s=arrival_s, source=source, input_tokens=tokens, output_tokens=tokens)


def gathered(trace):
    statistics = TraceStatistics()
    statistics.add(trace)
    blocks = Blocks(statistics.totals())
    blocks.add(trace)
    return statistics.totals(), blocks.totals(None)


def compared(first, second):
    (a, a_blocks), (b, b_blocks) = gathered(first), gathered(second)
    return {item.name: item for item in compare(a, b, (a_blocks, b_blocks))}


def test_a_trace_is_like_itself():
    found = compared(poisson(0), poisson(0))
    assert list(found) == list(MEASURES)
    for name, item in found.items():
        if item.status is Status.UNKNOWN:
            assert name.startswith("hourly") or name == "dispersion_600s" or math.isnan(item.value), name
        else:
            assert item.status is Status.ALIKE, name
            assert item.measure.off(item.value) == 0, name


def test_traces_of_one_kind_are_alike_and_of_two_are_not():
    alike = compared(poisson(1), poisson(2))
    assert {item.status for item in alike.values()} <= {Status.ALIKE, Status.UNKNOWN}
    other = compared(poisson(1), poisson(2, rate_per_s=2.6, median_tokens=300))
    differing = {name for name, item in other.items() if item.status is Status.DIFFERS}
    assert {"rate", "input_mean", "input_p50", "input_p90", "input_ks", "input_w1"} <= differing
    assert not {name for name in differing if name.startswith(("output", "dispersion", "spearman"))}
    assert other["rate"].value == pytest.approx(1.3, rel=0.05)
    assert other["input_p50"].value == pytest.approx(0.75, rel=0.05)


def test_bursts_are_found_that_gaps_and_tokens_do_not_show():
    """Minutes of 30 and of 270 arrivals: in turn, or all of the one and then all of the other."""
    bursty, smooth = (rated(counts, window_s=60.0) for counts in (np.repeat([30, 270], 120), [30, 270] * 120))
    found = compared(bursty, smooth)
    assert found["dispersion_600s"].status is Status.DIFFERS
    assert found["dispersion_600s"].value < 0.1
    for name in ("rate", "gap_cv", "gap_ks", "dispersion_1s", "input_ks"):
        assert found[name].status is Status.ALIKE, name


def test_ratios_have_bounds_on_both_sides():
    rate = MEASURES["rate"]
    assert rate.kind is Kind.RATIO
    assert rate.off(1.05) == pytest.approx(rate.off(1 / 1.05))
    for factor, alike in ((1.049, True), (1 / 1.049, True), (1.051, False), (1 / 1.051, False)):
        assert (rate.off(factor) <= rate.off(rate.bound)) is alike
    assert rate.off(0.0) == math.inf
    assert MEASURES["hourly_correlation"].off(0.97) == pytest.approx(0.03)
    assert MEASURES["spearman"].off(-0.2) == 0.2


def test_the_hours_are_compared_by_shape():
    shape = np.array([100, 200, 400, 800, 400, 200, 100, 300])
    first, _ = gathered(rated(shape))
    second, _ = gathered(rated(3 * shape, seed=1))
    third, _ = gathered(rated(shape[::-1].copy(), seed=2))
    same, turned = hourly(first, second), hourly(first, third)
    assert same.values["hourly_correlation"].value == pytest.approx(1, abs=1e-4)
    assert same.values["hourly_rms"].value == pytest.approx(0, abs=0.01)
    counts = [shape / shape.mean(), shape[::-1] / shape.mean()]
    assert turned.values["hourly_correlation"].value == pytest.approx(np.corrcoef(*counts)[0, 1], abs=0.01)
    expected = math.sqrt(np.square(counts[0] - counts[1]).mean())
    assert turned.values["hourly_rms"].value == pytest.approx(expected, abs=0.01)
    assert compared(rated(shape), rated(shape[::-1].copy(), seed=2))["hourly_correlation"].status is Status.DIFFERS
    assert hourly(first, gathered(rated(shape[:5]))[0]) is None


@pytest.mark.parametrize("hours", [12, 96])
def test_hours_without_a_shape_do_not_differ(hours):
    found = compared(*(poisson(seed, rate_per_s=0.1, span_s=3600.0 * hours) for seed in (20, 21)))
    assert found["hourly_correlation"].value < 0.5
    assert found["hourly_correlation"].status is Status.CHANCE
    assert found["hourly_correlation"].chance < 0


def test_chance_is_as_wide_as_traces_of_one_kind_scatter():
    """Three standard deviations: of rates, means and Spearman's coefficient they are known."""
    (first, a_blocks), (_, b_blocks) = gathered(poisson(4)), gathered(poisson(5))
    found = chance(a_blocks, b_blocks)
    deviation = {
        "rate": math.sqrt(2 / first.rows),
        "input_mean": math.sqrt(2 * (math.e - 1) / first.rows),
        "spearman": math.sqrt(2 / first.rows),
    }
    for name, expected in deviation.items():
        assert found[name] == pytest.approx(3 * expected, rel=0.5), name


def test_chance_falls_with_the_root_of_the_length():
    short, long = (gathered(poisson(6, span_s=span_s))[1] for span_s in (1800.0, 16 * 1800.0))
    found = [chance(blocks, blocks) for blocks in (short, long)]
    names = [name for name in found[0] if name.endswith(("rate", "cv", "mean", "ks", "w1", "spearman"))]
    assert len(names) == 11
    ratios = [found[0][name] / found[1][name] for name in names]
    assert np.exp(np.mean(np.log(ratios))) == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("windows", [20.5, 21.9, 35.0])
def test_chance_is_known_for_every_dispersion_that_is_compared(windows):
    """The blocks of a trace that has just enough windows have one or two each."""
    found = compared(poisson(11, 0.5, 600 * windows), poisson(12, 0.5, 600 * windows))["dispersion_600s"]
    assert found.status in (Status.ALIKE, Status.CHANCE)
    assert 1.2 < found.chance < 20


def test_few_rows_leave_chance_unknown():
    found = compared(poisson(7, span_s=60.0), poisson(8, span_s=60.0))
    assert math.isnan(found["rate"].chance)
    assert found["input_ks"].status in (Status.ALIKE, Status.DIFFERS)


def test_a_figure_that_is_zero_in_one_trace_only_is_infinitely_far():
    first, second = poisson(9), poisson(10)
    nothing = Trace(
        sources=("conv",),
        arrival_s=second.arrival_s,
        source=second.source,
        input_tokens=second.input_tokens,
        output_tokens=np.zeros(len(second), dtype=np.int32),
    )
    found = compared(first, nothing)
    assert found["output_p50"].status is Status.DIFFERS
    assert found["output_ks"].value == pytest.approx((first.output_tokens > 0).mean())
    assert found["spearman"].status is Status.UNKNOWN
    assert found["output_p50"].to_dict()["value"] == 0
    back = compared(nothing, first)["output_p50"]
    assert (back.status, back.to_dict()["value"]) == (Status.DIFFERS, None)


def written(path, trace):
    write_parquet(path, [trace])
    return path


def test_the_command_tells_that_traces_are_alike(run_cli, tmp_path):
    files = [written(tmp_path / f"{seed}.parquet", poisson(seed)) for seed in (1, 2)]
    run = run_cli("trace", "compare", *files, "--strict", process=True)
    assert (run.code, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    known = sum(item.status is not Status.UNKNOWN for item in compared(poisson(1), poisson(2)).values())
    assert f"the traces are alike: {known} of {known} measures are within their bounds" in lines


def test_strict_fails_where_traces_differ_and_says_in_what(run_cli, tmp_path):
    files = [
        written(tmp_path / "a.parquet", poisson(1)),
        written(tmp_path / "b.parquet", poisson(2, median_tokens=300)),
    ]
    run = run_cli("trace", "compare", *files)
    assert run.code == 0
    assert run_cli("trace", "compare", *files, "--strict").code == 1
    assert "the traces differ: " in run.stdout
    assert "  input p50 ×0.7" in run.stdout
    result = json.loads(run_cli("trace", "compare", *files, "--strict", "--json").stdout)
    assert result["alike"] is False
    assert "all.input_p50" in result["differs"]
    assert "all.output_mean" not in result["differs"]
    assert set(result["groups"]) == {"all"}
    measure = result["groups"]["all"]["input_p50"]
    assert measure["bound"] == 1.1
    assert measure["value"] == pytest.approx(measure["second"] / measure["first"])
    assert 1 < measure["chance"] < 1.1


def test_sources_are_compared_by_name_and_a_missing_one_counts(run_cli, tmp_path):
    both = written(tmp_path / "both.parquet", poisson(1, sources=("conv", "code")))
    other = written(tmp_path / "other.parquet", poisson(2, sources=("conv", "chat")))
    result = json.loads(run_cli("trace", "compare", both, other, "--json").stdout)
    assert set(result["groups"]) == {"all", "conv"}
    assert (result["only_first"], result["only_second"]) == (["code"], ["chat"])
    assert result["alike"] is False
    text = run_cli("trace", "compare", both, other).stdout
    assert "  source code is in the first trace only" in text.splitlines()


def test_traces_of_one_source_each_are_compared_whatever_its_name(run_cli, tmp_path):
    files = [written(tmp_path / f"{name}.parquet", poisson(1, sources=(name,))) for name in ("real", "made")]
    result = json.loads(run_cli("trace", "compare", *files, "--json").stdout)
    assert (result["alike"], result["only_first"], set(result["groups"])) == (True, [], {"all"})


def test_several_files_of_one_trace_are_joined_by_commas(run_cli, tmp_path):
    whole = poisson(1, sources=("conv", "code"))
    rows = [np.flatnonzero(whole.source == k) for k in range(2)]
    parts = [written(tmp_path / f"{k}.parquet", whole.rows(rows[k])) for k in range(2)]
    joined = written(tmp_path / "joined.parquet", whole)
    result = json.loads(run_cli("trace", "compare", joined, ",".join(map(str, parts)), "--json").stdout)
    assert result["second"]["rows"] == result["first"]["rows"] == len(whole)
    assert result["alike"] is True


def test_a_comma_may_be_part_of_a_name(tmp_path):
    path = tmp_path / "a,b.csv"
    path.write_text("")
    assert split_paths(str(path)) == [str(path)]
    assert split_paths("a.csv,conv=b.csv") == ["a.csv", "conv=b.csv"]


def test_the_picture_lays_both_traces_from_their_first_arrivals(run_cli, tmp_path):
    files = [written(tmp_path / f"{seed}.parquet", poisson(seed)) for seed in (1, 2)]
    run = run_cli("trace", "compare", *files, "--figure", tmp_path / "both.png")
    assert run.code == 0
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    assert run_cli("trace", "compare", *files, "--figure", tmp_path / "both.gif").code == 2


def test_a_missing_file_is_told(run_cli, tmp_path):
    run = run_cli("trace", "compare", written(tmp_path / "a.parquet", poisson(1)), tmp_path / "b.parquet")
    assert (run.code, run.stdout) == (2, "")
    assert "b.parquet" in run.stderr


def test_the_synthetic_hour_is_told_from_the_real_one_by_its_gaps_alone(run_cli, tmp_path, data_dir):
    """What is known to be lost: the order within bursts below a second of the code completions."""
    real = [str(data_dir / "traces" / f"AzureLLMInferenceTrace_{service}.csv") for service in ("conv", "code")]
    made = written(tmp_path / "made.parquet", synthesise(load_profile(), duration_s=3512.0, seed=0))
    result = json.loads(run_cli("trace", "compare", ",".join(real), made, "--json").stdout)
    assert set(result["groups"]) == {"all", "conv", "code"}
    assert "code.gap_ks" in result["differs"]
    assert not [name for name in result["differs"] if "put_" in name or name.startswith("conv")]
