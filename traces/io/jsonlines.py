"""JSON records, an object per line or a list of objects; columns by their names or paths, or as the user says."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.columns import Columns, find_columns, has_columns
from traces.io.document import is_document, read_records
from traces.io.doubts import doubted
from traces.io.lines import head, line_blocks
from traces.io.paths import MISSING, at, leaves
from traces.io.reader import HEAD_BYTES, MAX_TOKENS, Asked, Block, short, shown
from traces.io.rows import Rows, in_blocks

_BLOCK_BYTES = 2**20
_COUNTS = ("input_tokens", "output_tokens")
Record = tuple[int, str, dict[str, Any] | None]
"""An item of a file: its number, the text of it, and its value; None if it is no object."""

Extra = Callable[[dict[str, Any]], dict[str, Any]]


class JsonLines:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "line"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether the first object has keys for time, input tokens and output tokens."""
        first = first_object(path) if head.startswith((b"{", b"[")) else None
        return first is not None and has_columns(leaves(first))

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        first = first_object(path)
        if first is None:
            found = head(path, HEAD_BYTES).partition(b"\n")[0].decode(errors="backslashreplace")
            raise InputError(f"{path}: line 1: expected a JSON object, found {short(found)}")
        columns = record_columns(first, asked, path)
        blocks = json_blocks(path, asked, columns)
        yield from blocks if columns.time_unit else doubted(blocks, path, asked, "s")


READER = JsonLines()


def first_object(path: Path) -> dict[str, Any] | None:
    """The first item of a file that is an object, if one of the first lines is, or it is a list of them."""
    if is_document(head(path, HEAD_BYTES)):
        try:
            return next((value for value in read_records(path) if isinstance(value, dict)), None)
        except InputError:
            return None
    blocks = itertools.islice(line_blocks(path, HEAD_BYTES), 2)  # the first line, however long, and some more
    values = (_object(line) for block in blocks for line in block.data.split(b"\n"))
    return next((value for value in values if value is not None), None)


def record_columns(first: dict[str, Any], asked: Asked, path: Path, where: str = "line 1") -> Columns:
    """The paths of what a record holds, from the first one; `find_columns` says how.

    Numbers of tokens may be stated in place of a path: they are those of all requests.
    """

    def is_there(name: str) -> bool:
        return at(first, name) is not MISSING or _stated(name) is not None

    number = "" if _COUNTS[0] in asked.columns else "; a NUMBER in place of a COLUMN of tokens is that of all requests"
    return find_columns(leaves(first), asked, path, where, is_there=is_there, number=number)


def _stated(name: str) -> int | None:
    """The number that a user gives in place of a path."""
    return int(name) if name.isascii() and name.isdecimal() and len(name) < 9 and int(name) <= MAX_TOKENS else None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def json_records(path: Path) -> Iterator[Record]:
    """The records of a file: its lines, or the items of the list that it is."""
    if is_document(head(path, HEAD_BYTES)):
        for number, value in enumerate(read_records(path), start=1):
            yield number, shown(value), value if isinstance(value, dict) else None
        return
    for first_line, _, data in line_blocks(path, _BLOCK_BYTES):
        for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), start=first_line):
            yield number, line.decode(errors="backslashreplace").removesuffix("\r"), _object(line)


def json_blocks(
    path: Path,
    asked: Asked,
    columns: Columns,
    *,
    records: Iterable[Record] | None = None,
    extra: Extra | None = None,
    extras: tuple[str, ...] = (),
    failed: Callable[[dict[str, Any]], bool] | None = None,
    unit: str = "line",
) -> Iterator[Block]:
    """The rows of a file whose paths are known.

    Parameters
    ----------
    records
        Those of the file, if they are not its lines or the items of its list.
    extra
        Makes further fields, of which those of `extras` are columns, from an object; it gets the objects in order.
    failed
        Whether a request failed: it then has the tokens that it states, and none if it states none; and is counted as
        failed if it states no time.
    unit
        What a record is called in messages.
    """
    names = {"arrival_s": columns.time, "input_tokens": columns.input_tokens, "output_tokens": columns.output_tokens}
    names |= columns.extras
    if columns.source is not None:
        names["source"] = columns.source
    rows = Rows(path, asked, unit=unit, time_unit=columns.time_unit, extras=(*columns.extras, *extras))
    numbers = {role: number for role in _COUNTS if (number := _stated(names[role])) is not None}

    def read() -> Iterator[None]:
        for record in json_records(path) if records is None else records:
            _add(rows, record, names, numbers, extra, failed)
            yield

    yield from in_blocks(rows, asked, read())


def _add(
    rows: Rows,
    record: Record,
    names: Mapping[str, str],
    numbers: Mapping[str, int],
    extra: Extra | None,
    failed: Callable[[dict[str, Any]], bool] | None,
) -> None:
    number, text, value = record
    if value is None:
        found = f"found {short(text)}" if text else "found an empty line"
        rows.refuse(number, f"expected a JSON object, {found}", text)
        return
    fields: dict[str, Any] = {role: value[name] for role, name in names.items() if name in value}
    if len(fields) < len(names):
        inside = {role: at(value, name) for role, name in names.items() if role not in fields}
        fields.update(numbers)
        fields.update((role, item) for role, item in inside.items() if item is not MISSING)
    if extra is not None:
        try:
            fields |= extra(value)
        except (TypeError, ValueError) as error:
            rows.refuse(number, str(error), text)
            return
    if failed is not None and failed(value):
        if fields.get("arrival_s") is None:
            rows.fail()
            return
        fields |= {role: 0 for role in _COUNTS if fields.get(role) is None}
    rows.add(number, text, fields, names)


def refuse_what_lacks_paths(head: bytes, path: Path) -> None:
    """Raise InputError if JSON of no known format has records, and say what they hold."""
    first = first_object(path)
    if first is None or not leaves(first):
        return
    if is_document(head) and not head.lstrip().startswith(b"["):
        raise InputError(
            f"{path}: expected an object per request, in lines or as a list, found one JSON document of no known "
            f"format with the fields {short(', '.join(first))}: take its list of requests out, as with jq .FIELD"
        )
    record_columns(first, Asked(), path)
