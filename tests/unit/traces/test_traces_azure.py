"""The Azure reader: what it accepts, and one exact message for each way in which a file can be wrong."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from simulator.errors import InputError
from traces.formats.registry import Reading, WholeTrace, read_chunks, read_trace
from traces.io.on_bad_row import OnBadRow

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
GOOD = "2023-11-16 18:15:46.6805900,374,44"
LATER = "2023-11-16 18:15:50.9951690,396,109"
TIME = "2023-11-16 18:15:47"
SKIP = Reading(on_bad_row=OnBadRow.SKIP, strict=True)


def write(folder: Path, *lines: str, end: str = "\n", name: str = "trace_conv.csv") -> Path:
    path = folder / name
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def problems(path: Path, on_bad_row: OnBadRow = OnBadRow.ERROR) -> tuple[str, ...]:
    """The messages of the error, without the path that each must begin with."""
    with pytest.raises(InputError) as caught:
        read_trace(path, Reading(on_bad_row=on_bad_row, strict=True))
    prefix = f"{path}: "
    assert all(problem.startswith(prefix) for problem in caught.value.problems)
    return tuple(problem.removeprefix(prefix) for problem in caught.value.problems)


def columns(read: WholeTrace) -> tuple[list[float], list[int], list[int]]:
    trace = read.trace
    return trace.arrival_s.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist()


def test_reads_the_original_form(tmp_path: Path) -> None:
    read = read_trace(write(tmp_path, HEADER, GOOD, LATER))
    assert read.trace.sources == ("conv",)
    assert read.trace.source.tolist() == [0, 0]
    assert read.trace.start == datetime(2023, 11, 16, 18, 15, 46, 680590)
    assert columns(read) == ([0.0, 4.314579], [374, 396], [44, 109])
    assert (read.format, read.rows_in_file, read.rows_skipped, read.first_problems) == ("azure", 2, 0, ())
    assert read.trace.arrival_s.dtype == np.float64
    assert {a.dtype for a in (read.trace.source, read.trace.input_tokens, read.trace.output_tokens)} == {
        np.dtype(np.int32)
    }


def test_arrivals_count_from_the_start_that_the_trace_states(tmp_path: Path) -> None:
    read = read_trace(write(tmp_path, HEADER, f"{TIME}.1234567,1,1", f"{TIME}.1234569,1,1"))
    assert read.trace.start == datetime(2023, 11, 16, 18, 15, 47, 123456)
    assert read.trace.arrival_s.tolist() == [7e-7, 9e-7]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-11-16 18:15:48", 1.0),
        ("2023-11-16 18:15:47.5", 0.5),
        ("2023-11-16 18:15:47.000001", 1e-6),
        ("2023-11-16 18:15:47.0000001", 1e-7),
        ("2023-11-16 18:15:47.000000001", 1e-9),
        ("2024-02-29 00:00:00", 9006253.0),
        ("2023-11-16T18:15:48", 1.0),
        ("2023-11-17", 20653.0),
    ],
)
def test_accepts_any_decimals_and_shorter_forms(tmp_path: Path, text: str, seconds: float) -> None:
    read = read_trace(write(tmp_path, HEADER, f"{TIME},1,1", f"{text},1,1"))
    assert read.trace.arrival_s.tolist() == [0.0, seconds]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", ["", "\n", "\r\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_accepts_line_ends_and_byte_order_mark(tmp_path: Path, end: str, tail: str, mark: bytes) -> None:
    path = tmp_path / "trace_code.csv"
    path.write_bytes(mark + end.join([HEADER, GOOD, LATER]).encode() + tail.encode())
    read = read_trace(path)
    assert columns(read) == ([0.0, 4.314579], [374, 396], [44, 109])
    assert read.rows_in_file == 2


def test_accepts_equal_times_and_zero_and_largest_tokens(tmp_path: Path) -> None:
    read = read_trace(write(tmp_path, HEADER, f"{TIME},0,10000000", f"{TIME},10000000,0"))
    assert columns(read) == ([0.0, 0.0], [0, 10_000_000], [10_000_000, 0])


WANTED_TIME = "column TIMESTAMP: expected a time such as 2023-11-16 18:15:46.680590, found "
WANTED_FIELDS = f"expected 3 fields ({HEADER}), found "
WANTED_TOKENS = "expected an integer from 0 to 10000000, found "


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{TIME},1", f"line 3: {WANTED_FIELDS}2 in '{TIME},1'"),
        (f"{TIME},1,2,3", f"line 3: {WANTED_FIELDS}4 in '{TIME},1,2,3'"),
        ("", f"line 3: {WANTED_FIELDS}an empty line"),
        ("   ", f"line 3: {WANTED_FIELDS}1 in '   '"),
        (f"{TIME},-1,2", f"line 3, column ContextTokens: {WANTED_TOKENS}'-1'"),
        (f"{TIME},1.5,2", f"line 3, column ContextTokens: {WANTED_TOKENS}'1.5'"),
        (f"{TIME},,2", f"line 3, column ContextTokens: {WANTED_TOKENS}''"),
        (f"{TIME},1,-2", f"line 3, column GeneratedTokens: {WANTED_TOKENS}'-2'"),
        (f"{TIME},1,two", f"line 3, column GeneratedTokens: {WANTED_TOKENS}'two'"),
        (f"{TIME},1,+2 x", f"line 3, column GeneratedTokens: {WANTED_TOKENS}'+2 x'"),
        (f"{TIME},1,0x2", f"line 3, column GeneratedTokens: {WANTED_TOKENS}'0x2'"),
        (f"{TIME},1,1_0", f"line 3, column GeneratedTokens: {WANTED_TOKENS}'1_0'"),
        (f"{TIME},nan,2", f"line 3, column ContextTokens: {WANTED_TOKENS}'nan'"),
        (f"{TIME},1,٣", f"line 3, column GeneratedTokens: {WANTED_TOKENS}'٣'"),
        (f"{TIME},1\r,2", f"line 3: {WANTED_FIELDS}a line end or a quote within '{TIME},1\\r,2'"),
        (f"{TIME},10000001,2", f"line 3, column ContextTokens: {WANTED_TOKENS}'10000001'"),
        (f"{TIME},1,99999999999999999999", f"line 3, column GeneratedTokens: {WANTED_TOKENS}'99999999999999999999'"),
        ("yesterday,1,2", f"line 3, {WANTED_TIME}'yesterday'"),
        (",1,2", f"line 3, {WANTED_TIME}''"),
        ("2023-11-16t18:15:47,1,2", f"line 3, {WANTED_TIME}'2023-11-16t18:15:47'"),
        ("2023-11-31 18:15:47,1,2", f"line 3, {WANTED_TIME}'2023-11-31 18:15:47'"),
        ("2025-02-29 18:15:47,1,2", f"line 3, {WANTED_TIME}'2025-02-29 18:15:47'"),
        ("2024-13-01 18:15:47,1,2", f"line 3, {WANTED_TIME}'2024-13-01 18:15:47'"),
        ("2023-11-16 24:00:00,1,2", f"line 3, {WANTED_TIME}'2023-11-16 24:00:00'"),
        ("2023-11-16 18:15:60,1,2", f"line 3, {WANTED_TIME}'2023-11-16 18:15:60'"),
        ("2023-11-16 18:15:47.,1,2", f"line 3, {WANTED_TIME}'2023-11-16 18:15:47.'"),
        ("2023-11-16 18:15:47.1234567891,1,2", f"line 3, {WANTED_TIME}'2023-11-16 18:15:47.1234567891'"),
        ("2023-11-16 18:15:47+01:00,1,2", f"line 3, {WANTED_TIME}'2023-11-16 18:15:47+01:00'"),
        ("9999-11-16 18:15:47,1,2", f"line 3, {WANTED_TIME}'9999-11-16 18:15:47'"),
        (
            "2023-11-16 18:15:46.6805899,1,2",
            "line 3, time: expected one not before 2023-11-16 18:15:46.680590000 of line 2, "
            "found 2023-11-16 18:15:46.680589900",
        ),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_bad_row_is_named_and_can_be_skipped(tmp_path: Path, row: str, message: str, end: str) -> None:
    path = write(tmp_path, HEADER, GOOD, row, LATER, end=end)
    assert problems(path) == (message,)
    read = read_trace(path, SKIP)
    assert columns(read) == ([0.0, 4.314579], [374, 396], [44, 109])
    assert (read.rows_in_file, read.rows_skipped) == (3, 1)
    assert read.first_problems == (f"{path}: {message}",)


def test_a_row_that_goes_back_is_not_the_measure_of_the_next(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, "2023-11-16 10:00:00,1,1", "2023-11-16 09:00:00,2,2", "2023-11-16 09:30:00,3,3")
    assert [problem.split(",")[0] for problem in problems(path)] == ["line 3", "line 4"]
    assert "of line 2," in problems(path)[1]


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 100])
def test_a_row_that_goes_back_behind_an_earlier_block(tmp_path: Path, chunk_rows: int) -> None:
    rows = [f"{TIME}.5,1,1", *[f"{TIME},2,2"] * 4, f"{TIME}.25,3,3"]
    path = write(tmp_path, HEADER, *rows)
    with pytest.raises(InputError) as caught:
        list(read_chunks(path, Reading(strict=True), chunk_rows=chunk_rows))
    assert caught.value.problems == tuple(
        f"{path}: line {k + 2}, time: expected one not before {TIME}.500000000 of line 2, found "
        f"{rows[k].split(',')[0].ljust(20, '.').ljust(29, '0')}"
        for k in range(1, 6)
    )


def test_a_bad_first_row_does_not_set_the_start(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, f"{TIME},x,1", LATER)
    read = read_trace(path, SKIP)
    assert read.trace.start == datetime(2023, 11, 16, 18, 15, 50, 995169)
    assert columns(read) == ([0.0], [396], [109])


def test_many_bad_rows_five_are_described_and_the_rest_counted(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, GOOD, *[f"{TIME},{-k},1" for k in range(1, 8)])
    found = problems(path)
    assert [p.rpartition(" ")[2] for p in found[:5]] == ["'-1'", "'-2'", "'-3'", "'-4'", "'-5'"]
    assert found[0].startswith("line 3, ")
    assert found[4].startswith("line 7, ")
    assert found[5:] == ("2 more bad rows (of 8 rows in the file)",)
    assert len(read_trace(path, SKIP).first_problems) == 5


@pytest.mark.parametrize("on_bad_row", list(OnBadRow))
def test_no_good_row_is_an_error_even_when_bad_ones_are_skipped(tmp_path: Path, on_bad_row: OnBadRow) -> None:
    path = write(tmp_path, HEADER, f"{TIME},x,1", "")
    # The empty line at the end is no row.
    assert problems(path, on_bad_row=on_bad_row) == (
        "expected at least one good row, found none",
        f"line 2, column ContextTokens: {WANTED_TOKENS}'x'",
    )


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("TIMESTAMP,ContextTokens", "missing: GeneratedTokens"),
        ("Time,ContextTokens,GeneratedTokens", "missing: TIMESTAMP"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens,TIMESTAMP", "twice: TIMESTAMP"),
    ],
)
def test_a_wrong_header_is_named(tmp_path: Path, header: str, why: str) -> None:
    path = write(tmp_path, header, GOOD)
    with pytest.raises(InputError) as caught:
        read_trace(path, Reading(trace_format="azure"))
    assert caught.value.problems == (f"{path}: line 1: expected the columns {HEADER}, found '{header}' ({why})",)


def test_columns_may_come_in_another_order_and_others_beside_them(tmp_path: Path) -> None:
    read = read_trace(write(tmp_path, "GeneratedTokens,Model,TIMESTAMP,ContextTokens", f'44,"a, b",{TIME},374'))
    assert columns(read) == ([0.0], [374], [44])
    assert read.format == "azure"


def test_a_week_of_2024_states_its_zone(tmp_path: Path) -> None:
    read = read_trace(
        write(
            tmp_path,
            HEADER,
            "2024-05-10 00:00:00.009930+00:00,2162,5",
            "2024-05-10 02:00:00.017335+02:00,2399,6",
            name="AzureLLMInferenceTrace_code_1week.csv",
        )
    )
    assert read.trace.start == datetime(2024, 5, 10, 0, 0, 0, 9930, tzinfo=UTC)
    assert columns(read) == ([0.0, 0.007405], [2162, 2399], [5, 6])
    assert read.trace.sources == ("code",)


def test_a_time_without_a_zone_among_others_with_one(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, f"{TIME}+00:00,1,1", f"{TIME},1,1")
    wanted = "a time such as 2023-11-16 18:15:46.680590+00:00"
    assert problems(path) == (f"line 3, column TIMESTAMP: expected {wanted}, found '{TIME}'",)
