"""Files that are written whole or not at all, and the form that JSON has in all of them."""

import json
import os
from pathlib import Path

from simulator.errors import InputError


def to_json(value: object) -> str:
    """The text of a JSON file, or of a command with `--json`."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a text file under another name, then rename it.

    Raises
    ------
    InputError
        If it cannot be written; nothing is left then.
    """
    try:
        replace_whole(path, text.encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def replace_whole(path: Path, data: bytes) -> None:
    """Write a file under another name, then rename it; if that fails with an OSError, nothing is left."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
