"""`tokenfleet trace fetch`: public traces, downloaded once."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from experiments.terminal import JsonOption, Terminal
from simulator.errors import InputError
from traces.fetch import CACHE_VARIABLE, Download, cache_folder, cached, downloads, fetch, find_download


def command(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which trace; none: list them.")] = None,
    given: Annotated[
        Path | None, typer.Option("--from", help="Take the file from here instead of the network; checked alike.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help=f"Where files are kept; default: ${CACHE_VARIABLE}, else the system's cache.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download a public trace, or find it in the cache; print its path.

    A download that is cut off goes on where it ended. The file is checked against the published hash, or where none is
    known against that of the first download.

    Example: `tokenfleet replay $(tokenfleet trace fetch azure-2023-conv)`
    """
    terminal: Terminal = context.obj
    if name is None:
        if given is not None:
            raise InputError("--from needs the name of a trace: tokenfleet trace fetch NAME --from FILE")
        _list(terminal, cache or cache_folder(), as_json)
        return
    download = find_download(name)
    with terminal.progress_bars() as bars:
        step = bars.start(f"fetching {name}")
        found = fetch(
            download,
            folder=cache,
            given=given,
            progress=lambda have, total: step(min(1.0, have / (total or download.bytes or max(1, 2 * have)))),
        )
        step(1.0)
    if as_json:
        terminal.print_json(_as_dict(name, download) | {"path": str(found.path), "sha256": found.sha256})
        return
    terminal.note(f"{name}: {download.attribution}; licence {download.licence}")
    if not found.pinned:
        terminal.note(
            f"no published hash is known: sha256 {found.sha256} of the first download is what later ones must have"
        )
    terminal.say(str(found.path))


def _as_dict(name: str, download: Download) -> dict[str, Any]:
    return {
        "name": name,
        "url": download.url,
        "bytes": download.bytes,
        "licence": download.licence,
        "attribution": download.attribution,
        "pinned": download.sha256 is not None,
    }


def _list(terminal: Terminal, folder: Path, as_json: bool) -> None:
    rows = [(name, download, cached(download, folder)) for name, download in downloads().items()]
    if as_json:
        terminal.print_json(
            {"traces": [_as_dict(name, item) | {"path": str(path) if path else None} for name, item, path in rows]}
        )
        return
    table = Table(title=f"cache: {folder}", title_justify="left")
    for heading in ("name", "here", "licence", "what"):
        table.add_column(heading, overflow="fold")
    for name, download, path in rows:
        hashed = "" if download.sha256 else "; no published hash"
        table.add_row(name, "yes" if path else "", download.licence, Text(f"{download.attribution}{hashed}"))
    terminal.out.print(table)
