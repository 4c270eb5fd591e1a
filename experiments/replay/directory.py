"""Run directories: written under a temporary name beside the target and renamed when complete."""

import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from simulator.errors import InputError

MARKER = "run.json"  # what makes a folder a run directory of ours


@contextmanager
def run_directory(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` if the block succeeds; a killed run leaves no half result there.

    If the block fails, the temporary folder goes, and so do the parents of `path` that were made for it.

    Raises
    ------
    InputError
        If `path` exists and is no run directory, or is one and `overwrite` is not set, or cannot be made.
    """
    refuse_existing(path, overwrite=overwrite)
    made = [parent for parent in path.parents if not parent.exists()]  # the deepest first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.partial-"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        temporary.chmod(0o755)
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # somebody else may have put something there
                parent.rmdir()
        raise


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse before any work is done what `run_directory` would refuse."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MARKER).is_file():
        raise InputError(f"{path}: exists and is no run directory of tokenfleet (no {MARKER}): choose another --out")
    if not overwrite:
        raise InputError(f"{path}: holds an earlier run: choose another --out, or say --overwrite")


def versions() -> dict[str, str]:
    """Python and the packages that results depend on."""
    names = ("tokenfleet", "simpy", "numpy", "numba", "scipy", "pandas", "pyarrow", "pyomo", "highspy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
