"""What a run stands on, from its parameters: the scenario, the arrivals, the engine and the realised world.

Every task that replays or plans for arrivals takes the same parameters here, all but `scenario` and `seed` optional::

    scenario (NAME or path), delay_model, forecast, changes (fields of the scenario by dotted name)
    trace (files) or else duration_s, rate_factor of the scenario's own arrivals; seed
    engine, delay_factor, error_factor
"""

from collections.abc import Mapping
from typing import Any

from experiments.options import trace_files
from experiments.replay.run import Arriving, ReplayOptions, engine_of, reality_of, survey
from experiments.scenario.arrivals import stand_in
from experiments.scenario.scenario import Scenario, load_scenario, with_changes, with_delay_model, with_forecast
from traces.source import TraceSource


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
        return trace_files(list(parameters["trace"]))
    return stand_in(
        scenario,
        seed=int(parameters["seed"]),
        duration_s=parameters.get("duration_s"),
        rate_factor=parameters.get("rate_factor"),
        demand=demand,
    )


def arriving_of(scenario: Scenario, parameters: Mapping[str, Any]) -> Arriving:
    """The surveyed arrivals; remembered for the next run of this worker, which often has the same."""
    wanted = ("trace", "duration_s", "rate_factor", "seed")
    key = repr([(name, parameters.get(name)) for name in wanted]) + scenario.file.model_dump_json()
    if key not in _surveyed:
        _surveyed.clear()
        _surveyed[key] = survey(scenario, arrivals_of(scenario, parameters))
    return _surveyed[key]


_surveyed: dict[str, Arriving] = {}


def options_of(
    scenario: Scenario,
    parameters: Mapping[str, Any],
    *,
    interval_s: float,
    delay_factor: float = 1.0,
    error_factor: float = 1.0,
) -> ReplayOptions:
    """How to replay: the engine that is asked for, with the scenario's functions, in a slower and wronger world."""
    engine, functions = engine_of(scenario, parameters.get("engine", "compiled"))
    reality = reality_of(scenario, delay_factor=delay_factor, error_factor=error_factor)
    return ReplayOptions(
        interval_s=interval_s, seed=int(parameters["seed"]), engine=engine, functions=functions, reality=reality
    )
