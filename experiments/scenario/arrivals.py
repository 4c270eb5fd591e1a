"""Arrivals where no trace is given: from a profile, or as the scenario expects them."""

import numpy as np

from experiments.scenario.scenario import Scenario
from experiments.scenario.schema import EXPECTED
from simulator.rng import stream
from simulator.workload import Trace
from traces.source import TraceInMemory
from traces.synthetic.generate import synthesise
from traces.synthetic.profile import load_profile


def stand_in(
    scenario: Scenario,
    *,
    seed: int,
    duration_s: float | None = None,
    rate_factor: float | None = None,
    demand: tuple[float, ...] | None = None,
) -> TraceInMemory:
    """The trace that stands in when none is given; what is not stated is the scenario's.

    Parameters
    ----------
    demand
        Factor on the arrivals of each type; only for expected arrivals.
    """
    file = scenario.file.synthetic
    duration_s, rate_factor = duration_s or file.duration_s, rate_factor or file.rate_factor
    if file.profile == EXPECTED:
        return TraceInMemory(expected_trace(scenario, duration_s, rate_factor, seed, demand))
    profile = load_profile(file.profile)
    return TraceInMemory(synthesise(profile, duration_s=duration_s, seed=seed, rate_factor=rate_factor))


def expected_trace(
    scenario: Scenario, duration_s: float, rate_factor: float, seed: int, demand: tuple[float, ...] | None = None
) -> Trace:
    """Poisson arrivals of each type at its expected rate, every request as long as the mean (an assumption)."""
    times, kinds = [], []
    for index, rule in enumerate(scenario.types):
        factor = rate_factor * (1.0 if demand is None else demand[index])
        draw = stream(seed, f"expected-arrivals-{rule.name}")
        count = int(draw.poisson(rule.expected.arrival_per_h / 3600 * duration_s * factor))
        times.append(np.sort(draw.uniform(0.0, duration_s, count)))
        kinds.append(np.full(count, index, dtype=np.int32))
    arrival_s, kind = np.concatenate(times), np.concatenate(kinds)
    order = np.argsort(arrival_s, kind="stable")
    kind = kind[order]
    inputs = np.array([round(rule.expected.input_tokens) for rule in scenario.types], dtype=np.int32)
    outputs = np.array([round(rule.expected.output_tokens) for rule in scenario.types], dtype=np.int32)
    of_type = [rule.source or rule.name for rule in scenario.types]
    sources = tuple(dict.fromkeys(of_type))  # types of one source differ in their tokens
    return Trace(
        sources=sources,
        arrival_s=arrival_s[order],
        source=np.array([sources.index(name) for name in of_type], dtype=np.int32)[kind],
        input_tokens=inputs[kind],
        output_tokens=outputs[kind],
    )
