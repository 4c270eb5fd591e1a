"""`trace convert` and what it stands on: files that are further out of order than can be sorted on the way."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from traces.formats.registry import OutOfOrder, Reading, read_chunks, read_trace
from traces.io.on_bad_row import OnBadRow
from traces.sorting import sort_file
from traces.source import TraceFiles

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def shuffled(path: Path, rows: int, seed: int = 0, bad: int = 0) -> Path:
    """A file whose rows come in any order; `ContextTokens` is the number of a row, many share a time."""
    rng = np.random.default_rng(seed)
    second = rng.integers(0, 3600, rows)
    lines = [
        f"2024-05-10 {s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}.5+00:00,{k},1\n" for k, s in enumerate(second)
    ]
    lines[1:1] = ["nonsense\n"] * bad
    path.write_text(HEADER + "".join(lines))
    return path


@pytest.mark.parametrize("run_rows", [1, 7, 1000])
def test_runs_of_any_size_give_the_stable_sort_of_the_rows(tmp_path: Path, run_rows: int) -> None:
    path = shuffled(tmp_path / "trace_conv.csv", 300)
    whole = read_trace(path).trace  # short enough to be sorted in memory
    read = sort_file(path, tmp_path / "sorted.parquet", Reading(), run_rows=run_rows)
    again = read_trace(tmp_path / "sorted.parquet", Reading(strict=True)).trace
    assert (np.diff(whole.arrival_s) >= 0).all()
    for time_s in np.unique(whole.arrival_s):
        assert (np.diff(whole.input_tokens[whole.arrival_s == time_s]) > 0).all()
    assert (again.sources, again.start) == (whole.sources, whole.start)
    assert again.arrival_s.tolist() == whole.arrival_s.tolist()
    assert again.input_tokens.tolist() == whole.input_tokens.tolist()
    assert (read.rows_in_file, read.rows_skipped) == (300, 0)
    assert read.rows_out_of_order > 100
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["sorted.parquet", "trace_conv.csv"]


def test_a_row_beyond_the_window_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = shuffled(tmp_path / "trace_conv.csv", 2000)
    with pytest.raises(OutOfOrder, match=rf"{path}: line \d+: .* s earlier than .*tokenfleet trace convert {path}"):
        list(read_chunks(path, Reading(window_rows=50), chunk_rows=20))
    with pytest.raises(OutOfOrder):
        TraceFiles([(path, None)], Reading(window_rows=50), chunk_rows=20).survey()


def test_bad_rows_are_told_before_anything_is_written(tmp_path: Path) -> None:
    path = shuffled(tmp_path / "trace_conv.csv", 50, bad=2)
    with pytest.raises(InputError, match=f"{path}: line 3: expected 3 fields"):
        sort_file(path, tmp_path / "sorted.parquet", Reading())
    read = sort_file(path, tmp_path / "sorted.parquet", Reading(on_bad_row=OnBadRow.SKIP))
    assert (read.rows_in_file, read.rows_skipped) == (52, 2)
    assert len(read_trace(tmp_path / "sorted.parquet").trace) == 50


class TestTheCommand:
    def test_several_files_become_one(self, tmp_path: Path, run_cli: Any) -> None:
        paths = [shuffled(tmp_path / f"trace_{name}.csv", 40, seed) for seed, name in enumerate(("conv", "code"))]
        done = run_cli("trace", "convert", *paths, "--out", tmp_path / "both.parquet", "--json")
        told = json.loads(done.stdout)
        assert (done.code, told["rows"], sorted(told["sources"])) == (0, 80, ["code", "conv"])
        assert "rows were earlier than the row before them; sorted" in done.stderr
        survey = TraceFiles([(tmp_path / "both.parquet", None)], Reading(strict=True)).survey()
        assert (survey.requests, survey.sha256) == (80, told["sha256"])

    def test_bad_rows_in_quarantine(self, tmp_path: Path, run_cli: Any) -> None:
        path = shuffled(tmp_path / "trace_conv.csv", 10, bad=1)
        out = tmp_path / "out.parquet"
        options = ["--on-bad-row", "quarantine", "--quarantine", str(tmp_path / "bad")]
        done = run_cli("trace", "convert", str(path), "--out", str(out), *options)
        assert done.code == 0
        assert f"skipped 1 of 11 rows (all in {tmp_path / 'bad' / 'trace_conv.csv.bad-rows.csv'})" in done.stderr
        with (tmp_path / "bad" / "trace_conv.csv.bad-rows.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["file"], row["row"], row["text"]) == (str(path), "3", "nonsense")

    def test_what_cannot_be_written_or_read(self, tmp_path: Path, run_cli: Any) -> None:
        path = shuffled(tmp_path / "trace_conv.csv", 10, bad=1)
        done = run_cli("trace", "convert", str(path), "--out", str(tmp_path))
        assert (done.code, done.stdout) == (2, "")
        assert "--out: expected a file to write, found the folder" in done.stderr
        done = run_cli("trace", "convert", str(path), "--out", str(tmp_path / "x.parquet"))
        assert (done.code, done.stdout) == (2, "")
        assert not (tmp_path / "x.parquet").exists()
