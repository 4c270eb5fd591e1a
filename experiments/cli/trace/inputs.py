"""What every command on traces does with its trace files."""

from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.options import trace_files
from experiments.show.progress import Terminal, account_lines
from simulator.errors import InputError
from simulator.workload import Trace
from traces.formats.registry import Reading
from traces.source import Survey, TraceFiles

SUFFIXES = (".png", ".svg")


def trace_input(paths: Sequence[str], reading: Reading | None = None) -> TraceFiles:
    """The files of a command, each given as `PATH` or as `SOURCE=PATH`."""
    return trace_files(list(paths), reading or Reading())


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
