"""What the studies that replay arrivals share: their arrivals and their table of money and service."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.options import trace_files
from experiments.replay.run import engine_notes, survey
from experiments.scenario.scenario import load_scenario
from experiments.show.progress import Terminal
from experiments.studies.shared.view import cell


def arrivals(
    terminal: Terminal,
    scenario: str,
    trace: Sequence[str] | None,
    profile: str | None,
    duration_s: float | None,
    rate_factor: float | None,
) -> tuple[dict[str, Any], list[str]]:
    """Parameters of a replay that say what arrives (`experiments.studies.tasks.replay`), and the files that it reads.

    Raises
    ------
    InputError
        If there is no such scenario, or the trace is bad or does not match it.
    """
    chosen = load_scenario(scenario)
    for note in engine_notes(chosen):
        terminal.warn(note)
    files = [scenario] if scenario.endswith(".toml") else []
    if trace:
        survey(chosen, trace_files(trace))
        return {"scenario": scenario, "trace": list(trace)}, [*files, *(t.partition("=")[2] or t for t in trace)]
    stated = {"duration_s": duration_s, "rate_factor": rate_factor}
    found: dict[str, Any] = {
        "scenario": scenario,
        **{name: value for name, value in stated.items() if value is not None},
    }
    if profile is not None:
        found["changes"] = {"synthetic.profile": profile}
    return found, files


def changed(parameters: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The parameters with more changes of the scenario, by dotted name (a double underscore stands for the dot)."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return {**parameters, "changes": {**parameters.get("changes", {}), **named}}


SERVICE = ("cost [USD]", "GPU h", "violated [%]", "unmet [%]", "TTFT p95 [s]", "TPOT p95 [ms]", "E2E p95 [s]")


def service(own: pd.DataFrame) -> list[str]:
    """Cells for the columns of `SERVICE`."""
    return [
        cell(own, "cost_usd"),
        cell(own, "gpu_hours", 1),
        cell(own, "violation_share", 2, 100),
        cell(own, "unmet_share", 2, 100),
        cell(own, "ttft_p95_s"),
        cell(own, "tpot_p95_s", 1, 1000),
        cell(own, "e2e_p95_s"),
    ]
