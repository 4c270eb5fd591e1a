"""Run directories: written under a temporary name beside the target and renamed when complete."""

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from simulator.errors import InputError, RunError

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
MARKER = "run.json"  # what makes a folder a run directory of ours


@contextmanager
def run_directory(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` if the block succeeds; a killed run leaves no half result there.

    If the block fails, the temporary folder goes, and so do the parents of `path` that were made for it. Temporary
    folders of runs that were killed go when the next run begins. What was not there at the start is never replaced:
    the results then stand beside it.

    Raises
    ------
    InputError
        If `path` exists and is no run directory, or is one and `overwrite` is not set, or cannot be made.
    RunError
        If the disk is full or the folder gone, or if somebody made `path` meanwhile.
    """
    refuse_existing(path, overwrite=overwrite)
    before = _identity(path)
    made = [parent for parent in path.parents if not parent.exists()]  # the deepest first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{_partial_of(path)}{os.getpid()}-"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        temporary.chmod(0o755)
        yield temporary
        _put_in_place(temporary, path, before)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # somebody else may have put something there
                parent.rmdir()
        if isinstance(error, OSError) and (error.errno in DISK or str(error.filename).startswith(str(temporary))):
            raise RunError(f"{path}: cannot be written: {error.strerror}") from None
        raise


def _put_in_place(temporary: Path, path: Path, before: tuple[int, int] | None) -> None:
    """Rename the finished folder to `path`, unless something is there that was not there at the start."""
    if _identity(path) == before:
        if before is not None:
            aside = temporary.with_name(f"{temporary.name}-old")
            path.rename(aside)
            shutil.rmtree(aside)
        with suppress(OSError):  # somebody was quicker by an instant
            temporary.rename(path)
            return
    number = 2
    while (beside := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    temporary.rename(beside)
    raise RunError(f"{path}: was made by somebody else while this run went on; its results are in {beside}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which folder this is, and how full: another one of the same name is another one."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _partial_of(path: Path) -> str:
    """How the names of temporary folders begin; on a disk of several machines each knows its own."""
    return f".{path.name}.partial-{platform.node()}-"


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary folders of runs of this machine that are no more."""
    start = _partial_of(path)
    for left in path.parent.iterdir():
        process = left.name.removeprefix(start).partition("-")[0]
        if left.name.startswith(start) and process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


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
