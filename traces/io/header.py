"""The first line of a text table, and how any of its lines falls into fields."""

import csv
from dataclasses import dataclass
from pathlib import Path

from traces.io.lines import MAX_LINE_BYTES, check_utf8

_DELIMITERS = ",\t;|"

csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # Arrow has none


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a file."""

    names: tuple[str, ...]
    delimiter: str


def header_of(head: bytes, path: Path) -> Header:
    """The names of the columns, and what is between them: the most frequent of comma, tabulator, semicolon and bar."""
    check_utf8(path, head, final=b"\n" in head)
    line = head.partition(b"\n")[0].decode(errors="replace").removesuffix("\r")
    delimiter = max(_DELIMITERS, key=line.count)
    return Header(tuple(name.strip() for name in fields_of(line, delimiter) or ()), delimiter)


def fields_of(text: str, delimiter: str) -> list[str] | None:
    """The fields of a line, None if it is not one line of fields."""
    try:
        rows = list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else []


def printable(text: str) -> str:
    """Bytes that are no UTF-8 as they are shown in messages."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
