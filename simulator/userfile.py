"""What a user wrote in a file of their own, named as `path/to/file.py:name`."""

import importlib.util
from pathlib import Path
from typing import Any

from simulator.errors import InputError


def load_from_file(text: str, *, what: str, kind: str, folder: Path | None = None) -> Any:
    """Load one object from a Python file.

    Parameters
    ----------
    text
        `path/to/file.py:name`; a relative path counts from `folder`, by default from the working directory.
    what, kind
        For messages: what it is for (`policy`), and what is expected under the name (`class`).

    Raises
    ------
    InputError
        If the text has another form, the file does not exist or fails, or has nothing of that name.
    """
    path_text, separator, name = text.rpartition(":")
    if not separator or not path_text.endswith(".py"):
        raise InputError(f"{what} {text!r}: expected path/to/file.py:{kind}")
    path = (folder or Path()) / path_text
    if not path.is_file():
        raise InputError(f"{what} {text!r}: no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"user_{what.replace(' ', '_')}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{what} {text!r}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{what} {text!r}: {path} fails on import: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise InputError(f"{what} {text!r}: {path} has no {kind} {name!r}")
    return getattr(module, name)
