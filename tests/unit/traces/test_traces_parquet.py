"""The Parquet format: what it accepts, and one exact message for each way in which a file can be wrong."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulator.errors import InputError
from simulator.workload import Trace
from traces.formats.registry import Reading, read_chunks, read_trace
from traces.io.on_bad_row import OnBadRow
from traces.io.parquet import write_parquet

GOOD: dict[str, list[Any]] = {
    "arrival_s": [0.0, 0.5, 0.5, 2.0],
    "source": ["code", "conv", "code", "conv"],
    "input_tokens": [1, 2, 3, 10_000_000],
    "output_tokens": [0, 5, 6, 7],
}
TYPES = {"arrival_s": pa.float64(), "source": pa.string(), "input_tokens": pa.int64(), "output_tokens": pa.int64()}


def write(folder: Path, columns: dict[str, list[Any]], start: str | None = None, **types: pa.DataType) -> Path:
    path = folder / "week.parquet"
    schema = pa.schema([(name, (TYPES | types).get(name, pa.int64())) for name in columns])
    metadata = None if start is None else {"tokenfleet.start": start}
    pq.write_table(pa.table(columns, schema=schema.with_metadata(metadata)), path)
    return path


def problems(path: Path, on_bad_row: OnBadRow = OnBadRow.ERROR) -> tuple[str, ...]:
    """The messages of the error, without the path that each must begin with."""
    with pytest.raises(InputError) as caught:
        read_trace(path, Reading(on_bad_row=on_bad_row, strict=True))
    prefix = f"{path}: "
    assert all(problem.startswith(prefix) for problem in caught.value.problems)
    return tuple(problem.removeprefix(prefix) for problem in caught.value.problems)


@pytest.mark.parametrize(
    "types",
    [
        {},
        {"source": pa.large_string(), "input_tokens": pa.uint64(), "output_tokens": pa.int8()},
        {"source": pa.dictionary(pa.int8(), pa.string()), "input_tokens": pa.int32(), "output_tokens": pa.uint16()},
    ],
)
def test_reads_columns_of_any_fitting_type(tmp_path: Path, types: dict[str, pa.DataType]) -> None:
    read = read_trace(write(tmp_path, {**GOOD, "note": [1, 2, 3, 4]}, **types))
    trace = read.trace
    assert (read.format, read.rows_in_file, read.rows_skipped) == ("tokenfleet", 4, 0)
    assert (trace.sources, trace.start) == (("code", "conv"), None)
    assert trace.arrival_s.tolist() == GOOD["arrival_s"]
    assert trace.source.tolist() == [0, 1, 0, 1]
    assert (trace.input_tokens.tolist(), trace.output_tokens.tolist()) == (GOOD["input_tokens"], GOOD["output_tokens"])
    assert [column.dtype for column in (trace.arrival_s, trace.source, trace.input_tokens, trace.output_tokens)] == [
        np.dtype(kind) for kind in (np.float64, np.int32, np.int32, np.int32)
    ]


def test_a_name_that_is_given_takes_the_place_of_those_in_the_file(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, GOOD), source="chat").trace
    assert (trace.sources, trace.source.tolist()) == (("chat",), [0, 0, 0, 0])


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("2024-05-10", datetime(2024, 5, 10)),
        ("2024-05-10T01:02:03.000004", datetime(2024, 5, 10, 1, 2, 3, 4)),
        ("2024-05-10T00:00:00+00:00", datetime(2024, 5, 10, tzinfo=UTC)),
    ],
)
def test_the_start_is_in_the_metadata(tmp_path: Path, text: str, start: datetime) -> None:
    assert read_trace(write(tmp_path, GOOD, start=text)).trace.start == start


TOKENS = "expected an integer from 0 to 10000000, found "
TIME = "column arrival_s: expected a number from 0 to 4.6e+09 [s], found "


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("arrival_s", None, f"{TIME}nothing"),
        ("arrival_s", float("nan"), f"{TIME}nan"),
        ("arrival_s", float("inf"), f"{TIME}inf"),
        ("arrival_s", -0.25, f"{TIME}-0.25"),
        ("arrival_s", 0.25, "time: expected one not before 0.5 s of row 2, found 0.25 s"),
        ("source", None, "column source: expected a name, found nothing"),
        ("source", "", "column source: expected a name, found ''"),
        ("input_tokens", None, f"column input_tokens: {TOKENS}nothing"),
        ("input_tokens", -1, f"column input_tokens: {TOKENS}-1"),
        ("output_tokens", 10_000_001, f"column output_tokens: {TOKENS}10000001"),
        ("output_tokens", 2**62, f"column output_tokens: {TOKENS}{2**62}"),
    ],
)
@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_a_bad_row_is_named_and_can_be_skipped(
    tmp_path: Path, column: str, value: object, message: str, chunk_rows: int
) -> None:
    columns = {name: list(values) for name, values in GOOD.items()}
    columns[column][2] = value
    path = write(tmp_path, columns)
    with pytest.raises(InputError) as caught:
        list(read_chunks(path, Reading(strict=True), chunk_rows=chunk_rows))
    assert caught.value.problems == (f"{path}: row 3, {message}",)
    read = read_trace(path, Reading(on_bad_row=OnBadRow.SKIP, strict=True))
    assert read.trace.arrival_s.tolist() == [0.0, 0.5, 2.0]
    assert (read.rows_in_file, read.rows_skipped, read.first_problems) == (4, 1, caught.value.problems)


def test_all_columns_that_do_not_fit_are_told(tmp_path: Path) -> None:
    columns = {**GOOD, "arrival_s": ["0"] * 4, "output_tokens": [True] * 4}
    path = write(tmp_path, columns, start="noon", arrival_s=pa.string(), output_tokens=pa.bool_())
    assert problems(path) == (
        "column arrival_s: expected a time or a number, found string",
        "column output_tokens: expected an integer type, found bool",
        "metadata tokenfleet.start: expected a time in ISO 8601, found 'noon'",
    )


def test_a_table_that_is_not_ours(tmp_path: Path) -> None:
    moment = datetime(2024, 5, 10, 12)
    table = pa.table(
        {
            "created_at": pa.array([moment, moment + timedelta(milliseconds=1500)], pa.timestamp("ms", "UTC")),
            "prompt_tokens": [1.0, 2.0],
            "completion_tokens": pa.array([3, None], pa.int64()),
        }
    )
    pq.write_table(table, tmp_path / "log_chat.parquet")
    read = read_trace(tmp_path / "log_chat.parquet", Reading(on_bad_row=OnBadRow.SKIP))
    assert (read.format, read.trace.sources, read.trace.start) == ("table", ("chat",), moment.replace(tzinfo=UTC))
    assert (read.trace.input_tokens.tolist(), read.trace.output_tokens.tolist()) == ([1], [3])
    message = "row 2, column completion_tokens: expected an integer from 0 to 10000000, found nothing"
    assert read.first_problems == (f"{tmp_path / 'log_chat.parquet'}: {message}",)


def test_no_row_and_no_good_row(tmp_path: Path) -> None:
    assert problems(write(tmp_path, {name: [] for name in GOOD})) == (
        "row 1: expected at least one row, found the end of the file",
    )
    path = write(tmp_path, {**{name: values[:1] for name, values in GOOD.items()}, "source": [None]})
    assert problems(path, on_bad_row=OnBadRow.SKIP) == (
        "expected at least one good row, found none",
        "row 1, column source: expected a name, found nothing",
    )


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path, {**GOOD, "source": [b"a", b"\xff", b"a", b"a"]}, source=pa.binary())
    assert problems(path) == ("column source: expected string, found binary",)
    path.write_bytes(write(tmp_path, GOOD).read_bytes().replace(b"conv", b"co\xffv"))
    assert problems(path) == ("column source: expected text in UTF-8",)


@pytest.mark.parametrize("keep", [4, 200, -1])
def test_a_file_that_is_cut(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, GOOD)
    path.write_bytes(path.read_bytes()[:keep])
    assert problems(path)[0].startswith("cannot be read as Parquet: ")


def trace(start: datetime | None = None) -> Trace:
    return Trace(
        sources=("conv",),
        start=start,
        arrival_s=np.array([0.0, 1.5]),
        source=np.zeros(2, dtype=np.int32),
        input_tokens=np.array([1, 2], dtype=np.int32),
        output_tokens=np.array([3, 4], dtype=np.int32),
    )


def test_chunks_are_row_groups_of_a_file_that_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trace.parquet"
    write_parquet(path, [trace(datetime(2024, 5, 10)), trace(datetime(2024, 5, 10))])
    assert pq.read_metadata(path).num_row_groups == 2
    assert [file.name for file in path.parent.iterdir()] == ["trace.parquet"]
    before = path.read_bytes()

    def interrupted():  # type: ignore[no-untyped-def]
        yield trace()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_parquet(path, interrupted())
    assert [file.name for file in path.parent.iterdir()] == ["trace.parquet"]
    assert path.read_bytes() == before


def test_no_chunk_is_a_file_without_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "none.parquet", [])
    assert problems(tmp_path / "none.parquet") == ("row 1: expected at least one row, found the end of the file",)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/trace.parquet: cannot be written: "):
        write_parquet(tmp_path / "file" / "trace.parquet", [trace()])


@pytest.mark.parametrize(
    ("values", "kind", "good"),
    [
        ([0, -(2**63), 2**63 - 1, 5 * 10**18], pa.int64(), 1),
        ([0, 2**64 - 1, 10**18], pa.uint64(), 1),
        ([0, 2**63 - 1, 2**62, -(2**62) + 1], pa.timestamp("ns"), 2),
        ([1.0, 1e300, float("nan"), float("inf")], pa.float64(), 1),
        ([3, 2], pa.int8(), 2),
    ],
)
def test_times_beyond_all_reason_are_bad_rows(tmp_path: Path, values: list[Any], kind: pa.DataType, good: int) -> None:
    columns = {
        "timestamp": pa.array(values, kind),
        "input_tokens": [1] * len(values),
        "output_tokens": [2] * len(values),
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    read = read_trace(tmp_path / "log.parquet", Reading(on_bad_row=OnBadRow.SKIP))
    assert (len(read.trace), read.rows_skipped) == (good, len(values) - good)
    assert (np.diff(read.trace.arrival_s) >= 0).all()
