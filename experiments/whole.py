"""Files that are written whole or not at all."""

import os
from pathlib import Path

from simulator.errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Write a text file under another name, then rename it.

    Raises
    ------
    InputError
        If it cannot be written; nothing is left then.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
