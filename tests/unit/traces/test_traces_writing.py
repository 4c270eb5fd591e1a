"""Traces into files: what a line says, and that a file is whole or not there, with bytes that chunks do not change."""

import gzip
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.workload import Trace
from traces.formats.registry import read_trace
from traces.io.chunks import concatenate, rechunk
from traces.io.writing import write_trace


def trace(rows: int, sources: tuple[str, ...] = ("conv", "code")) -> Trace:
    number = np.arange(rows, dtype=np.int32)
    return Trace(
        sources=sources,
        start=datetime(2024, 5, 10),
        arrival_s=number / 8 + 0.1,
        source=number % 2,
        input_tokens=number + 10,
        output_tokens=number + 100,
        extras={"images": number % 3},
    )


def pieces(whole: Trace, *cuts: int) -> Iterator[Trace]:
    for first, last in zip((0, *cuts), (*cuts, len(whole)), strict=True):
        yield whole.rows(slice(first, last))


@pytest.mark.parametrize("cuts", [(), (1,), (3, 3, 4, 9), (5, 10), tuple(range(1, 11))])
def test_chunks_of_one_size_from_chunks_of_any(cuts: tuple[int, ...]) -> None:
    whole = trace(11)
    made = list(rechunk(pieces(whole, *cuts), 4))
    assert [len(chunk) for chunk in made] == [4, 4, 3]
    again = concatenate(made)
    for name in ("arrival_s", "source", "input_tokens", "output_tokens"):
        assert getattr(again, name).tobytes() == getattr(whole, name).tobytes()
    assert again.extras["images"].tolist() == whole.extras["images"].tolist()
    assert all(chunk.start == whole.start for chunk in made)
    assert list(rechunk([], 4)) == []


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz"])
def test_the_same_requests_are_the_same_bytes(tmp_path: Path, name: str) -> None:
    written = []
    for folder, cuts in (("one", ()), ("two", (2, 9))):
        path = tmp_path / folder / name
        write_trace(path, rechunk(pieces(trace(11), *cuts), 4))
        written.append(path.read_bytes())
        assert [file.name for file in path.parent.iterdir()] == [name]
    assert written[0] == written[1]
    read = read_trace(tmp_path / "one" / name).trace
    assert read.input_tokens.tolist() == trace(11).input_tokens.tolist()
    assert [read.sources[k] for k in read.source] == ["conv", "code"] * 5 + ["conv"]


def test_the_lines_of_a_csv_file(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.csv", [trace(2)])
    lines = "arrival_s,source,input_tokens,output_tokens,images\n0.1,conv,10,100,0\n0.225,code,11,101,1\n"
    assert (tmp_path / "t.csv").read_text() == lines
    write_trace(tmp_path / "t.csv.gz", [trace(2)])
    assert gzip.decompress((tmp_path / "t.csv.gz").read_bytes()).decode() == lines


def test_a_name_with_a_comma_is_quoted(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.csv", [trace(2, ("a,b", 'say "hi"'))])
    assert read_trace(tmp_path / "t.csv").trace.sources == ("a,b", 'say "hi"')


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz"])
def test_interrupted_nothing_is_left_and_what_was_there_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("before")

    def interrupted() -> Iterator[Trace]:
        yield trace(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_trace(path, interrupted())
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert path.read_text() == "before"


@pytest.mark.parametrize("name", ["t", "t.gz", "t.json", "parquet"])
def test_a_name_that_says_no_form_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"expected a name in \.parquet, \.csv or \.csv\.gz"):
        write_trace(tmp_path / name, [trace(1)])


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_a_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_trace(tmp_path / "file" / name, [trace(1)])
