"""`tokenfleet trace describe`: what it prints, what is in its JSON, and its picture."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cli.trace.describe import number
from experiments.cli.trace.describe_figure import picture
from simulator.workload import Trace
from traces.io.parquet import write_parquet
from traces.statistics.describe import TraceStatistics
from traces.statistics.totals import GAP_PRECISION

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def azure(path, rows=200, *, step_ns=1_234_567_800, first_minute=15, bad=()):
    lines = []
    for row in range(rows):
        ns = row * step_ns
        stamp = f"2023-11-16 18:{first_minute + ns // (60 * 10**9)}:{ns // 10**9 % 60:02}.{ns % 10**9 // 100:07}"
        lines.append(f"{stamp},{100 + row % 37},{row % 11}\n")
    for row in bad:
        lines[row] = "no row\n"
    path.write_text(HEADER + "".join(lines))
    return path


def many_sources(count=7):
    rows = 40 * count
    rng = np.random.default_rng(1)
    return Trace(
        sources=tuple(f"service-{k}" for k in range(count)),
        arrival_s=np.cumsum(rng.exponential(1.0, rows)),
        source=(np.arange(rows) % count).astype(np.int32),
        input_tokens=rng.integers(1, 5000, rows).astype(np.int32),
        output_tokens=rng.integers(1, 500, rows).astype(np.int32),
    )


def test_json_has_the_figures_of_the_whole_and_of_each_source(run_cli, tmp_path):
    files = [azure(tmp_path / "a_conv.csv"), azure(tmp_path / "a_code.csv", 50, first_minute=16)]
    run = run_cli("trace", "describe", *files, "--json")
    assert (run.code, run.stderr) == (0, "")
    result = json.loads(run.stdout)
    assert result["format"] == "azure"
    assert (result["rows"], result["rows_skipped"], result["rows_out_of_order"]) == (250, 0, 0)
    assert result["start"] == "2023-11-16T18:15:00"
    assert {name: source["rows"] for name, source in result["sources"].items()} == {"conv": 200, "code": 50}
    assert result["span_s"] == pytest.approx(199 * 1.2345678)
    assert result["sources"]["code"]["first_arrival_s"] == pytest.approx(60)
    assert result["sources"]["code"]["gap_cv"] == pytest.approx(0, abs=1e-6)
    assert result["sources"]["code"]["rate_per_min"] == pytest.approx(50 / (49 * 1.2345678) * 60)
    assert {"1s", "10s", "60s"} <= set(result["dispersion"])
    assert {
        "mean",
        "std",
        "min",
        "max",
        "p1",
        "p5",
        "p10",
        "p25",
        "p50",
        "p75",
        "p90",
        "p95",
        "p99",
        "p99.9",
        "zeros",
    } <= set(result["input_tokens"])
    assert result["output_tokens"]["zeros"] == 19 + 5
    kinds = [item["kind"] for item in result["sources"]["conv"]["oddities"]]
    assert kinds == ["zero_output_tokens"]
    assert {"spearman", "oddities", "gap_s", "peak_per_min"} <= set(result)


def test_the_tables_fit_into_80_columns_and_oddities_are_sentences(run_cli, tmp_path):
    write_parquet(tmp_path / "many.parquet", [many_sources()])
    run = run_cli("trace", "describe", tmp_path / "many.parquet", process=True)
    assert (run.code, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert "280 requests" in lines[0]
    assert "(tokenfleet)" in lines[0]
    assert max(map(len, lines)) <= 80
    assert "2 smaller sources not shown: --json has all" in lines
    assert "nothing odd" in lines
    headings = [line for line in lines if line.strip().startswith(("arrivals", "tokens"))]
    assert len(headings) == 3


def test_oddities_of_a_source_are_told_once_and_with_its_name(run_cli, tmp_path):
    files = [azure(tmp_path / "a_conv.csv"), azure(tmp_path / "a_code.csv", 50, first_minute=16)]
    odd = [line for line in run_cli("trace", "describe", *files).stdout.splitlines() if line.startswith("odd")]
    assert odd == [
        "odd: conv: 19 rows (9.50%) have no output tokens",
        "odd: code: 5 rows (10.00%) have no output tokens",
    ]


def test_skipped_rows_are_told(run_cli, tmp_path):
    path = azure(tmp_path / "a_conv.csv", bad=[3, 9])
    refused = run_cli("trace", "describe", path)
    assert (refused.code, refused.stdout) == (2, "")
    assert "line 5" in refused.stderr
    run = run_cli("trace", "describe", path, "--on-bad-row", "skip")
    assert run.code == 0
    assert "odd: 2 of 200 rows (1.00%) could not be read and are left out" in run.stdout.splitlines()
    result = json.loads(run_cli("trace", "describe", path, "--on-bad-row", "skip", "--json").stdout)
    assert (result["rows"], result["rows_skipped"]) == (198, 2)
    assert result["oddities"][0]["kind"] == "rows_skipped"


@pytest.mark.parametrize("name", ["picture.png", "picture.svg"])
def test_the_picture_is_whole_and_the_same_each_time(run_cli, tmp_path, name):
    path, figure = azure(tmp_path / "a_conv.csv"), tmp_path / name
    run = run_cli("trace", "describe", path, "--figure", figure)
    assert run.code == 0
    assert f"picture in {figure}" in run.stdout
    first = figure.read_bytes()
    assert first.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    run_cli("trace", "describe", path, "--figure", figure)
    assert figure.read_bytes() == first
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a_conv.csv", name]


@pytest.mark.parametrize("name", ["picture.jpg", "nowhere/picture.png", "folder.png"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_reading(run_cli, tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    run = run_cli("trace", "describe", tmp_path / "missing.csv", "--figure", tmp_path / name)
    assert (run.code, run.stdout) == (2, "")
    assert "--figure" in run.stderr
    assert "missing.csv" not in run.stderr


def test_the_picture_shows_rates_and_shares_that_are_right():
    statistics = TraceStatistics()
    statistics.add(many_sources(1))
    charts = {chart.key: chart for chart in picture({"all": statistics.totals()}, "title").charts}
    (rate,) = charts["rate"].lines
    arrival_s = many_sources(1).arrival_s - many_sources(1).arrival_s[0]
    # 40 requests in some 40 s are drawn by the second; the last one, which is not full, is left out.
    assert rate.y[:-1] == pytest.approx(60 * np.bincount(arrival_s.astype(int))[:-1])
    gaps, exponential = charts["gaps"].lines
    mean_s = np.diff(arrival_s).mean()
    x, y = gaps.x, gaps.y
    expected = [(np.diff(arrival_s) > value * mean_s * (1 + GAP_PRECISION)).mean() for value in x]
    assert y == pytest.approx(expected)
    assert exponential.reference
    assert exponential.y == pytest.approx(np.exp(-np.array(exponential.x)))
    (tokens,) = charts["input_tokens"].lines
    edges, density = np.array(tokens.x), np.array(tokens.y)
    assert (density[:-1] * np.diff(np.log2(edges))).sum() == pytest.approx(1)


@pytest.mark.parametrize("rows", [1, 2, 30])
def test_few_rows_can_be_described_and_drawn(run_cli, tmp_path, rows):
    path, figure = azure(tmp_path / "few_conv.csv", rows), tmp_path / "few.png"
    run = run_cli("trace", "describe", path, "--figure", figure)
    assert run.code == 0
    assert f"{rows:,} requests" in run.stdout
    assert figure.stat().st_size > 1000


def test_all_at_one_time_and_without_tokens_can_be_described_and_drawn(run_cli, tmp_path):
    path = Path(tmp_path / "same_conv.csv")
    path.write_text(HEADER + "2023-11-16 18:15:46.6805900,0,0\n" * 30)
    run = run_cli("trace", "describe", path, "--figure", tmp_path / "same.png")
    assert run.code == 0
    assert "29 rows (96.67%) repeat an earlier row exactly" in run.stdout
    assert "nan" not in run.stdout


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (0.07275, "0.07275"),
        (211.126, "211.1"),
        (28_185.0, "28,185"),
        (1e-5, "1e-05"),
        (4.0, "4"),
    ],
)
def test_numbers_have_four_digits(value, shown):
    assert number(value) == shown
