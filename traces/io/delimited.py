"""Text tables with a header and a row per request, for the formats that are such tables.

A block of lines is read by Arrow if all of its rows are good. If not, lines that do not look plain are taken out of it
and read one by one: `_Table._row` is what decides, Arrow only makes it fast, and a test holds them equal.
"""

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]

from simulator.errors import InputError
from traces.io.columns import Columns
from traces.io.header import Header, fields_of, printable
from traces.io.lines import line_blocks
from traces.io.prefetch import prefetch
from traces.io.quoted import TableRows, table_rows
from traces.io.reader import MAX_TOKENS, Asked, BadRow, Block, default_source, is_name, short
from traces.io.times import EXPECTED_ANY, NS_LIMIT, TimeForm, TimeKind, form_of, parse_number, times_of_numbers

_ROW_BYTES = 45  # about
_FEW_LINES = 64  # are read one by one
_FORM_ROWS = 2**20
"""In so many rows there is a time, or the column is another."""

_MOMENT = rb"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?:[ T](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
_PLAIN_TIMES = {
    TimeKind.TEXT: _MOMENT + rb")?",
    TimeKind.ZONED_TEXT: _MOMENT + rb"(?:Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?))",
    TimeKind.EPOCH_INTEGER: rb"\d{1,18}",
    TimeKind.EPOCH_NUMBER: rb"\d{1,18}(?:\.\d*)?",
    TimeKind.RELATIVE: rb"\d{1,9}(?:\.\d*)?",
}
_Numbered = list[tuple[int, bytes]]


def delimited_blocks(path: Path, columns: Columns, header: Header, asked: Asked) -> Iterator[Block]:
    """The rows of a table whose columns are known.

    Raises
    ------
    InputError
        If there is no row at all.
    """
    lines = line_blocks(path, asked.rows * _ROW_BYTES)
    next(lines)
    first = []  # until it is seen how times are written
    table = _Table(path, columns, header, asked)
    blocks = table_rows(lines, header)
    for block in blocks:
        first.append(block)
        if table.learns_form(block) or block.numbers[0] > _FORM_ROWS:
            break
    if not first:
        raise InputError(f"{path}: line 2: expected at least one row after the header, found the end of the file")
    for raw in prefetch(partial(table.read, block) for block in itertools.chain(first, blocks)):
        yield table.named(raw)


@dataclass(slots=True)
class _Raw:
    """The good rows of some lines: times, sources by name, tokens, further columns; and the bad ones."""

    time: npt.NDArray[Any]
    source: pa.DictionaryArray | None
    tokens: list[npt.NDArray[np.int32]]
    numbers: npt.NDArray[np.int64] | Sequence[int]
    rows: int
    bad: list[BadRow]
    first_line: int
    data: bytes
    lines: list[bytes] | None = None  # of `data`, once they are asked for


class _Table:
    """Reads lines; what it knows of the file does not change, but for the names of the sources."""

    def __init__(self, path: Path, columns: Columns, header: Header, asked: Asked) -> None:
        self._columns = columns
        self._header = header
        self._source = columns.source if asked.source is None else None
        self._names: dict[str, int] = {} if self._source else {asked.source or default_source(path): 0}
        self._counts = (columns.input_tokens, columns.output_tokens, *columns.extras.values())
        self._at = {name: header.names.index(name) for name in columns.names()}
        self._form: TimeForm | None = None

    def learns_form(self, block: TableRows) -> bool:
        """Take how times are written from the first row that has one; whether there is one in some lines."""
        at = self._at[self._columns.time]
        for line in io.BytesIO(block.data) if block.rows is None else block.rows:
            fields = self._fields(_text(line.removesuffix(b"\n")))
            if fields is not None:
                self._form = form_of(fields[at], self._columns.time_unit)
                if self._form is not None:
                    return True
        return False

    def named(self, raw: _Raw) -> Block:
        """The block, with its sources numbered."""
        count = len(raw.time)
        if raw.source is None:
            source = np.zeros(count, dtype=np.int32)
        else:
            words = raw.source.dictionary.to_pylist()
            first = pc.unique(raw.source.indices).to_pylist()  # in the order of first rows
            for index in first:
                self._names.setdefault(words[index], len(self._names))
            number = np.array([self._names.get(word, -1) for word in words], dtype=np.int32)
            source = number[_array(raw.source.indices)] if count else np.zeros(0, dtype=np.int32)
        inputs, outputs, *extras = raw.tokens
        return Block(
            time=raw.time,
            sources=tuple(self._names),
            source=source,
            input_tokens=inputs,
            output_tokens=outputs,
            extras=dict(zip(self._columns.extras, extras, strict=True)),
            rows=raw.rows,
            bad=raw.bad,
            row_of=lambda index: (number := int(raw.numbers[index]), _line(raw, number)),
            zoned=self._form is not None and self._form.kind is TimeKind.ZONED_TEXT,
        )

    def read(self, block: TableRows) -> _Raw:
        """Read some rows, some of which may be bad."""
        numbers, data, _ = block
        broken = block.rows is not None
        fast = self._fast(numbers, data, broken=broken)
        if fast is not None:
            return fast
        numbered = list(zip(numbers, block.each(), strict=True))
        if len(numbers) > _FEW_LINES and self._form is not None:
            plain, odd = self._told_apart(numbered, self._form)
            if plain:
                text = b"\n".join(line for _, line in plain)
                fast = self._fast([number for number, _ in plain], text, broken=broken)
            if fast is not None:
                return self._joined(fast, self._slow(odd), block)
        return replace(self._slow(numbered), first_line=numbers[0], data=data)

    def _told_apart(self, numbered: _Numbered, form: TimeForm) -> tuple[_Numbered, _Numbered]:
        """Lines that are good as far as their letters tell, and the others."""
        delimiter = re.escape(self._header.delimiter.encode())
        kinds = {self._source: rb'[^"\r\x80-\xff' + delimiter + rb"]+", self._columns.time: _PLAIN_TIMES[form.kind]}
        kinds |= dict.fromkeys(self._counts, rb"\d{1,7}(?:\.0*)?")
        fields = [kinds.get(name, rb'[^"\r' + delimiter + rb"]*") for name in self._header.names]
        is_plain = re.compile(delimiter.join(b'(?:%b|"%b")' % (field, field) for field in fields) + rb"\r?").fullmatch
        plain: _Numbered = []
        odd: _Numbered = []
        for line in numbered:
            (plain if is_plain(line[1]) else odd).append(line)
        return plain, odd

    def _joined(self, first: _Raw, second: _Raw, block: TableRows) -> _Raw:
        """Two sets of rows of some lines as one, in the order of the lines."""
        numbers = np.concatenate([np.asarray(raw.numbers, dtype=np.int64) for raw in (first, second)])
        order = np.argsort(numbers, kind="stable")
        source = None
        if self._source:
            chunks = pa.chunked_array([first.source, second.source]).unify_dictionaries()
            source = pa.concat_arrays(chunks.chunks).take(pa.array(order))
        tokens = zip(first.tokens, second.tokens, strict=True)
        return _Raw(
            time=np.concatenate([first.time, second.time])[order],
            source=source,
            tokens=[np.concatenate(columns)[order] for columns in tokens],
            numbers=numbers[order],
            rows=len(block.numbers),
            bad=second.bad,
            first_line=block.numbers[0],
            data=block.data,
        )

    # -- all rows good: by Arrow ---------------------------------------------------------------------------

    def _fast(self, numbers: Sequence[int], data: bytes, *, broken: bool) -> _Raw | None:
        """The rows if all are good; `broken` if some have line breaks in quotes."""
        form = self._form
        if form is None or self._has_oddities(data):
            return None
        kinds = {self._columns.time: _arrow_time(form)}
        if self._source:
            kinds[self._source] = pa.dictionary(pa.int32(), pa.string())
        for count in (pa.int32(), pa.float64()):  # counts as numbers with a point are rare: tried second
            kinds |= dict.fromkeys(self._counts, count)
            try:
                table = pyarrow.csv.read_csv(
                    pa.BufferReader(data),
                    read_options=pyarrow.csv.ReadOptions(
                        use_threads=False,
                        block_size=len(data) + 1,
                        column_names=[str(k) for k in range(len(self._header.names))],
                    ),
                    parse_options=pyarrow.csv.ParseOptions(
                        delimiter=self._header.delimiter, ignore_empty_lines=False, newlines_in_values=broken
                    ),
                    convert_options=pyarrow.csv.ConvertOptions(
                        column_types={str(self._at[name]): kind for name, kind in kinds.items()},
                        include_columns=[str(self._at[name]) for name in kinds],
                        null_values=[],
                        strings_can_be_null=False,
                    ),
                )
            except pa.ArrowInvalid:
                continue
            return self._checked(table, form, numbers, data) if table.num_rows == len(numbers) else None
        return None

    def _has_oddities(self, data: bytes) -> bool:
        """Whether there may be what Arrow takes for something else. A single byte is found much faster than two."""
        if (b"x" in data and b"0x" in data) or (b"X" in data and b"0X" in data):
            return True  # a number like 0x1F, which Arrow reads
        if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
            return True  # a line end to Arrow
        return b'"' in data and not _quotes_are_regular(data, self._header.delimiter)

    def _checked(self, table: pa.Table, form: TimeForm, numbers: Sequence[int], data: bytes) -> _Raw | None:
        def column(name: str) -> pa.Array:
            chunks = table[str(self._at[name])]
            return chunks.chunk(0) if chunks.num_chunks == 1 else pa.concat_arrays(chunks.unify_dictionaries().chunks)

        time = _times(column(self._columns.time), form)
        tokens = [_counts(column(name)) for name in self._counts]
        if time is None or any(count is None for count in tokens):
            return None
        source = column(self._source) if self._source else None
        if source is not None and "" in source.dictionary.to_pylist():
            return None
        return _Raw(
            time=time,
            source=source,
            tokens=[count for count in tokens if count is not None],
            numbers=numbers,
            rows=table.num_rows,
            bad=[],
            first_line=numbers[0],
            data=data,
        )

    # -- row by row ----------------------------------------------------------------------------------------

    def _slow(self, numbered: _Numbered) -> _Raw:
        good: list[tuple[int, int | float, str, list[int]]] = []
        bad: list[BadRow] = []
        for number, line in numbered:
            text = _text(line)
            row = self._row(text)
            if isinstance(row, str):
                bad.append(BadRow(number, f"line {number}{row}", printable(text)))
            else:
                good.append((number, *row))
        relative = self._form is not None and self._form.kind is TimeKind.RELATIVE
        tokens = np.array([row[3] for row in good], dtype=np.int32).reshape(len(good), len(self._counts))
        return _Raw(
            time=np.array([row[1] for row in good], dtype=np.float64 if relative else np.int64),
            source=pa.array([row[2] for row in good], pa.string()).dictionary_encode() if self._source else None,
            tokens=[np.ascontiguousarray(tokens[:, k]) for k in range(len(self._counts))],
            numbers=np.array([row[0] for row in good], dtype=np.int64),
            rows=len(numbered),
            bad=bad,
            first_line=0,
            data=b"",
        )

    def _row(self, text: str) -> tuple[int | float, str, list[int]] | str:
        """Time, source and counts of a row, or what is wrong with it."""
        fields = self._fields(text)
        if fields is None:
            return self._no_fields(text)
        field = fields[self._at[self._columns.time]]
        time = self._form.parse(field) if self._form else None
        if time is None:
            wanted = self._form.expected if self._form else EXPECTED_ANY
            return f", column {self._columns.time}: expected {wanted}, found {short(printable(field))}"
        source = fields[self._at[self._source]] if self._source else "-"
        if not is_name(source):
            return f", column {self._source}: expected a name, found {short(printable(source))}"
        counts = []
        for name in self._counts:
            field = fields[self._at[name]]
            value = parse_number(field)
            if value is None or not (0 <= value <= MAX_TOKENS and value.is_integer()):
                wanted = f"an integer from 0 to {MAX_TOKENS}"
                return f", column {name}: expected {wanted}, found {short(printable(field))}"
            counts.append(int(value))
        return time, source, counts

    def _no_fields(self, text: str) -> str:
        """What is wrong with a row that has not the fields of the header."""
        names = self._header.names
        fields = fields_of(text, self._header.delimiter)
        if fields is not None:
            found = f"{len(fields)} in {short(printable(text))}" if text else "an empty line"
        else:
            found = f"a line end or a quote within {short(printable(text))}"
        return f": expected {len(names)} fields ({short(self._header.delimiter.join(names))[1:-1]}), found {found}"

    def _fields(self, text: str) -> list[str] | None:
        """The fields of a row, None if they are not as many as those of the header."""
        fields = fields_of(text, self._header.delimiter)
        return fields if fields is not None and len(fields) == len(self._header.names) else None


def _arrow_time(form: TimeForm) -> pa.DataType:
    if form.kind is TimeKind.TEXT:
        return pa.timestamp("ns")
    if form.kind is TimeKind.ZONED_TEXT:
        return pa.timestamp("ns", "UTC")
    return pa.int64() if form.kind is TimeKind.EPOCH_INTEGER else pa.float64()


def _quotes_are_regular(data: bytes, delimiter: str) -> bool:
    """Whether quotes stand around whole fields or doubled within them: what else there may be Arrow reads anyhow."""
    data = b"\n" + data + b"\n"
    letters = np.frombuffer(data, dtype=np.uint8)
    at = np.flatnonzero(letters == ord('"'))
    before, after = letters[at[::2] - 1], letters[at[1::2] + 1]
    ends = list(b'\n"' + delimiter.encode())
    return len(at) % 2 == 0 and bool(np.isin(before, ends).all() and np.isin(after, [*ends, ord("\r")]).all())


def _times(column: pa.Array, form: TimeForm) -> npt.NDArray[Any] | None:
    """Times of good rows, None if one is bad."""
    if form.kind in (TimeKind.TEXT, TimeKind.ZONED_TEXT):
        time_ns = _array(column.view(pa.int64()))
        return time_ns if not len(time_ns) or (time_ns.min() > -NS_LIMIT and time_ns.max() < NS_LIMIT) else None
    times, good = times_of_numbers(_array(column), form)
    return times if good.all() else None


def _counts(column: pa.Array) -> npt.NDArray[np.int32] | None:
    """Counts of good rows, None if one is bad."""
    values = _array(column)
    if len(values) and not (values.min() >= 0 and values.max() <= MAX_TOKENS):
        return None
    whole: npt.NDArray[np.int32] = values.astype(np.int32, copy=False)
    return whole if values.dtype == np.int32 or bool((whole == values).all()) else None


def _array(column: pa.Array) -> npt.NDArray[Any]:
    """A column without nulls. Not by `to_numpy`: that would import pandas."""
    return np.from_dlpack(column)


def _text(line: bytes) -> str:
    return line.decode(errors="surrogateescape").removesuffix("\r")


def _line(raw: _Raw, number: int) -> str:
    if raw.lines is None:
        raw.lines = raw.data.split(b"\n")
    return printable(_text(raw.lines[number - raw.first_line]))
