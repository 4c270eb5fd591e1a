"""Reports: what a run directory holds, as a document. `DOCUMENTS` says which function reads which format."""

from importlib import import_module
from pathlib import Path

from experiments.show.parts import Document
from simulator.errors import InputError

DOCUMENTS = {  # imported when they are asked for: tables of runs take long to load
    "tokenfleet-run/1": "experiments.report.replay:replay_document",
    "tokenfleet-sweep/1": "experiments.report.sweep:sweep_document",
}


def document_of(directory: Path) -> Document:
    """The document of a run directory of any kind.

    Raises
    ------
    InputError
        If it is none, of another version, or files of it are missing or damaged.
    """
    from experiments.replay.store import MARKER
    from experiments.sweep.folder import read_json

    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder")
    if not (directory / MARKER).is_file():
        raise InputError(f"{directory}: is no run directory of tokenfleet (no {MARKER}), or was not written to its end")
    found = read_json(directory / MARKER).get("format")
    if str(found) not in DOCUMENTS:
        raise InputError(
            f"{directory / MARKER}: format {found!r} is of another version; this one reads {', '.join(DOCUMENTS)}"
        )
    module, _, function = DOCUMENTS[str(found)].partition(":")
    document: Document = getattr(import_module(module), function)(directory)
    return document
