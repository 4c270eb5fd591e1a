"""Parquet files: the trace format of tokenfleet, and any table with a row per request.

The format of tokenfleet has the columns `arrival_s` (seconds, never decreasing), `source`, `input_tokens` and
`output_tokens`, and further ones as in `simulator.workload.Trace.extras`; others are ignored. The metadata
`tokenfleet.start` of the file, if there, is the wall-clock time of `arrival_s` zero in ISO 8601.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from simulator.errors import InputError
from simulator.workload import Trace
from traces.io.atomic_write import atomic_write
from traces.io.columns import EXTRAS, Columns, find_columns
from traces.io.doubts import doubted
from traces.io.lines import is_packed
from traces.io.reader import MAX_TOKENS, Asked, BadRow, Block, default_source
from traces.io.times import NS_LIMIT, NS_PER_UNIT, TimeForm, TimeKind, form_of, times_of_numbers

MAGIC = b"PAR1"
COLUMNS = ("arrival_s", "source", "input_tokens", "output_tokens")
_START = b"tokenfleet.start"
_READ_BYTES = 2**16

_SCHEMA = {
    "arrival_s": pa.float64(),
    "source": pa.dictionary(pa.int32(), pa.string()),
    "input_tokens": pa.int32(),
    "output_tokens": pa.int32(),
}
_OWN = Columns(
    time="arrival_s", input_tokens="input_tokens", output_tokens="output_tokens", source="source", time_unit="s"
)


class Parquet:
    """The format of tokenfleet: a `traces.io.reader.Reader`."""

    unit = "row"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it is a Parquet file with the four columns."""
        if not head.startswith(MAGIC):
            return False
        try:
            return set(COLUMNS).issubset(pq.read_schema(path).names)
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            return True  # to be read, and said what is wrong with it

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        yield from parquet_blocks(path, asked, own=True)


READER = Parquet()


def parquet_blocks(path: Path, asked: Asked, *, own: bool) -> Iterator[Block]:
    """Read a Parquet file a batch of rows at a time.

    Parameters
    ----------
    own
        Whether it is of the format of tokenfleet. If not, columns are found by `asked` and by their names.
    """
    try:
        schema = pq.read_schema(path)
        names = list(schema.names)
        extras = {name: name for name in EXTRAS if name in names}
        columns = replace(_OWN, extras=extras) if own else find_columns(names, asked, path, "schema")
        start = _start(path, schema, columns)
        # As a dictionary a column of names takes little memory, and is read faster.
        text = [columns.source] if columns.source in names else []
        with pq.ParquetFile(path, read_dictionary=text, pre_buffer=False, buffer_size=_READ_BYTES) as file:
            blocks = _Batches(path, columns, schema, asked, start).blocks(file)
            yield from blocks if columns.time_unit else doubted(blocks, path, asked, "s")
    except UnicodeDecodeError:
        raise InputError(f"{path}: column source: expected text in UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        if is_packed(path):
            reason = "it is packed, which Parquet files are in themselves: unpack it"
        raise InputError(f"{path}: cannot be read as Parquet: {reason}") from None


def write_parquet(path: Path, chunks: Iterable[Trace]) -> None:
    """Write a trace, a row group per chunk: whole or not at all.

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
    extras = () if first is None else sorted(first.extras)
    schema = pa.schema(_SCHEMA | dict.fromkeys(extras, pa.int32()))
    metadata = {_START: first.start.isoformat()} if first is not None and first.start is not None else None
    with (
        atomic_write(path) as file,
        pq.ParquetWriter(file, schema.with_metadata(metadata), use_dictionary=schema.names[1:]) as writer,
    ):
        for chunk in () if first is None else itertools.chain([first], parts):
            writer.write_batch(record_batch(chunk))


def record_batch(chunk: Trace) -> pa.RecordBatch:
    """The requests as an Arrow table, over the same memory where that can be."""
    source = pa.DictionaryArray.from_arrays(pa.array(chunk.source), pa.array(chunk.sources, pa.string()))
    return pa.RecordBatch.from_arrays(
        [
            *(pa.array(chunk.arrival_s), source, pa.array(chunk.input_tokens), pa.array(chunk.output_tokens)),
            *(pa.array(chunk.extras[name]) for name in sorted(chunk.extras)),
        ],
        names=[*COLUMNS, *sorted(chunk.extras)],
    )


def _start(path: Path, schema: pa.Schema, columns: Columns) -> datetime | None:
    """The start that the file states, once its columns have been checked."""
    problems = []
    wanted: list[tuple[str | None, str, Callable[[pa.DataType], bool]]] = [
        (columns.time, "a time or a number", _is_time),
        (columns.source, "string", _is_text),
        *((name, "an integer type", _is_number) for name in (columns.input_tokens, columns.output_tokens)),
        *((name, "an integer type", _is_number) for name in columns.extras.values()),
    ]
    for column, expected, fits in wanted:
        if column is None:
            continue
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


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_time(kind: pa.DataType) -> bool:
    return _is_number(kind) or bool(pa.types.is_timestamp(kind))


class _Batches:
    """Reads the batches of one file."""

    def __init__(self, path: Path, columns: Columns, schema: pa.Schema, asked: Asked, start: datetime | None) -> None:
        self._columns = columns
        self._start = start
        self._kind = schema.field(columns.time).type
        self._form: TimeForm | None = None
        self._rows = asked.rows
        self._path = path
        self._source = columns.source if asked.source is None else None
        self._names: dict[str, int] = {} if self._source else {asked.source or default_source(path): 0}

    def blocks(self, file: pq.ParquetFile) -> Iterator[Block]:
        first_row = 1
        read = list(dict.fromkeys(self._columns.names()))
        for batch in file.iter_batches(batch_size=self._rows, columns=read, use_threads=False):
            yield self._block(batch, first_row)
            first_row += len(batch)
        if first_row == 1:
            raise InputError(f"{self._path}: row 1: expected at least one row, found the end of the file")

    def _block(self, batch: pa.RecordBatch, first_row: int) -> Block:
        columns = self._columns
        checks = {columns.time: (*self._times(batch[columns.time]), self._expected_time())}
        if self._source is not None:
            checks[self._source] = (*self._sources(batch[self._source]), "a name")
        for name in (columns.input_tokens, columns.output_tokens, *columns.extras.values()):
            checks[name] = (*_counts(batch[name]), f"an integer from 0 to {MAX_TOKENS}")
        fine = np.logical_and.reduce([good for _, good, _ in checks.values()])
        kept = np.flatnonzero(fine)
        bad = []
        for index in np.flatnonzero(~fine).tolist():
            name, wanted = next((name, wanted) for name, (_, good, wanted) in checks.items() if not good[index])
            value = batch[name][index]
            found = repr(_plain(value)) if value.is_valid else "nothing"
            number = first_row + index
            problem = f"row {number}, column {name}: expected {wanted}, found {found}"
            bad.append(BadRow(number, problem, _row_text(batch, index)))

        def counts(name: str) -> npt.NDArray[np.int32]:
            whole: npt.NDArray[np.int32] = checks[name][0][kept].astype(np.int32)
            return whole

        source = np.zeros(len(kept), dtype=np.int32) if self._source is None else checks[self._source][0][kept]
        rows = kept + first_row
        return Block(
            time=checks[columns.time][0][kept],
            sources=tuple(self._names),
            source=source,
            input_tokens=counts(columns.input_tokens),
            output_tokens=counts(columns.output_tokens),
            extras={role: counts(name) for role, name in columns.extras.items()},
            rows=len(batch),
            bad=bad,
            row_of=lambda index: (int(rows[index]), _row_text(batch, int(kept[index]))),
            zoned=pa.types.is_timestamp(self._kind) and self._kind.tz is not None,
            start=self._start,
        )

    def _sources(self, column: pa.DictionaryArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """The number of each source, in the order of first rows."""
        if not isinstance(column, pa.DictionaryArray):
            column = column.dictionary_encode()
        words, indices = column.dictionary.to_pylist(), column.indices
        for index in pc.unique(indices).to_pylist():
            if index is not None and words[index]:
                self._names.setdefault(words[index], len(self._names))
        # One entry more, for rows without a source.
        number = np.array([self._names.get(word, -1) if word else -1 for word in [*words, None]], dtype=np.int32)
        found = number[np.from_dlpack(indices.cast(pa.int64()).fill_null(len(words)))]
        return found, found >= 0

    def _times(self, column: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Times as in `traces.io.reader.Block`, and which of them are good."""
        present = _present(column)
        if pa.types.is_timestamp(column.type):
            factor = NS_PER_UNIT[column.type.unit]
            stamp = np.from_dlpack(column.view(pa.int64()).fill_null(0))
            limit = -(-NS_LIMIT // factor)
            good = present & (stamp > -limit) & (stamp < limit)
            return np.where(good, stamp, 0) * factor, good
        value: npt.NDArray[Any] = _values(column)
        form = self._form_of(value[present])
        if form is None:
            return np.zeros(len(value), dtype=np.int64), np.zeros(len(value), dtype=np.bool_)
        times, good = times_of_numbers(value, form)
        return times, present & good

    def _form_of(self, value: npt.NDArray[Any]) -> TimeForm | None:
        """What numbers mean: as the first good one says, in the format of tokenfleet always seconds."""
        if self._form is None:
            if self._columns is _OWN or self._columns == replace(_OWN, extras=self._columns.extras):
                self._form = TimeForm(TimeKind.RELATIVE, "s")
            else:
                known = (form_of(str(number), self._columns.time_unit) for number in value.tolist())
                self._form = next((form for form in known if form is not None), None)
        return self._form

    def _expected_time(self) -> str:
        if pa.types.is_timestamp(self._kind):
            return "a time"
        return "a number that can be a time" if self._form is None else self._form.expected


def _counts(column: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    value = _values(column)
    good = _present(column) & (value >= 0) & (value <= MAX_TOKENS)
    if np.issubdtype(value.dtype, np.floating):
        good &= np.where(good, value, 0.5) % 1 == 0
    return np.where(good, value, 0), good


def _values(column: pa.Array) -> npt.NDArray[Any]:
    """The numbers of a column, zero where there is none; those with a point as float64."""
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    return np.from_dlpack(column.fill_null(0))


def _present(column: pa.Array) -> npt.NDArray[np.bool_]:
    return np.from_dlpack(column.is_valid().cast(pa.uint8())).astype(np.bool_)


def _row_text(batch: pa.RecordBatch, index: int) -> str:
    return ",".join(f"{name}={_plain(batch[name][index])}" for name in batch.schema.names)


def _plain(value: pa.Scalar) -> Any:
    """A value for messages; times as text, since not every time of Parquet is one of Python."""
    return (value.cast(pa.string()) if pa.types.is_timestamp(value.type) else value).as_py()
