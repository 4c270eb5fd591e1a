"""The trace format of tokenfleet: a Parquet file with a row per request.

Columns: `arrival_s` (seconds, never decreasing), `source`, `input_tokens` and `output_tokens`; others are ignored. The
metadata `tokenfleet.start` of the file, if there, is the wall-clock time of `arrival_s` zero in ISO 8601.
"""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from simulator.errors import InputError
from simulator.workload import Trace
from traces.reader import MAX_PROBLEMS, MAX_TOKENS, Block

_MAGIC = b"PAR1"
_START = b"tokenfleet.start"
_READ_BYTES = 2**16
_NAMES_ROWS = 2**17


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


_TYPES: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "arrival_s": ("double", pa.types.is_float64),
    "source": ("string", _is_text),
    "input_tokens": ("an integer type", pa.types.is_integer),
    "output_tokens": ("an integer type", pa.types.is_integer),
}
COLUMNS = tuple(_TYPES)
_VALUES = {
    "arrival_s": "a finite number from 0",
    "source": "a name",
    "input_tokens": f"an integer from 0 to {MAX_TOKENS}",
    "output_tokens": f"an integer from 0 to {MAX_TOKENS}",
}
_SCHEMA = pa.schema(
    {
        "arrival_s": pa.float64(),
        "source": pa.dictionary(pa.int32(), pa.string()),
        "input_tokens": pa.int32(),
        "output_tokens": pa.int32(),
    }
)


def recognises(head: bytes) -> bool:
    """Whether the file is a Parquet file; wrong columns are then worth a message."""
    return head.startswith(_MAGIC)


def blocks(path: Path, *, source: str | None, rows: int) -> Iterator[Block]:
    """Read a file a batch of rows at a time.

    Sources are numbered in the order of their first rows, which a pass over that column alone tells beforehand.

    See `traces.reader.Reader.blocks` for the contract.
    """
    try:
        start = _start(path, pq.read_schema(path))
        with pq.ParquetFile(path, read_dictionary=["source"], pre_buffer=False, buffer_size=_READ_BYTES) as file:
            yield from _blocks(path, file, rows, start, _sources(file), source)
    except UnicodeDecodeError:
        raise InputError(f"{path}: column source: expected text in UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def write_parquet(path: Path, chunks: Iterable[Trace]) -> None:
    """Write a trace, a row group per chunk: whole or not at all, under a temporary name that is then changed.

    Parameters
    ----------
    chunks
        Successive parts of one trace, with the same `start`.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    parts = iter(chunks)
    first = next(parts, None)
    metadata = {_START: first.start.isoformat()} if first is not None and first.start is not None else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with (
            os.fdopen(handle, "wb") as file,
            pq.ParquetWriter(file, _SCHEMA.with_metadata(metadata), use_dictionary=list(COLUMNS[1:])) as writer,
        ):
            for chunk in () if first is None else itertools.chain([first], parts):
                writer.write_batch(_batch(chunk))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def _batch(chunk: Trace) -> pa.RecordBatch:
    source = pa.DictionaryArray.from_arrays(pa.array(chunk.source), pa.array(chunk.sources, pa.string()))
    return pa.RecordBatch.from_arrays(
        [pa.array(chunk.arrival_s), source, pa.array(chunk.input_tokens), pa.array(chunk.output_tokens)],
        names=list(COLUMNS),
    )


def _start(path: Path, schema: pa.Schema) -> datetime | None:
    """The start that the file states, once its columns have been checked."""
    problems = []
    for column, (expected, fits) in _TYPES.items():
        found = schema.names.count(column)
        if found != 1:
            problems.append(f"{path}: column {column}: expected one of this name, found {found or 'none'}")
        elif not fits(schema.field(column).type):
            problems.append(f"{path}: column {column}: expected {expected}, found {schema.field(column).type}")
    stated = (schema.metadata or {}).get(_START)
    text = None if stated is None else stated.decode(errors="replace")
    try:
        start = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        problems.append(f"{path}: metadata {_START.decode()}: expected a time in ISO 8601, found {text!r}")
    if problems:
        raise InputError(problems)
    return start


def _sources(file: pq.ParquetFile) -> tuple[str, ...]:
    """The names of the sources in the order of their first rows."""
    names: dict[str | None, None] = {}
    for batch in file.iter_batches(batch_size=_NAMES_ROWS, columns=["source"], use_threads=False):
        names |= dict.fromkeys(batch["source"].unique().to_pylist())
    return tuple(name for name in names if name)


def _blocks(
    path: Path, file: pq.ParquetFile, rows: int, start: datetime | None, names: tuple[str, ...], given: str | None
) -> Iterator[Block]:
    last = _Row(0, 0.0)
    first_row = 1
    for batch in file.iter_batches(batch_size=rows, columns=list(COLUMNS), use_threads=False):
        columns, fine = _columns(batch, names)
        time_s = columns["arrival_s"]
        good = np.flatnonzero(np.logical_and.reduce(list(fine.values())))
        # Compared with the latest time so far: a row that goes back does not become the measure of the next one.
        good = good[time_s[good] == np.maximum(np.maximum.accumulate(time_s[good]), last.arrival_s)]
        bad = np.setdiff1d(np.arange(len(batch)), good, assume_unique=True)
        problems = []
        for index in bad[:MAX_PROBLEMS].tolist():
            wrong = next((name for name in COLUMNS if not fine[name][index]), None)
            if wrong is None:  # good by itself: it goes back in time behind the last good row before it
                at = int(np.searchsorted(good, index)) - 1
                previous = _Row(first_row + int(good[at]), float(time_s[good[at]])) if at >= 0 else last
                wanted = f"a time not before {previous.arrival_s} of row {previous.number}"
                problem = _problem(batch, index, "arrival_s", wanted)
            else:
                problem = _problem(batch, index, wrong, _VALUES[wrong])
            problems.append(f"{path}: row {first_row + index}, {problem}")
        if len(good):
            last = _Row(first_row + int(good[-1]), float(time_s[good[-1]]))
        first_row += len(batch)
        yield Block(
            trace=Trace(
                sources=names if given is None else (given,),
                start=start,
                arrival_s=time_s[good],
                source=columns["source"][good] if given is None else np.zeros(len(good), dtype=np.int32),
                input_tokens=columns["input_tokens"][good].astype(np.int32),
                output_tokens=columns["output_tokens"][good].astype(np.int32),
            ),
            rows=len(batch),
            first_problems=tuple(problems),
        )
    if first_row == 1:
        raise InputError(f"{path}: row 1: expected at least one row, found the end of the file")


def _problem(batch: pa.RecordBatch, index: int, column: str, wanted: str) -> str:
    value = batch[column][index].as_py()
    return f"column {column}: expected {wanted}, found {'nothing' if value is None else repr(value)}"


class _Row(NamedTuple):
    """Where and when the last good row was."""

    number: int
    arrival_s: float


def _columns(
    batch: pa.RecordBatch, names: tuple[str, ...]
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[np.bool_]]]:
    """The values of each column, of the source its index in `names`, and which of them are good by themselves."""
    columns, fine = {}, {}
    for name in COLUMNS:
        column = batch[name]
        if name == "source":
            text, column = column.dictionary.to_pylist(), column.indices
            # One entry more, for rows without a source.
            number = np.array([names.index(word) if word in names else -1 for word in [*text, None]], dtype=np.int32)
            columns[name] = number[np.from_dlpack(column.cast(pa.int64()).fill_null(len(text)))]
            fine[name] = columns[name] >= 0
        else:
            present = np.from_dlpack(column.is_valid().cast(pa.uint8())).astype(np.bool_)
            columns[name] = value = np.from_dlpack(column.fill_null(0))
            most = MAX_TOKENS if name != "arrival_s" else np.finfo(np.float64).max
            fine[name] = present & (value >= 0) & (value <= most)
    return columns, fine
