"""What a run of a sweep can be. `TASKS` is the registry: a new one is a module and a line here.

A task is a function of parameters that JSON can hold, and gives rows of the one schema (`experiments.sweep.schema`):
the same parameters, the same rows, in any process on any machine.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from experiments.sweep.outcome import Outcome, Task

TASKS = {
    "stress": "experiments.studies.tasks.stress:stress",
    "rolling_horizon": "experiments.studies.tasks.rolling_horizon:rolling_horizon",
    "plan": "experiments.studies.tasks.planning:plan",
    "critical_budget": "experiments.studies.tasks.planning:critical_budget",
    "replay": "experiments.studies.tasks.replay:replay",
    "static_plan": "experiments.studies.tasks.static_plan:static_plan",
    "headroom": "experiments.studies.tasks.headroom:headroom",
    "oracle": "experiments.studies.tasks.oracle:oracle",
}


def perform(name: str, parameters: Mapping[str, Any]) -> Outcome:
    """Run a task by its name.

    Raises
    ------
    TokenfleetError
        If its input is bad or it fails.
    """
    module, _, function = TASKS[name].partition(":")
    return cast(Task, getattr(import_module(module), function))(parameters)
