"""What commands do with the files that they are given: trace files, and pictures that are to be drawn."""

from collections.abc import Callable
from pathlib import Path

from experiments.show.progress import Terminal
from simulator.errors import InputError
from simulator.workload import Trace
from traces.formats.registry import TraceRead
from traces.source import Survey, TraceFiles

SUFFIXES = (".png", ".svg")


def account_lines(read: TraceRead) -> list[str]:
    """What the user has to know about how a file was read, a line each; none if all is well."""
    lines = []
    if read.rows_skipped:
        counts = f"skipped {read.rows_skipped} of {read.rows_in_file} rows"
        where = f" (all in {read.quarantine})" if read.quarantine else ""
        lines.append(f"{read.path}: {counts}{where}; the first: {read.first_problems[0]}")
    if read.rows_out_of_order:
        lines.append(f"{read.path}: {read.rows_out_of_order} rows were earlier than the row before them; sorted")
    if read.rows_failed:
        counts = f"{read.rows_failed} of {read.rows_in_file} requests failed before they were sent"
        lines.append(f"{read.path}: {counts} and state no time: they are no arrivals")
    return [*lines, *(f"{read.path}: {note}" for note in read.notes)]


def survey_input(
    terminal: Terminal, files: TraceFiles, visit: Callable[[Trace], None] | None = None, name: str = "reading the trace"
) -> Survey:
    """Go through the files once, with a bar; what is odd about their rows is told on standard error."""
    with terminal.progress_bars() as bars:
        step = bars.start(name)
        survey = files.survey(visit)
        step(1.0)
    for read in survey.reads:
        for line in account_lines(read):
            terminal.warn(line)
    return survey


def check_figure_path(path: Path) -> None:
    """Refuse before any work what cannot be drawn.

    Raises
    ------
    InputError
        If the name ends in no known format or there is no such folder.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--figure: expected a name that ends in {' or '.join(SUFFIXES)}, found {path}")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--figure: {path}: expected a file in a folder that exists")
