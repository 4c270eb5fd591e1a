"""Reports: what a run directory holds, as a document. `DOCUMENTS` says which function reads which format."""

from collections.abc import Callable
from pathlib import Path

from experiments.replay.store import MARKER
from experiments.report.replay import replay_document
from experiments.report.sweep import sweep_document
from experiments.show.parts import Document
from experiments.sweep.folder import read_json
from simulator.errors import InputError

DOCUMENTS: dict[str, Callable[[Path], Document]] = {
    "tokenfleet-run/1": replay_document,
    "tokenfleet-sweep/1": sweep_document,
}


def document_of(directory: Path) -> Document:
    """The document of a run directory of any kind.

    Raises
    ------
    InputError
        If it is none, of another version, or files of it are missing or damaged.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder")
    if not (directory / MARKER).is_file():
        raise InputError(f"{directory}: is no run directory of tokenfleet (no {MARKER}), or was not written to its end")
    found = read_json(directory / MARKER).get("format")
    if str(found) not in DOCUMENTS:
        raise InputError(
            f"{directory / MARKER}: format {found!r} is of another version; this one reads {', '.join(DOCUMENTS)}"
        )
    return DOCUMENTS[str(found)](directory)
