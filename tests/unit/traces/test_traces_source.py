"""Surveys of traces in memory and in files: what they tell, and what they refuse."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from simulator.errors import InputError, RunError
from simulator.workload import Trace
from traces.formats.registry import Reading, read_trace
from traces.io.on_bad_row import OnBadRow
from traces.io.parquet import write_parquet
from traces.source import TraceFiles, TraceInMemory, TraceSource

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
TIME = "2023-11-16 18:15:47"


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *rows: str) -> Path:
        (tmp_path / name).write_text("".join(f"{row}\n" for row in (HEADER, *rows)))
        return tmp_path / name

    return write


def empty() -> Trace:
    none = np.empty(0, dtype=np.int32)
    return Trace(sources=("conv",), arrival_s=np.empty(0), source=none, input_tokens=none, output_tokens=none)


def test_both_kinds_are_trace_sources(file: Callable[..., Path]) -> None:
    path = file("trace_conv.csv", f"{TIME},1,2", f"{TIME}.5,3,4")
    in_files: TraceSource = TraceFiles([(path, None)], Reading())
    in_memory: TraceSource = TraceInMemory(read_trace(path).trace)
    told = [(s.sources, s.start, s.requests, s.span_s, s.sha256) for s in (in_files.survey(), in_memory.survey())]
    assert told[0] == told[1]
    assert told[0][:4] == (("conv",), datetime(2023, 11, 16, 18, 15, 47), 2, 0.5)
    assert len(in_memory.survey().reads) == 0
    assert sum(len(chunk) for chunk in in_memory.chunks()) == 2


def test_an_empty_trace_in_memory() -> None:
    survey = TraceInMemory(empty()).survey()
    assert (survey.sources, survey.requests, survey.span_s) == (("conv",), 0, 0.0)


def test_files_of_two_formats_and_names_are_one_trace(file: Callable[..., Path], tmp_path: Path) -> None:
    late = file("late.csv", "2023-11-16 18:15:48,1,2", "x", "2023-11-16 18:15:50,5,6")
    write_parquet(tmp_path / "early", [read_trace(file("early_code.csv", f"{TIME},3,4")).trace])
    source = TraceFiles([(late, "chat"), (tmp_path / "early", None)], Reading(on_bad_row=OnBadRow.SKIP))
    seen: list[Trace] = []
    survey = source.survey(seen.append)
    assert (survey.sources, survey.requests, survey.span_s) == (("code", "chat"), 3, 3.0)
    assert [(read.path.name, read.format, read.rows_in_file, read.rows_skipped) for read in survey.reads] == [
        ("late.csv", "azure", 3, 1),
        ("early", "tokenfleet", 1, 0),
    ]
    assert survey.reads[0].first_problems[0].startswith(f"{late}: line 3: ")
    assert [t for chunk in seen for t in chunk.arrival_s.tolist()] == [0.0, 1.0, 3.0]
    assert [k for chunk in source.chunks() for k in chunk.source.tolist()] == [0, 1, 1]


def test_the_problems_of_all_files_are_told_in_their_order(file: Callable[..., Path], tmp_path: Path) -> None:
    first, good = file("a.csv", f"{TIME},1,2", "x"), file("b.csv", f"{TIME},1,2")
    (tmp_path / "c.csv").write_text("what\n")
    paths = [first, tmp_path / "none.csv", good, tmp_path / "c.csv", file("d.csv")]
    with pytest.raises(InputError) as caught:
        TraceFiles([(path, None) for path in paths], Reading()).survey()
    assert [problem.split(": ")[:2] for problem in caught.value.problems] == [
        [str(first), "line 3"],
        [str(paths[1]), "expected a trace file, found nothing of this name"],
        [str(paths[3]), "line 1"],
        [str(paths[4]), "line 2"],
    ]


def test_problems_where_no_file_is_good(file: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="line 2: expected at least one row"):
        TraceFiles([(file("a.csv"), None)], Reading()).survey()


def test_no_file() -> None:
    with pytest.raises(InputError, match="no trace was given"):
        TraceFiles([], Reading()).survey()


def test_starts_with_and_without_a_zone(tmp_path: Path) -> None:
    one = np.zeros(1, dtype=np.int32)
    for name, start in (("a", datetime(2024, 5, 10)), ("b", datetime(2024, 5, 10, tzinfo=UTC))):
        trace = Trace(
            sources=("conv",), start=start, arrival_s=np.zeros(1), source=one, input_tokens=one, output_tokens=one
        )
        write_parquet(tmp_path / name, [trace])
    with pytest.raises(InputError, match="cannot be put on one clock"):
        TraceFiles([(tmp_path / "a", None), (tmp_path / "b", None)], Reading()).survey()


def test_a_pipe_cannot_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="expected a file that can be read twice, found a pipe or a device"):
        TraceFiles([(tmp_path / "pipe", None)], Reading()).survey()


class TestAFileThatChanges:
    @pytest.fixture
    def path(self, file: Callable[..., Path]) -> Path:
        return file("trace_conv.csv", *(f"{TIME}.{k},1,2" for k in range(9)))

    def test_between_survey_and_chunks(self, path: Path) -> None:
        source = TraceFiles([(path, None)], Reading())
        source.survey()
        path.write_text(path.read_text() + f"{TIME}.9,1,2\n")
        with pytest.raises(RunError, match=f"{path}: has changed since it was first read"):
            next(source.chunks())

    def test_that_is_gone(self, path: Path) -> None:
        source = TraceFiles([(path, None)], Reading())
        source.survey()
        path.unlink()
        with pytest.raises(RunError, match="has changed"):
            next(source.chunks())

    def test_during_the_survey(self, path: Path) -> None:
        with pytest.raises(RunError, match="has changed"):
            TraceFiles([(path, None)], Reading()).survey(lambda _: os.utime(path, (1, 1)))

    def test_during_the_chunks(self, path: Path) -> None:
        source = TraceFiles([(path, None)], Reading(), chunk_rows=2)
        source.survey()
        chunks: Iterator[Trace] = source.chunks()
        next(chunks)
        path.write_text(f"{HEADER}\n")
        with pytest.raises(RunError, match="has changed"):
            list(chunks)
