"""What the command line lends to the commands of `study` and `trace`, and the options that they share."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console

from simulator.planning.policy import Policy, SearchProgress
from traces.formats.registry import OnBadRow, TraceRead

PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", help="Policy by name (`tokenfleet list policies`) or path/to/file.py:Class; repeatable."),
]
ProblemOption = Annotated[
    Path | None, typer.Option("--problem", help="A tokenfleet-problem/1 file instead of a scenario, gzipped or not.")
]
ScenarioOption = Annotated[
    str, typer.Option(help="Scenario by name (`tokenfleet list scenarios`) or path to a .toml file.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for results and figures, made whole or not at all.")
]
OverwriteOption = Annotated[bool, typer.Option(help="Replace an earlier run in --out.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
TracesArgument = Annotated[list[str], typer.Argument(metavar="TRACE...", help="Trace files, PATH or SOURCE=PATH.")]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="Trace format (`tokenfleet list traces`); default: by the content.")
]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map", help="Which column is what: arrival_s=NAME, source=, input_tokens=, output_tokens=; repeatable."
    ),
]
OnBadRowOption = Annotated[
    OnBadRow,
    typer.Option(help="A row that cannot be read is an error, is skipped, or is skipped and written to a file."),
]
QuarantineOption = Annotated[
    Path | None, typer.Option(help="Folder of those files, NAME.bad-rows.csv; default: the current one.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="A row that goes back in time is a bad row: none is sorted.")
]


class Interrupted(Exception):
    """Ctrl-C, with how far the command had come."""


class Bars(Protocol):
    """Progress bars."""

    def start(self, name: str, horizon_s: float | None = None) -> Callable[[float], None]:
        """Start a bar; the function that is given back takes the share that is done."""
        ...

    def search(self, name: str) -> Callable[[SearchProgress], None] | None:
        """Start a bar that shows how a search closes its gap; None where nobody would see it."""
        ...


@dataclass(frozen=True, slots=True)
class Terminal:
    """What such a command finds in `context.obj`: the ways of every command to ask for policies and to answer."""

    out: Console
    say: Callable[[str], None]
    warn: Callable[[str], None]
    note: Callable[[str], None]
    print_json: Callable[[object], None]
    make_policies: Callable[[Sequence[str] | None, Sequence[str]], list[Policy]]
    progress_bars: Callable[[], AbstractContextManager[Bars]]


def account_lines(read: TraceRead) -> list[str]:
    """What the user has to know about how a file was read, a line each; none if all is well."""
    lines = []
    if read.rows_skipped:
        counts = f"skipped {read.rows_skipped} of {read.rows_in_file} rows"
        where = f" (all in {read.quarantine})" if read.quarantine else ""
        lines.append(f"{read.path}: {counts}{where}; the first: {read.first_problems[0]}")
    if read.rows_out_of_order:
        lines.append(f"{read.path}: {read.rows_out_of_order} rows were earlier than the row before them; sorted")
    return lines
