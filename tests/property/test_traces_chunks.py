"""However a trace is cut into chunks, it is the same trace: blocks of lines, rows of a file, and merged files."""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.workload import Trace, merge_traces
from traces.formats.registry import Reading, TraceRead, read_chunks, read_trace
from traces.io.lines import line_blocks
from traces.io.on_bad_row import OnBadRow
from traces.io.parquet import write_parquet
from traces.source import Survey, TraceFiles, TraceInMemory, merge_chunks

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
COLUMNS = ("arrival_s", "source", "input_tokens", "output_tokens")

few = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def content(trace: Trace) -> tuple[object, ...]:
    """All of a trace, to the byte."""
    return trace.sources, trace.start, *((getattr(trace, c).dtype, getattr(trace, c).tobytes()) for c in COLUMNS)


def joined(chunks: list[Trace]) -> Trace:
    for chunk in chunks:
        assert len(chunk) > 0
        assert (chunk.sources, chunk.start) == (chunks[-1].sources[: len(chunk.sources)], chunks[-1].start)
    return replace(chunks[-1], **{c: np.concatenate([getattr(chunk, c) for chunk in chunks]) for c in COLUMNS})


def cut(trace: Trace, at: list[int]) -> Iterator[Trace]:
    edges = sorted({0, len(trace), *(k for k in at if k < len(trace))})
    for first, end in itertools.pairwise(edges):
        yield replace(trace, **{c: getattr(trace, c)[first:end] for c in COLUMNS})


# -- lines ------------------------------------------------------------------------------------------------


@few
@given(
    text=st.text(alphabet=st.sampled_from("ab,é\n\r\n"), max_size=60),
    mark=st.booleans(),
    size=st.integers(1, 20),
)
def test_blocks_of_lines_are_the_lines_of_the_file(folder: Path, text: str, mark: bool, size: int) -> None:
    path = folder / "text"
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    blocks = list(line_blocks(path, size))
    assert b"".join(block.data for block in blocks).rstrip(b"\r\n") == text.encode().rstrip(b"\r\n")
    assert blocks[0].data.count(b"\n") <= 1
    line = 1
    for block in blocks:
        assert block.first == line
        assert block.rows == len(block.data.removesuffix(b"\n").split(b"\n"))
        line += block.rows
    assert all(block.data.endswith(b"\n") for block in blocks[:-1])
    assert not any(block.data.endswith((b"\r", b"\n")) for block in blocks[1:][-1:])


# -- one file ---------------------------------------------------------------------------------------------


def outcome(path: Path, reading: Reading, chunk_rows: int) -> tuple[object, ...]:
    """The trace and the account, or the problems."""
    reads: list[TraceRead] = []

    def chunks() -> Iterator[Trace]:
        reads.append((yield from read_chunks(path, reading, chunk_rows=chunk_rows)))

    try:
        return content(joined(list(chunks()))), reads[0]
    except InputError as error:
        return error.problems


azure_row = st.builds(
    lambda second, decimals, tokens: f"2023-11-16 18:15:{second:02d}{'.123456789'[:decimals]},{tokens},1",
    st.integers(0, 59),
    st.sampled_from([0, 2, 7, 10]),
    st.integers(0, 10**7),
)
junk = st.text(alphabet=st.sampled_from('0123456789,.:- é\r"'), max_size=50)


@few
@given(
    rows=st.lists(st.one_of(azure_row, azure_row, azure_row, junk), max_size=40),
    in_order=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    tail=st.sampled_from(["", "\n", "\r\n", "\n\n\r\n"]),
    mark=st.booleans(),
    chunk_rows=st.integers(1, 8),
    on_bad_row=st.sampled_from(OnBadRow),
    strict=st.booleans(),
)
def test_azure_rows_are_read_alike_in_blocks_of_any_size(
    folder: Path,
    rows: list[str],
    in_order: bool,
    end: str,
    tail: str,
    mark: bool,
    chunk_rows: int,
    on_bad_row: OnBadRow,
    strict: bool,
) -> None:
    path = folder / "trace_conv.csv"
    text = end.join([HEADER, *(sorted(rows) if in_order else rows)]) + tail
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    reading = Reading(on_bad_row=on_bad_row, strict=strict)
    assert outcome(path, reading, chunk_rows) == outcome(path, reading, 10_000)


# -- Parquet ----------------------------------------------------------------------------------------------


@st.composite
def traces(draw: st.DrawFn, zoned: bool | None = False, size: int = 30) -> Trace:
    """Few different times, so that many are equal, and sources that overlap between traces."""
    sources = tuple(draw(st.lists(st.sampled_from(["conv", "code", "chat"]), min_size=1, unique=True)))
    ticks = draw(st.lists(st.integers(0, 8), min_size=1, max_size=size))
    unit_s = draw(st.sampled_from([1.0, 0.1, 1 / 3]))
    start = None
    if zoned is not None:
        tenths = draw(st.integers(0, 30))
        start = datetime(2024, 5, 10, tzinfo=UTC if zoned else None) + timedelta(milliseconds=100 * tenths)
    n = len(ticks)
    column = st.lists(st.integers(0, 10**7), min_size=n, max_size=n)
    return Trace(
        sources=sources,
        start=start,
        arrival_s=np.sort(np.array(ticks)) * unit_s,
        source=np.array(draw(st.lists(st.integers(0, len(sources) - 1), min_size=n, max_size=n)), dtype=np.int32),
        input_tokens=np.array(draw(column), dtype=np.int32),
        output_tokens=np.array(draw(column), dtype=np.int32),
    )


cuts = st.lists(st.integers(1, 30), max_size=6)


def by_first_request(trace: Trace) -> Trace:
    """The same requests, with their sources in the order of first requests and no others."""
    names = tuple(dict.fromkeys(trace.sources[k] for k in trace.source))
    number = np.array([names.index(name) if name in names else -1 for name in trace.sources], dtype=np.int32)
    return replace(trace, sources=names, source=number[trace.source])


@few
@given(trace=st.one_of(traces(), traces(zoned=True), traces(zoned=None)), at=cuts, chunk_rows=st.integers(1, 40))
def test_a_trace_written_in_any_chunks_is_the_trace_read(
    folder: Path, trace: Trace, at: list[int], chunk_rows: int
) -> None:
    path = folder / "trace.parquet"
    write_parquet(path, cut(trace, at))
    expected = by_first_request(trace)
    assert content(read_trace(path).trace) == content(expected)
    assert content(joined(list(read_chunks(path, chunk_rows=chunk_rows)))) == content(expected)


# -- merged -----------------------------------------------------------------------------------------------


@few
@given(data=st.data(), zoned=st.sampled_from([None, False, True]))
def test_merged_chunks_are_the_merged_traces(data: st.DataObject, zoned: bool | None) -> None:
    whole = data.draw(st.lists(traces(zoned), min_size=1, max_size=5))
    streams = [cut(trace, data.draw(cuts)) for trace in whole]
    assert content(joined(list(merge_chunks(streams)))) == content(by_first_request(merge_traces(whole)))


@few
@given(first=traces(None), second=traces())
def test_one_trace_without_a_start_lays_all_over_each_other(first: Trace, second: Trace) -> None:
    merged = list(merge_chunks([cut(first, [1, 2, 3]), cut(second, [2, 5])]))
    assert content(joined(merged)) == content(by_first_request(merge_traces([first, second])))


def facts(survey: Survey) -> tuple[object, ...]:
    return survey.sources, survey.start, survey.requests, survey.span_s, survey.sha256


@few
@given(whole=st.lists(traces(), min_size=1, max_size=4), chunk_rows=st.integers(1, 12))
def test_files_are_merged_in_chunks_as_in_memory(folder: Path, whole: list[Trace], chunk_rows: int) -> None:
    paths = [folder / f"{k}.parquet" for k in range(len(whole))]
    for path, trace in zip(paths, whole, strict=True):
        write_parquet(path, [trace])
    merged = by_first_request(merge_traces([read_trace(path).trace for path in paths]))
    files = TraceFiles([(path, None) for path in paths], Reading(), chunk_rows=chunk_rows)
    visited: list[Trace] = []
    survey = files.survey(visited.append)
    assert content(joined(visited)) == content(merged)
    assert facts(survey) == facts(TraceInMemory(merged).survey())
    for _ in range(2):
        assert content(joined(list(files.chunks()))) == content(merged)


@few
@given(trace=traces(), order=st.permutations(["conv", "code", "chat", "never"]))
def test_the_digest_is_of_the_requests_not_of_how_sources_are_numbered(trace: Trace, order: list[str]) -> None:
    number = np.array([order.index(name) for name in trace.sources], dtype=np.int32)
    other = replace(trace, sources=tuple(order), source=number[trace.source])
    assert TraceInMemory(other).survey().sha256 == TraceInMemory(trace).survey().sha256


@few
@given(trace=traces(), at=st.integers(0, 29), column=st.sampled_from(COLUMNS[2:]))
def test_the_digest_changes_with_any_value(trace: Trace, at: int, column: str) -> None:
    values = getattr(trace, column).copy()
    values[at % len(values)] += 1
    assert TraceInMemory(replace(trace, **{column: values})).survey().sha256 != TraceInMemory(trace).survey().sha256
