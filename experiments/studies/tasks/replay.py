"""Replay arrivals under a policy that re-plans at intervals."""

from collections.abc import Mapping
from typing import Any

from experiments.replay.columns import part_columns, run_columns
from experiments.replay.run import replay_policy
from experiments.studies.tasks.setting import arriving_of, options_of, scenario_of
from experiments.sweep.outcome import Outcome
from policies.registry import make_policy


def replay(parameters: Mapping[str, Any]) -> Outcome:
    """One policy over one trace.

    Parameters
    ----------
    parameters
        Those of `experiments.studies.tasks.setting`, policy and interval_s; optionally every_s (rows for parts of the
        run as well, each so long), and about (columns of every row).
    """
    scenario = scenario_of(parameters)
    policy = make_policy(parameters["policy"])
    options = options_of(
        scenario,
        parameters,
        interval_s=float(parameters["interval_s"]),
        delay_factor=float(parameters.get("delay_factor", 1.0)),
        error_factor=float(parameters.get("error_factor", 1.0)),
    )
    run = replay_policy(scenario, arriving_of(scenario, parameters), policy, options)
    about = {
        "problem": scenario.name,
        "policy": policy.name,
        "seed": options.seed,
        "way": "simulated",
        "interval_s": options.interval_s,
        **parameters.get("about", {}),
    }
    rows = [{**about, **run_columns(run)}]
    if "every_s" in parameters:
        rows += [{**about, **part} for part in part_columns(scenario, run, float(parameters["every_s"]))]
    machine = {"planning_s": run.machine.planning_s, "engine_cpu_s": run.machine.engine_cpu_s}
    return Outcome(rows=rows, machine=machine)
