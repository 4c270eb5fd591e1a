"""Files that are JSON documents, one or several one after the other: read as a whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.lines import open_bytes

MAX_BYTES = 2**31
"""A larger document would take tens of gigabytes of memory."""

_SEARCHED_BYTES = 2**26
_PIECE = 2**20
_BLANKS = " \t\r\n"


def read_documents(path: Path) -> list[dict[str, Any]]:
    """The objects that a file consists of: one, or several where results were appended.

    Raises
    ------
    InputError
        If it is none, or too large.
    """
    documents = list(_documents(path))
    for number, document in enumerate(documents, start=1):
        if not isinstance(document, dict):
            which = f" as document {number}" if number > 1 else ""
            raise InputError(f"{path}: expected a JSON object, found {type(document).__name__}{which}")
    return documents


def read_records(path: Path) -> list[Any]:
    """The records that a file of JSON documents has: the items of its lists, and its objects.

    Raises
    ------
    InputError
        As for `read_documents`.
    """
    return [
        record for document in _documents(path) for record in (document if isinstance(document, list) else [document])
    ]


def _documents(path: Path) -> Iterator[Any]:
    with open_bytes(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: expected a JSON document of at most {MAX_BYTES:,} bytes, found a larger one")
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass").rstrip(_BLANKS)
        at = len(text) - len(text.lstrip(_BLANKS))
        decoder = json.JSONDecoder()
        while True:
            value, at = decoder.raw_decode(text, at)
            yield value
            while at < len(text) and text[at] in _BLANKS:
                at += 1
            if at == len(text):
                return
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8, found byte 0x{data[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: {place}: expected one JSON document: {error.msg}") from None
    except ValueError:
        raise InputError(f"{path}: expected a JSON document, found a number with thousands of digits") from None
    except RecursionError:
        raise InputError(f"{path}: expected a JSON document, found one that is nested too deeply") from None


def is_document(head: bytes) -> bool:
    """Whether a file with this beginning is a JSON document, and not an object per line."""
    first = head.lstrip().partition(b"\n")[0].rstrip()
    return first.startswith(b"[") or first == b"{"


def has_key(path: Path, head: bytes, key: str) -> bool:
    """Whether a file that begins with a JSON object has a key, in its beginning or, of a document, far behind it.

    Within text that is a value a key would stand with backslashes, and is not found.
    """
    sought = f'"{key}"'.encode()
    if not head.lstrip().startswith(b"{"):
        return False
    if sought in head:
        return True
    first, newline, _ = head.partition(b"\n")
    if newline and first.rstrip().endswith(b"}"):
        return False  # an object per line, each like the first
    with open_bytes(path) as file:
        searched, before = 0, b""
        while searched < _SEARCHED_BYTES and (piece := file.read(_PIECE)):
            if sought in before + piece:
                return True
            searched, before = searched + len(piece), piece[-len(sought) :]
    return False
