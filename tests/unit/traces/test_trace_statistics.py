"""Statistics of traces by hand, those of the Azure traces against published reference figures, and what is odd."""

import json
import math

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.workload import Trace
from traces.formats.registry import TraceRead, read_chunks
from traces.statistics.describe import TraceStatistics
from traces.statistics.figures import figures, quantiles
from traces.statistics.totals import GAP_PRECISION, gap_bin, gap_values_s, index_of_dispersion
from traces.warnings import file_warnings, trace_warnings


def trace(arrival_s, input_tokens=None, output_tokens=None, sources=("conv",), source=None, **extras):
    def column(values, default):
        return np.array([default] * len(arrival_s) if values is None else values, dtype=np.int32)

    return Trace(
        sources=sources,
        arrival_s=np.array(arrival_s, dtype=np.float64),
        source=column(source, 0),
        input_tokens=column(input_tokens, 100),
        output_tokens=column(output_tokens, 10),
        extras={name: np.array(values, dtype=np.int32) for name, values in extras.items()},
    )


def totals_of(*chunks):
    statistics = TraceStatistics()
    for chunk in chunks:
        statistics.add(chunk)
    return statistics.totals()


def kinds(*chunks):
    return {item.kind: item for item in trace_warnings(totals_of(*chunks))}


def steady(rows=100, **columns):
    """Arrivals of no grid, with tokens that vary."""
    tokens = np.arange(1, rows + 1)
    return trace(np.cumsum(1 + 0.1234567891 * (np.arange(rows) % 7)), tokens, tokens[::-1], **columns)


@pytest.mark.parametrize("service", ["conv", "code"])
def test_the_azure_traces_have_their_published_figures(data_dir, service):
    """`profile.json` was computed from the same files by other means, with whole arrays."""
    if not (data_dir / "profile.json").exists():
        pytest.skip("profile.json is not in TOKENFLEET_DATA")
    expected = json.loads((data_dir / "profile.json").read_text())[f"azure2023_{service}"]
    path = data_dir / "traces" / f"AzureLLMInferenceTrace_{service}.csv"
    found = figures(totals_of(*read_chunks(path, chunk_rows=5000)))
    assert found["rows"] == expected["rows"]
    assert found["span_s"] == pytest.approx(expected["span_s"], abs=1e-9)
    assert found["gap_cv"] == pytest.approx(expected["iat_cv"], rel=1e-12)
    assert found["gap_s"]["mean"] == pytest.approx(expected["iat_mean_s"], rel=1e-12)
    assert found["gap_s"]["zeros"] == expected["zero_gaps"]
    assert found["peak_per_min"] == expected["per_minute"]["max"]
    assert found["idle_minutes"] == expected["per_minute"]["counts"].count(0)
    for window, dispersion in expected["index_of_dispersion"].items():
        assert found["dispersion"][window] == pytest.approx(dispersion, rel=1e-12)
    for level, gap_s in expected["iat_quantiles_s"].items():
        assert found["gap_s"][f"p{level}"] == pytest.approx(gap_s, rel=GAP_PRECISION)
    for which in ("input_tokens", "output_tokens"):
        for name in ("mean", "std", "min", "max", "zeros"):
            assert found[which][name] == pytest.approx(expected[which][name], rel=1e-12)
        assert found[which]["total"] == expected[which]["sum"]
        for level, tokens in expected[which]["quantiles"].items():
            assert found[which][f"p{level}"] == pytest.approx(tokens, rel=1e-12)
    assert found["spearman"] == pytest.approx(expected["spearman_in_out"], rel=1e-12)
    assert found["duplicates"] == expected["exact_duplicate_rows"]
    if "gaps_over_60s" in expected:
        assert found["silences"]["over_60s"]["count"] == expected["gaps_over_60s"]


def test_dispersion_by_hand():
    arrival_s = np.array([0.0, 0.1, 0.2, 1.5, 3.0, 3.9, 4.0])  # 3, 1, 0 and 2 in four windows; the last does not count
    assert index_of_dispersion(arrival_s, 1.0, 4.0) == pytest.approx(1.25 / 1.5)
    assert figures(totals_of(trace(arrival_s)))["dispersion"]["1s"] == pytest.approx(1.25 / 1.5)
    assert math.isnan(index_of_dispersion(arrival_s, 10.0, 4.0))


def test_rate_curve_grows_its_bins_with_the_span():
    arrival_s = np.array([5.0, 5.5, 90.0, 5.0 + 3 * 86_400, 5.0 + 400 * 86_400])
    curve = totals_of(trace(arrival_s[:3]), trace(arrival_s[3:4]), trace(arrival_s[4:])).curve
    assert curve.bin_s == 600
    assert np.flatnonzero(curve.counts).tolist() == [0, 432, 57_600]
    assert curve.counts[0] == 3
    days = curve.in_bins_of(86_400)
    assert days[[0, 3, 400]].tolist() == [3, 1, 1]
    assert days.sum() == 5
    assert curve.in_bins_of(60) is None


def test_gap_bins_hold_their_gaps_to_the_stated_precision():
    gap_ns = np.unique(np.geomspace(1, 9e18, 5000).astype(np.int64))
    middle_s = gap_values_s(int(gap_bin(gap_ns).max()) + 1)[gap_bin(gap_ns)]
    assert np.abs(middle_s / (gap_ns / 1e9) - 1).max() <= GAP_PRECISION
    assert gap_bin(np.array([0])).tolist() == [0]
    assert gap_values_s(1).tolist() == [0.0]


def test_quantiles_of_a_histogram_are_those_of_its_values():
    values = np.array([0, 0, 3, 3, 3, 8])
    levels = [0.0, 0.25, 0.5, 0.9, 1.0]
    assert quantiles(np.bincount(values), levels) == pytest.approx(np.quantile(values, levels))
    assert np.isnan(quantiles(np.zeros(0, dtype=np.int64), levels)).all()


def test_totals_of_parts_add_up():
    first, second = steady(40, images=[1] * 40), steady(60)
    total = totals_of(first) + totals_of(second)
    gaps_s = np.concatenate([np.diff(first.arrival_s), np.diff(second.arrival_s)])
    tokens = np.concatenate([first.input_tokens, second.input_tokens])
    assert total.rows == 100
    assert total.span_s == pytest.approx(np.ptp(first.arrival_s) + np.ptp(second.arrival_s))
    assert total.gaps.cv == pytest.approx(gaps_s.std() / gaps_s.mean())
    assert total.gaps.longest_s == pytest.approx(gaps_s.max())
    assert total.input_tokens.tolist() == np.bincount(tokens).tolist()
    windows = [totals_of(part).windows[10.0] for part in (first, second)]
    assert total.windows[10.0].windows == windows[0].windows + windows[1].windows
    assert total.windows[10.0].peak == max(part.peak for part in windows)
    assert total.spearman == pytest.approx(-1)
    assert (total.extras["images"].total, total.extras["images"].above_zero) == (40, 40)


def test_one_row_has_no_rate_and_no_gap():
    found = figures(totals_of(trace([7.5], [0], [3], images=[2])))
    assert (found["rows"], found["first_arrival_s"], found["span_s"]) == (1, 7.5, 0.0)
    missing = ("rate_per_min", "gap_cv", "peak_per_min", "spearman", "timestamp_grid_s")
    assert [found[name] for name in missing] == [None] * 5
    assert found["gap_s"]["p50"] is None
    assert found["input_tokens"]["p99"] == 0.0
    assert found["extras"]["images"] == {"share_of_rows": 1.0, "mean": 2.0, "max": 2}
    json.dumps(found, allow_nan=False)


def test_prefix_tokens_are_a_share_of_the_input():
    found = figures(totals_of(trace([0, 1], [300, 100], prefix_tokens=[0, 80])))
    assert found["extras"]["prefix_tokens"]["share_of_input_tokens"] == pytest.approx(0.2)


def test_times_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="292 years"):
        totals_of(trace([0.0, 1e10]))


def test_steady_traffic_is_not_odd():
    assert kinds(steady()) == {}


def test_zero_tokens_are_odd():
    odd = kinds(steady(), trace([500.05], [0], [0]))
    assert odd["zero_input_tokens"].numbers == {"rows": 1, "share": pytest.approx(1 / 101)}
    assert odd["zero_output_tokens"].text.startswith("1 row (0.99%) have no output tokens")


def test_a_row_that_is_repeated_across_chunks_is_odd():
    again = trace([900.0, 900.0], [5, 6], [7, 7])
    odd = kinds(steady(), again, trace([900.0, 900.0], [6, 6], [7, 7]), trace([900.0], [5], [8]))
    assert odd["duplicates"].numbers["rows"] == 2
    assert "equal_timestamps" in odd


def test_rows_that_differ_in_a_further_column_are_no_duplicates():
    first, same, other = (trace([1.0], [5], [7], images=[count]) for count in (0, 0, 1))
    assert totals_of(first, same).duplicates == 1
    assert totals_of(first, other).duplicates == 0
    assert totals_of(trace([1.0], [5], [7]), same).duplicates == 1  # a column that is not there is zero


def test_duplicates_belong_to_their_source():
    statistics = TraceStatistics()
    statistics.add(trace([1.0, 1.0], sources=("conv", "code"), source=[0, 1]))
    statistics.add(trace([1.0, 1.0], sources=("conv", "code"), source=[1, 1]))
    assert {name: totals.duplicates for name, totals in statistics.by_source().items()} == {"conv": 0, "code": 2}


@pytest.mark.parametrize(
    ("step_s", "grid_s"), [(0.001, 0.001), (0.25, 0.25), (60.0, 60.0), (0.0005, None), (1e-6, None)]
)
@pytest.mark.parametrize("first_s", [0.0, 0.0123456, 2e7])
def test_grids_from_a_millisecond_on_are_found(step_s, grid_s, first_s):
    steps = np.cumsum(np.tile([3, 2, 7, 1], 20))
    odd = kinds(trace(first_s + steps * step_s))
    assert ("timestamp_grid" in odd) == (grid_s is not None)
    if grid_s is not None:
        assert odd["timestamp_grid"].numbers["grid_s"] == pytest.approx(grid_s)


def test_one_time_off_the_grid_ends_it():
    assert "timestamp_grid" in kinds(trace(np.arange(50)))
    assert "timestamp_grid" not in kinds(trace(np.arange(50)), trace([50.0004]))


def test_long_silences_are_odd():
    arrival_s = np.concatenate([steady().arrival_s, 1000 + steady().arrival_s])
    odd = kinds(trace(arrival_s))["silences"]
    longest_s = float(np.diff(arrival_s).max())
    assert (odd.numbers["gaps"], odd.numbers["gaps_over_60s"]) == (1, 1)
    assert odd.numbers["longest_s"] == pytest.approx(longest_s)
    assert odd.numbers["share_of_span"] == pytest.approx(longest_s / np.ptp(arrival_s), rel=1e-3)
    assert f"{longest_s / 60:.3g} min" in odd.text


def test_tokens_that_were_cut_off_are_odd():
    rows = steady(200)
    cut = trace(rows.arrival_s, np.minimum(rows.input_tokens, 190), rows.output_tokens)
    odd = kinds(cut)
    assert odd["capped_input_tokens"].numbers == {"tokens": 190, "rows": 13, "share": pytest.approx(0.065)}
    assert "capped_output_tokens" not in odd
    assert "constant_output_tokens" in kinds(trace(rows.arrival_s, rows.input_tokens))


def test_what_the_files_lost_is_odd():
    read = TraceRead(
        path=None, format="azure", rows_in_file=200, rows_skipped=3, rows_out_of_order=2, first_problems=("line 5",)
    )
    assert {item.kind: item.numbers["rows"] for item in file_warnings((read, read))} == {
        "rows_skipped": 6,
        "rows_out_of_order": 4,
    }
    assert file_warnings(()) == []
