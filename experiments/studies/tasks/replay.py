"""Replay arrivals under a policy that re-plans at intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.measures.cost import cost_by_interval, gpus_by_tier, interval_edges, stays_of
from experiments.measures.metrics import result_row
from experiments.options import parse_reading, trace_files
from experiments.replay.run import Arriving, ReplayOptions, ReplayRun, engine_of, reality_of, replay_policy, survey
from experiments.scenario.arrivals import stand_in
from experiments.scenario.scenario import Scenario, load_scenario, with_changes, with_delay_model, with_forecast
from experiments.sweep.outcome import Outcome
from policies.registry import make_policy
from traces.source import TraceSource


def replay(parameters: Mapping[str, Any]) -> Outcome:
    """One policy over one trace.

    Parameters
    ----------
    parameters
        scenario, policy, seed, interval_s; optionally trace (files), duration_s, rate_factor, forecast, delay_model,
        changes (fields of the scenario by dotted name), delay_factor, error_factor, engine, every_s (rows for parts of
        the run as well, each so long), and about (columns of every row).
    """
    scenario = scenario_of(parameters)
    policy, seed = make_policy(parameters["policy"]), int(parameters["seed"])
    chosen, functions = engine_of(scenario, parameters.get("engine", "compiled"))
    reality = reality_of(
        scenario,
        delay_factor=float(parameters.get("delay_factor", 1.0)),
        error_factor=float(parameters.get("error_factor", 1.0)),
    )
    interval_s = float(parameters["interval_s"])
    options = ReplayOptions(interval_s=interval_s, seed=seed, engine=chosen, functions=functions, reality=reality)
    run = replay_policy(scenario, arriving_of(scenario, parameters), policy, options)
    about = {
        "problem": scenario.name,
        "policy": policy.name,
        "seed": seed,
        "way": "simulated",
        "interval_s": interval_s,
        **parameters.get("about", {}),
    }
    rows = [{**about, **summary_row(run)}]
    if "every_s" in parameters:
        rows += [{**about, **part} for part in _parts(scenario, run, float(parameters["every_s"]))]
    machine = {"planning_s": run.machine.planning_s, "engine_cpu_s": run.machine.engine_cpu_s}
    return Outcome(rows=rows, machine=machine)


def scenario_of(parameters: Mapping[str, Any]) -> Scenario:
    """The scenario with the changes that the parameters ask for."""
    scenario = load_scenario(parameters["scenario"])
    if parameters.get("delay_model"):
        scenario = with_delay_model(scenario, parameters["delay_model"])
    if parameters.get("forecast"):
        scenario = with_forecast(scenario, parameters["forecast"])
    return with_changes(scenario, parameters.get("changes", {}))


def arrivals_of(
    scenario: Scenario, parameters: Mapping[str, Any], demand: tuple[float, ...] | None = None
) -> TraceSource:
    """The trace files of the parameters, or what stands in for them under this seed."""
    if parameters.get("trace"):
        return trace_files(list(parameters["trace"]), parse_reading())
    return stand_in(
        scenario,
        seed=int(parameters["seed"]),
        duration_s=parameters.get("duration_s"),
        rate_factor=parameters.get("rate_factor"),
        demand=demand,
    )


def arriving_of(scenario: Scenario, parameters: Mapping[str, Any]) -> Arriving:
    """The surveyed arrivals; kept for the next run of this worker, which often has the same."""
    wanted = ("trace", "duration_s", "rate_factor", "seed")
    key = repr([(name, parameters.get(name)) for name in wanted]) + scenario.file.model_dump_json()
    if _kept.get("key") != key:
        _kept.update(key=key, arriving=survey(scenario, arrivals_of(scenario, parameters)))
    arriving: Arriving = _kept["arriving"]
    return arriving


_kept: dict[str, Any] = {}


def summary_row(run: ReplayRun) -> dict[str, Any]:
    """The columns of a replay."""
    return {"feasible": True, **result_row(run.metrics)}


def _parts(scenario: Scenario, run: ReplayRun, every_s: float) -> list[dict[str, Any]]:
    """Cost, GPUs and violations of each part of the run."""
    tally = run.tally
    edges = interval_edges(run.result, tally.starts_s)
    cost = cost_by_interval(scenario, run.result, tally)
    counts = {name: values.sum(axis=0) for name, values in tally.counts.items()}
    middles = (edges[:-1] + edges[1:]) / 2
    gpus = np.zeros(len(middles))
    for rented in gpus_by_tier(stays_of(run.result), middles).values():
        gpus += rented
    part = (tally.starts_s // every_s).astype(int)
    rows = []
    for number in np.unique(part).tolist():
        own = part == number
        arrived, served = int(counts["arrived"][own].sum()), int(counts["served"][own].sum())
        broken = int(counts["slo_violations"][own].sum()) + arrived - served
        rows.append(
            {
                "time_s": number * every_s,
                "cost_usd": float(sum(values[own].sum() for values in cost.values())),
                "rent_usd": float(cost["rental"][own].sum()),
                "arrived": arrived,
                "served": served,
                "violation_share": broken / arrived if arrived else 0.0,
                "unmet_share": (arrived - served) / arrived if arrived else 0.0,
                "gpus": round(float(gpus[own].mean())),
            }
        )
    return rows
