"""What every command on traces does with its trace files."""

from collections.abc import Callable, Sequence

from experiments.options import trace_files
from experiments.terminal import Terminal, account_lines
from simulator.workload import Trace
from traces.registry import Reading
from traces.source import Survey, TraceFiles


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
