"""`tokenfleet report`: one page of what a run directory holds."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.options import RunDirectory
from experiments.report import document_of
from experiments.show.atomic_write import write_whole
from experiments.show.markdown import document_markdown
from experiments.show.progress import Terminal
from simulator.errors import InputError


def command(
    context: typer.Context,
    directory: RunDirectory,
    out: Annotated[Path | None, typer.Option("--out", help="The page; default: report.html in DIR.")] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Folder for every chart as PNG and SVG, for papers.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="The report as Markdown too, with its figures beside it.")
    ] = None,
) -> None:
    """Write a report: one HTML page that needs no network, with tables and charts to zoom, hover and toggle.

    Example: `tokenfleet report runs/azure`
    """
    terminal: Terminal = context.obj
    document = document_of(directory)
    from experiments.show.page import document_html  # here: Plotly takes longer to load than most commands

    page = out or directory / "report.html"
    write_whole(page, document_html(document))
    terminal.say(f"the page: {page}")
    wanted = [folder for folder in (figures, markdown.parent if markdown else None) if folder is not None]
    if not wanted:
        return
    from experiments.show.figures import draw  # here: as does Matplotlib

    for folder in dict.fromkeys(wanted):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            drawn = draw(document.charts, folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
        terminal.say(f"{len(drawn)} figures in {folder}")
    if markdown is not None:
        write_whole(markdown, document_markdown(document, {chart.key: f"{chart.key}.png" for chart in document.charts}))
        terminal.say(f"Markdown: {markdown}")
