"""Rows of a text table of which some may go over several lines, where a field in quotes has line breaks.

A row is a line, unless a quote that opens in it is closed in a later one and the lines together have the fields of the
header: what decides are the lines themselves, not where a block of them ends. So a stray quote spoils its line alone.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from traces.io.header import Header, fields_of
from traces.io.lines import Lines

MAX_ROW_BYTES = 2**20
"""How far the end of a quote is looked for."""


class TableRows(NamedTuple):
    """Successive rows: the lines that they begin in, all as they stand, and each alone if one is several lines."""

    numbers: Sequence[int]
    data: bytes
    rows: list[bytes] | None = None

    def each(self) -> list[bytes]:
        """The rows without their ends."""
        return self.data.removesuffix(b"\n").split(b"\n") if self.rows is None else self.rows


def table_rows(blocks: Iterator[Lines], header: Header) -> Iterator[TableRows]:
    """The rows of some lines, a block at a time."""
    held = b""  # lines whose row is not known to end
    first = 0
    for block in blocks:
        if not held and b'"' not in block.data:
            yield TableRows(range(block.first, block.first + block.rows), block.data)
            continue
        first = first if held else block.first
        rows, held = _rows(first, held + block.data, header, last=False)
        yield from rows
        first = block.first + block.rows - _lines_in(held)
    if held:
        yield from _rows(first, held, header, last=True)[0]


def _rows(first: int, data: bytes, header: Header, *, last: bool) -> tuple[list[TableRows], bytes]:
    """The rows of some lines, none or all at once, and the lines at the end that the next ones are needed for."""
    odd = _with_odd_quotes(data) if b'"' in data else []
    lines = data.removesuffix(b"\n").split(b"\n") if odd else []
    ends: dict[int, int] = {}  # of rows of several lines, by where they begin
    at = 0
    for index, place in enumerate(odd):
        if place < at or _is_row(lines[place], header):
            continue
        following = odd[index + 1] if index + 1 < len(odd) else None
        if following is None and not last:
            rest = b"\n".join(lines[place:]) + b"\n" * data.endswith(b"\n")
            if len(rest) < MAX_ROW_BYTES:
                data, lines = data[: len(data) - len(rest)], lines[:place]
                return _made(first, data, lines, ends), rest
        if following is not None:
            row = b"\n".join(lines[place : following + 1])
            if len(row) < MAX_ROW_BYTES and _is_row(row, header):
                at = ends[place] = following + 1
    return _made(first, data, lines, ends), b""


def _made(first: int, data: bytes, lines: list[bytes], ends: dict[int, int]) -> list[TableRows]:
    if not data:
        return []
    if not ends:
        return [TableRows(range(first, first + _lines_in(data)), data)]
    starts, at = [], 0
    while at < len(lines):
        starts.append(at)
        at = ends.get(at, at + 1)
    rows = [b"\n".join(lines[start : ends.get(start, start + 1)]) for start in starts]
    return [TableRows([first + start for start in starts], data, rows)]


def _lines_in(data: bytes) -> int:
    return data.count(b"\n") + (data != b"" and not data.endswith(b"\n"))


def _with_odd_quotes(data: bytes) -> list[int]:
    """The lines, counting from zero, with an odd number of quotes: no other opens one that it does not close."""
    letters = np.frombuffer(data, dtype=np.uint8)
    ends = letters[(letters == ord('"')) | (letters == ord("\n"))] == ord("\n")
    quotes = np.diff(np.flatnonzero(ends), prepend=-1, append=len(ends)) - 1
    odd: list[int] = np.flatnonzero(quotes % 2).tolist()
    return odd


def _is_row(text: bytes, header: Header) -> bool:
    fields = fields_of(text.decode(errors="surrogateescape").removesuffix("\r"), header.delimiter)
    return fields is not None and len(fields) == len(header.names)
