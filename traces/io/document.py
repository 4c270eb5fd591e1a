"""Files that are one JSON document: read as a whole."""

import json
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from traces.io.lines import open_bytes

MAX_BYTES = 2**31
"""A larger document would take tens of gigabytes of memory."""


def read_document(path: Path) -> dict[str, Any]:
    """The object that a file is.

    Raises
    ------
    InputError
        If it is none, or too large.
    """
    with open_bytes(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: expected a JSON document of at most {MAX_BYTES:,} bytes, found a larger one")
    try:
        value = json.loads(data)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8, found byte 0x{data[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: {place}: expected one JSON document: {error.msg}") from None
    except ValueError:
        raise InputError(f"{path}: expected a JSON document, found a number with thousands of digits") from None
    except RecursionError:
        raise InputError(f"{path}: expected a JSON document, found one that is nested too deeply") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
