"""Whatever is in a file, each row is either read or counted, and good rows are read exactly."""

import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from traces.formats.registry import Reading, read_trace
from traces.io.on_bad_row import OnBadRow

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
Row = tuple[int, int, int]  # nanoseconds since 1970, tokens in, tokens out

tokens = st.integers(0, 10_000_000)
first_ns = st.integers(0, 4_000_000_000 * 10**9)
later_ns = st.integers(
    0, 2**53 - 1000
)  # 104 days less the microsecond that the start is truncated by: exact as float64


@st.composite
def rows_in_order(draw: st.DrawFn) -> list[Row]:
    start_ns = draw(first_ns)
    rows = draw(st.lists(st.tuples(later_ns, tokens, tokens), min_size=1, max_size=20))
    return sorted((start_ns + time_ns, given, made) for time_ns, given, made in rows)


few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "trace_conv.csv"


def line(row: Row, decimals: int = 9) -> str:
    seconds, fraction = divmod(row[0], 10**9)
    text = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}{f'.{fraction:09d}'[: decimals + 1] if decimals else ''},{row[1]},{row[2]}"


@few
@given(rows=rows_in_order(), decimals=st.integers(0, 9), end=st.sampled_from(["\n", "\r\n"]), closed=st.booleans())
def test_rows_written_are_the_rows_read(path: Path, rows: list[Row], decimals: int, end: str, closed: bool) -> None:
    path.write_bytes((end.join([HEADER, *(line(row, decimals) for row in rows)]) + end * closed).encode())
    read = read_trace(path)
    unit = 10 ** (9 - decimals)
    written_ns = [row[0] // unit * unit for row in rows]
    start_ns = written_ns[0] // 1000 * 1000
    assert read.trace.start == datetime(1970, 1, 1) + timedelta(microseconds=start_ns // 1000)
    assert read.trace.arrival_s.tolist() == [(time_ns - start_ns) / 10**9 for time_ns in written_ns]
    assert read.trace.input_tokens.tolist() == [row[1] for row in rows]
    assert read.trace.output_tokens.tolist() == [row[2] for row in rows]
    assert (read.rows_in_file, read.rows_skipped) == (len(rows), 0)


# Characters that matter to the format are drawn often.
noise = st.text(alphabet=st.one_of(st.sampled_from('0123456789,.:-+ \n\r"'), st.characters(codec="utf-8")), max_size=6)


@few
@given(rows=rows_in_order(), at=st.floats(0, 1), cut=st.integers(0, 30), insert=noise)
def test_a_damaged_file_is_an_error_or_its_bad_rows_are_counted(
    path: Path, rows: list[Row], at: float, cut: int, insert: str
) -> None:
    good = "\n".join([HEADER, *(line(row) for row in rows)])
    position = int(at * len(good))
    text = good[:position] + insert + good[position + cut :]
    path.write_bytes(text.encode())
    rows_in_file = text.rstrip("\r\n").count("\n")
    try:
        read = read_trace(path, Reading(on_bad_row=OnBadRow.SKIP, strict=True))
    except InputError:
        # Nothing can be used at all: the header is damaged or no good row is left.
        with pytest.raises(InputError) as caught:
            read_trace(path)
        assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
        return
    trace = read.trace
    assert read.rows_in_file == rows_in_file == len(trace) + read.rows_skipped
    assert len(read.first_problems) == min(read.rows_skipped, 5)
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert (trace.input_tokens >= 0).all()
    if read.rows_skipped == 0:
        assert len(read_trace(path).trace) == len(trace)
    else:
        with pytest.raises(InputError) as caught:
            read_trace(path, Reading(strict=True))
        assert caught.value.problems[: len(read.first_problems)] == read.first_problems


@few
@given(rows=rows_in_order(), junk=st.lists(st.tuples(st.integers(0, 20), noise), min_size=1, max_size=8))
def test_lines_of_junk_are_counted_and_the_others_kept(
    path: Path, rows: list[Row], junk: list[tuple[int, str]]
) -> None:
    lines = [line(row) for row in rows]
    for position, text in junk:
        # In front of the last row, since empty lines at the end of a file are no rows.
        lines.insert(min(position, len(lines) - 1), text.replace("\n", ""))
    path.write_bytes("\n".join([HEADER, *lines]).encode())
    read = read_trace(path, Reading(on_bad_row=OnBadRow.SKIP, strict=True))
    assert (len(read.trace), read.rows_skipped) == (len(rows), len(junk))
    assert read.trace.output_tokens.tolist() == [row[2] for row in rows]


@few
@given(times=st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_rows_are_skipped_exactly_where_they_go_behind_the_last_one_kept(path: Path, times: list[int]) -> None:
    path.write_text("\n".join([HEADER, *(f"2023-11-16 18:15:{second:02d},{k},1" for k, second in enumerate(times))]))
    kept: list[int] = []
    for k, second in enumerate(times):
        if not kept or second >= times[kept[-1]]:
            kept.append(k)
    read = read_trace(path, Reading(on_bad_row=OnBadRow.SKIP, strict=True))
    assert read.trace.input_tokens.tolist() == kept
