"""What the command line lends to the commands of `study` and `trace`, and the options that they share."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console

from simulator.policy import Policy

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


class Bars(Protocol):
    """Progress bars."""

    def start(self, name: str, horizon_s: float | None = None) -> Callable[[float], None]:
        """Start a bar; the function that is given back takes the share that is done."""
        ...


@dataclass(frozen=True, slots=True)
class Terminal:
    """What such a command finds in `context.obj`: the ways of every command to ask for policies and to answer."""

    out: Console
    say: Callable[[str], None]
    print_json: Callable[[object], None]
    make_policies: Callable[[Sequence[str] | None, Sequence[str]], list[Policy]]
    progress_bars: Callable[[], AbstractContextManager[Bars]]
