"""`tokenfleet trace fetch`: public traces, downloaded once."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from experiments.options import JsonOption
from experiments.show.progress import Terminal
from simulator.errors import InputError
from traces.io.fetch import (
    CACHE_VARIABLE,
    Download,
    cache_folder,
    cached,
    downloads,
    fetch,
    find_download,
    known_sha256,
    partial_bytes,
)

EXIT_INTERRUPTED = 130


def command(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which trace; none: list them.")] = None,
    given: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take the file from here instead of the network; checked alike."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help=f"Where files are kept; default: ${CACHE_VARIABLE}, else the system's cache."),
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List what there is, as without a name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Download a public trace, or find it in the cache; print its path.

    A download that is cut off goes on where it ended, in the next run too. The file is checked against its published
    hash, or where none is known against that of the first download.

    Example: `tokenfleet trace describe $(tokenfleet trace fetch azure-2023-conv)`
    """
    terminal: Terminal = context.obj
    folder = cache or cache_folder()
    if name is None or list_all:
        if name is not None:
            raise InputError(f"--list lists all traces and takes none, found {name}")
        if given is not None:
            raise InputError("--from needs the name of a trace: tokenfleet trace fetch NAME --from FILE")
        _list(terminal, folder, as_json)
        return
    download = find_download(name)
    terminal.note(f"{name}: {download.attribution}; licence {download.licence}")
    path = _fetch(terminal, name, download, folder, given)
    if as_json:
        terminal.print_json(_as_dict(name, download, folder) | {"bytes": path.stat().st_size})
        return
    if download.sha256 is None:
        terminal.note(
            f"{name}: no pinned hash: {known_sha256(download, folder)}, the sha256 of the first download, is recorded "
            "next to the file and later downloads must match"
        )
    terminal.say(str(path))


def _fetch(terminal: Terminal, name: str, download: Download, folder: Path, given: Path | None) -> Path:
    if given is None and cached(download, folder) is None:
        have = partial_bytes(download, folder)
        rest = f", {have:,} bytes of it are here" if have else ""
        terminal.note(f"{name}: {_readable(download.bytes)} from {download.url}{rest}")
    with terminal.progress_bars() as bars:
        step = bars.start(f"fetching {name}")

        def progress(have: int, total: int | None) -> None:
            whole = total or download.bytes
            step(min(1.0, have / whole) if whole else 0.0)

        try:
            return fetch(download, folder, given=given, progress=progress)
        except KeyboardInterrupt:
            pass  # outside the bars: they would say that nothing was written
    have = partial_bytes(download, folder)
    kept = f"{have:,} bytes are kept, the same command goes on from there" if have else "nothing had come yet"
    terminal.note(f"interrupted: {name}: {kept}")
    raise typer.Exit(EXIT_INTERRUPTED)


def _as_dict(name: str, download: Download, folder: Path) -> dict[str, Any]:
    path = cached(download, folder)
    return {
        "name": name,
        "path": str(path) if path else None,
        "sha256": known_sha256(download, folder),
        "bytes": download.bytes,
        "licence": download.licence,
        "attribution": download.attribution,
        "url": download.url,
        "pinned": download.sha256 is not None,
    }


def _list(terminal: Terminal, folder: Path, as_json: bool) -> None:
    known = downloads()
    if as_json:
        terminal.print_json({"cache": str(folder), "traces": [_as_dict(*item, folder) for item in known.items()]})
        return
    table = Table(title=Text(f"cache: {folder}"), title_justify="left")
    for heading in ("name", "size", "licence", "hash", "cached"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "size" else "left")
    for name, download in known.items():
        here = "yes" if cached(download, folder) else "in part" if partial_bytes(download, folder) else ""
        sha256 = "pinned" if download.sha256 else "first download"
        table.add_row(name, _readable(download.bytes), download.licence, sha256, here)
    terminal.out.print(table)


def _readable(size: int | None) -> str:
    if size is None:
        return "unknown size"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
