"""Studies: questions that take many plans to answer. `STUDIES` is the registry: a new one is a module and a line here.

Each is a command of `tokenfleet study`; docs/studies.md says what they measure and what they found.
"""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.studies.hysteresis_command import command as hysteresis


@dataclass(frozen=True, slots=True)
class Study:
    """One line of the registry. `command` is a typer command; its context holds an `experiments.terminal.Terminal`."""

    summary: str
    command: Callable[..., None]


STUDIES = {
    "hysteresis": Study("Churn against cost: how reluctant to move should re-planning be?", hysteresis),
}
