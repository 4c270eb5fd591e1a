"""Reading a file of any format: recognition, names and files that cannot be read."""

from pathlib import Path

import pytest

from simulator.errors import InputError
from traces.formats.registry import READERS, Reading, read_trace
from traces.io.on_bad_row import OnBadRow
from traces.io.reader import default_source

FILE = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"


def problem(path: Path, trace_format: str | None = None, on_bad_row: OnBadRow = OnBadRow.ERROR) -> str:
    with pytest.raises(InputError) as caught:
        read_trace(path, Reading(trace_format=trace_format, on_bad_row=on_bad_row))
    (message,) = caught.value.problems
    return message


def write(folder: Path, content: bytes, name: str = "trace_conv.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("AzureLLMInferenceTrace_conv.csv", "conv"),
        ("AzureLLMInferenceTrace_CODE.csv", "code"),
        ("a_b_c.txt", "c"),
        ("Week.csv", "week"),
        ("week_.csv", "week"),
        ("AzureLLMInferenceTrace_conv_1week.csv", "conv"),
        ("requests_Code.csv.gz", "code"),
    ],
)
def test_source_is_the_last_word_of_the_name(name: str, source: str) -> None:
    assert default_source(Path("some_folder") / name) == source


def test_source_and_format_can_be_given(tmp_path: Path) -> None:
    read = read_trace(write(tmp_path, FILE), Reading(trace_format="azure"), source="chat")
    assert read.trace.sources == ("chat",)
    assert read.format == "azure"


@pytest.mark.parametrize("trace_format", [None, *READERS])
@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, content: bytes, trace_format: str | None) -> None:
    path = write(tmp_path, content)
    assert problem(path, trace_format=trace_format) == f"{path}: line 1: expected a header, found an empty file"


@pytest.mark.parametrize("on_bad_row", list(OnBadRow))
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_header_only(tmp_path: Path, end: bytes, on_bad_row: OnBadRow) -> None:
    path = write(tmp_path, b"TIMESTAMP,ContextTokens,GeneratedTokens" + end)
    expected = f"{path}: line 2: expected at least one row after the header, found the end of the file"
    assert problem(path, on_bad_row=on_bad_row) == expected


def test_a_folder(tmp_path: Path) -> None:
    assert problem(tmp_path) == f"{tmp_path}: expected a trace file, found a directory"


def test_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    assert problem(path) == f"{path}: expected a trace file, found nothing of this name"


def test_a_path_through_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, FILE) / "deeper.csv"
    assert problem(path) == f"{path}: cannot be read: Not a directory"


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    path = write(tmp_path, FILE + b"2023-11-16 18:15:47,\xff,2\n")
    wanted = "column ContextTokens: expected an integer from 0 to 10000000"
    assert problem(path) == f"{path}: line 3, {wanted}, found '\\\\xff'"
    read = read_trace(path, Reading(on_bad_row=OnBadRow.SKIP))
    assert (len(read.trace), read.rows_skipped) == (1, 1)


def test_utf_16(tmp_path: Path) -> None:
    path = write(tmp_path, FILE.decode().encode("utf-16"))
    assert problem(path) == f"{path}: line 1: expected text in UTF-8, found zero bytes, as in UTF-16"


def test_an_unknown_format(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    assert problem(path, trace_format="csv").startswith(f"{path}: there is no trace format 'csv'; ")
    assert "azure" in problem(path, trace_format="azur")


def test_content_that_no_format_recognises(tmp_path: Path) -> None:
    path = write(tmp_path, b"When,What\r\n5,472\r\n")
    message = problem(path)
    assert message.startswith(f"{path}: line 1: expected the beginning of a known trace format (")
    assert "found 'When,What'; of another table say which column is what: --map arrival_s=COLUMN" in message


def test_a_given_format_checks_the_header_itself(tmp_path: Path) -> None:
    path = write(tmp_path, b"Timestamp,Request tokens\n5,472\n")
    assert "(missing: TIMESTAMP, ContextTokens, GeneratedTokens)" in problem(path, trace_format="azure")


def test_a_long_first_line_is_cut_in_the_message(tmp_path: Path) -> None:
    assert len(problem(write(tmp_path, b"x" * 10_000))) < 600


def test_bytes_of_no_format(tmp_path: Path) -> None:
    path = write(tmp_path, b"\x1f\x8c\x08")
    assert problem(path) == f"{path}: line 1: expected text in UTF-8, found byte 0x8c (invalid start byte)"
    assert problem(path, trace_format="tokenfleet").startswith(f"{path}: cannot be read as Parquet: ")


def test_a_first_line_that_is_cut_within_a_character(tmp_path: Path) -> None:
    assert "known trace format" in problem(write(tmp_path, b"x" + "é".encode() * 2**16))
