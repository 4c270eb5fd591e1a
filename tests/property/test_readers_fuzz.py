"""Whatever is in a file: a message or its rows, none lost; and both ways of reading text tables are one."""

import csv
import gzip
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.workload import Trace
from tests.trace_samples import SAMPLES, Sample
from traces.formats.registry import Reading, TraceRead, read_chunks
from traces.io import delimited
from traces.io.on_bad_row import OnBadRow
from traces.io.reader import BadRow

few = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def outcome(path: Path, reading: Reading, chunk_rows: int = 2**17) -> tuple[list[Trace], TraceRead, list[BadRow]]:
    chunks: list[Trace] = []
    bad: list[BadRow] = []
    stream = read_chunks(path, reading, chunk_rows=chunk_rows, on_bad=bad.append)
    while True:
        try:
            chunks.append(next(stream))
        except StopIteration as end:
            return chunks, end.value, bad


def whole(chunks: list[Trace]) -> list[tuple[object, ...]]:
    return [
        (chunk.arrival_s[k], chunk.sources[chunk.source[k]], chunk.input_tokens[k], chunk.output_tokens[k])
        for chunk in chunks
        for k in range(len(chunk))
    ]


def judged(path: Path, reading: Reading, lines: int | None) -> None:
    """A file is refused with messages that name it, or all of its rows are accounted for."""
    problems: tuple[str, ...] | None = None
    try:
        chunks, read, bad = outcome(path, reading)
    except InputError as error:
        problems = error.problems
    if problems is not None:
        assert problems
        assert all(problem.startswith(f"{path}: ") for problem in problems)
        return
    good = sum(map(len, chunks))
    assert read.rows_in_file == good + read.rows_skipped
    assert len(bad) == read.rows_skipped
    assert len(read.first_problems) == min(5, read.rows_skipped)
    if lines is not None:
        assert read.rows_in_file == lines
    arrival_s = np.concatenate([chunk.arrival_s for chunk in chunks])
    assert (arrival_s >= 0).all()
    assert (np.diff(arrival_s) >= 0).all()
    assert np.isfinite(arrival_s).all()


# Characters that matter to the formats are drawn often.
noise = st.one_of(
    st.binary(max_size=6),
    st.text(alphabet='0123456789,.:-+ \n\r\t"{}[]eETZnaiNf\\\0é', max_size=8).map(str.encode),
    st.sampled_from(
        [b"nan", b"inf", b"-1", b"1e9", b"99999999999999999999", b"null", b'""', b"\xef\xbb\xbf", b"\x1f\x8b"]
    ),
)


@pytest.mark.parametrize("sample", SAMPLES, ids=[f"{s.format}-{k}" for k, s in enumerate(SAMPLES)])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), noise), min_size=1, max_size=3),
    strict=st.booleans(),
    packed=st.booleans(),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_a_damaged_file_is_refused_or_accounted_for(
    folder: Path,
    sample: Sample,
    damage: list[tuple[float, int, bytes]],
    strict: bool,
    packed: bool,
    cut: float | None,
) -> None:
    path = folder / sample.name
    sample.write(path)
    data = path.read_bytes()
    for at, length, insert in damage:
        position = int(at * len(data))
        data = data[:position] + insert + data[position + length :]
    packed = packed and sample.lines
    path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    if cut is not None:
        path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    without_header = sample.name.endswith(".jsonl")
    lines = data.rstrip(b"\r\n").count(b"\n") + without_header if sample.lines and cut is None else None
    if b'"' in data and not without_header:
        lines = None  # a row may have several
    for on_bad_row in (OnBadRow.SKIP, OnBadRow.ERROR):
        judged(path, Reading(columns=sample.columns, on_bad_row=on_bad_row, strict=strict), lines)


@few
@given(data=st.binary(max_size=200), name=st.sampled_from(["a.csv", "b.parquet", "c.json", "d"]))
def test_any_bytes(folder: Path, data: bytes, name: str) -> None:
    (folder / name).write_bytes(data)
    judged(folder / name, Reading(on_bad_row=OnBadRow.SKIP), None)


# -- text tables: rows that are nearly right -----------------------------------------------------------------

number = st.one_of(
    st.integers(-5, 20_000_000).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.sampled_from(
        ["", " 7", "7\t", "+7", "-0", "007", "7.", ".5", "7.0", "7.5", "1e3", "1E+2", "1e400", "0x10", "0X1F"]
    ),
    st.sampled_from(["1_0", "１", "nan", "NaN", "inf", "-inf", "null", "7 7", "٣", "'7'", '"7"', "7e", "--7", "1e-3"]),
    st.sampled_from(["10000000", "10000001"]),
)
moment = st.one_of(
    st.builds(
        lambda day, clock, zone: f"2024-05-{day}{clock}{zone}",
        st.sampled_from(["10", "11", "31", "32", "1"]),
        st.sampled_from(
            ["", " 10", " 10:20", " 10:20:30", "T10:20:30.5", " 24:00:00", " 10:20:30.123456789", " 1:2:3"]
        ),
        st.sampled_from(["", "", "", "Z", "+00:00", "-0130", "+02", "+25:00", " UTC"]),
    ),
    st.sampled_from(["1715335230", "1715335230.25", "1715335230000", "1715335230000000000", "soon", "9999-01-01"]),
    st.sampled_from(["2200-01-01 00:00:00", "1700-01-01", "9223372036854775807", "-9223372036854775808"]),
    st.sampled_from(["4611686018427387904", "4611686018427387903"]),
    number,
)
name = st.sampled_from(
    [
        *("conv", "code", "", " ", "a b", "é", "\udcff", "x\0", "NULL", "a\rb", '"\n"', '"a\rb"'),
        *('"a, b"', '"', '""', '"a"b', '""x', '"""x"', 'a"b', '"a""b"', '"a', 'a"', ' "a"', '"a" '),
    ]
)
separator = st.sampled_from([",", ",", ",", ",", ",", ",", ", ", ";", ",,"])


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    times = draw(st.sampled_from([moment, number, st.integers(0, 10**6).map(str)]))
    odd = draw(st.booleans())
    tokens = number if odd else st.integers(0, 10**7).map(str)
    names = name if odd or draw(st.booleans()) else st.sampled_from(["conv", "code"])
    lines = ["when,service,prompt_tokens,completion_tokens"]
    for _ in range(draw(st.integers(1, 12))):
        fields = [draw(times), draw(names), draw(tokens), draw(tokens)]
        lines.append((draw(separator) if odd else ",").join(fields))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines).encode(errors="surrogateescape")


def table_rows(data: bytes) -> dict[int, str]:
    """The rows after the header by where they begin: a line each, or several with a quote around the breaks."""

    def is_row(text: str) -> bool:
        try:
            (fields,) = csv.reader([text.removesuffix("\r")], strict=True)
        except (csv.Error, ValueError):
            return False
        return len(fields) == 4

    lines = data.rstrip(b"\r\n").decode(errors="surrogateescape").split("\n")
    rows, at = {}, 1
    while at < len(lines):
        odd = [k for k in range(at, len(lines)) if lines[k].count('"') % 2]
        end = at + 1
        if odd[:1] == [at] and len(odd) > 1 and not is_row(lines[at]):
            end = odd[1] + 1 if is_row("\n".join(lines[at : odd[1] + 1])) else end
        rows[at + 1] = "\n".join(lines[at:end])
        at = end
    return rows


TABLE = Reading(columns={"arrival_s": "when", "source": "service"}, on_bad_row=OnBadRow.SKIP, trace_format="table")


def told(path: Path, chunk_rows: int = 2**17) -> object:
    try:
        chunks, read, bad = outcome(path, TABLE, chunk_rows)
    except InputError as error:
        return error.problems
    return whole(chunks), chunks[-1].start, read, bad


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=tables())
def test_arrow_reads_what_the_rows_say(folder: Path, data: bytes) -> None:
    path = folder / "table.csv"
    path.write_bytes(data)
    judged(path, TABLE, len(table_rows(data)))
    fast = told(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited._Table, "_fast", lambda *_, **__: None)
        assert told(path) == fast
    # Lines that look good are then read by Arrow, and the others by themselves.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_FEW_LINES", 1)
        assert told(path) == fast


@few
@given(data=tables(), chunk_rows=st.integers(1, 5))
def test_tables_are_the_same_in_chunks_of_any_size(folder: Path, data: bytes, chunk_rows: int) -> None:
    path = folder / "table.csv"
    path.write_bytes(data)
    one, many = told(path), told(path, chunk_rows)
    assert one == many


@few
@given(data=tables())
def test_a_bad_row_is_told_with_its_line_and_text(folder: Path, data: bytes) -> None:
    path = folder / "table.csv"
    path.write_bytes(data)
    try:
        _, _, bad = outcome(path, TABLE)
    except InputError:
        return
    rows = table_rows(data)
    for row in bad:
        text = rows[row.number].removesuffix("\r").encode(errors="surrogateescape")
        assert row.text == text.decode(errors="backslashreplace")
        assert row.problem.startswith(f"line {row.number}")
