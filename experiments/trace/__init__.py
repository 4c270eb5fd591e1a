"""`tokenfleet trace`: what is done with traces themselves; the work is in `traces`, here are options, tables and files.

`COMMANDS` is the registry: a command is a module and a line here.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TraceCommand:
    """One line of the registry. `command` is a typer command; its context holds an `experiments.terminal.Terminal`."""

    summary: str
    command: Callable[..., None]


COMMANDS: dict[str, TraceCommand] = {}
