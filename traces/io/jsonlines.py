"""JSON lines: an object per request; columns by their names or as the user says."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.columns import EXTRAS, Columns, find_columns, has_columns
from traces.io.lines import head, line_blocks
from traces.io.reader import HEAD_BYTES, Asked, Block, short
from traces.io.rows import Rows, in_blocks

_BLOCK_BYTES = 2**20
Extra = Callable[[dict[str, Any]], dict[str, int]]


class JsonLines:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "line"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether the first object has keys for time, input tokens and output tokens."""
        first = first_object(path) if head.startswith(b"{") else None
        return first is not None and has_columns(list(first))

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        first = first_object(path)
        if first is None:
            found = head(path, HEAD_BYTES).partition(b"\n")[0].decode(errors="backslashreplace")
            raise InputError(f"{path}: line 1: expected a JSON object, found {short(found)}")
        yield from json_blocks(path, asked, find_columns(list(first), asked.columns, path, "line 1"))


READER = JsonLines()


def first_object(path: Path) -> dict[str, Any] | None:
    """The first line of a file that is an object, if one of the first lines is."""
    blocks = itertools.islice(line_blocks(path, HEAD_BYTES), 2)  # the first line, however long, and some more
    values = (_object(line) for block in blocks for line in block.data.split(b"\n"))
    return next((value for value in values if value is not None), None)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def json_blocks(
    path: Path, asked: Asked, columns: Columns, extra: Extra | None = None, extras: tuple[str, ...] = ()
) -> Iterator[Block]:
    """The rows of a file whose keys are known.

    Parameters
    ----------
    extra
        Makes further columns, whose names are `extras`, from an object; it gets the objects of the good rows in order.
    """
    names = {"arrival_s": columns.time, "input_tokens": columns.input_tokens, "output_tokens": columns.output_tokens}
    names |= {role: name for role, name in columns.extras.items() if role in EXTRAS}
    if columns.source is not None:
        names["source"] = columns.source
    further = tuple(columns.extras)
    rows = Rows(path, asked, unit="line", time_unit=columns.time_unit, extras=(*further, *extras))

    def read() -> Iterator[None]:
        for first_line, _, data in line_blocks(path, _BLOCK_BYTES):
            lines = data.removesuffix(b"\n").split(b"\n")
            for number, line in enumerate(lines, start=first_line):
                _add(rows, number, line, names, extra)
                yield

    yield from in_blocks(rows, asked, read())


def _add(rows: Rows, number: int, line: bytes, names: Mapping[str, str], extra: Extra | None) -> None:
    text = line.decode(errors="backslashreplace").removesuffix("\r")
    value = _object(line)
    if value is None:
        found = f"found {short(text)}" if text else "found an empty line"
        rows.refuse(number, f"expected a JSON object, {found}", text)
        return
    fields = {role: value[name] for role, name in names.items() if name in value}
    if extra is not None:
        try:
            fields |= extra(value)
        except (TypeError, ValueError) as error:
            rows.refuse(number, str(error), text)
            return
    rows.add(number, text, fields, names)
