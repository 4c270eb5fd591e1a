"""Demand against capacity: how many replicas the routed requests needed, and how many were ready."""

import numpy as np
import numpy.typing as npt

from experiments.scenario import Scenario
from simulator.catalog import kv_capacity_tokens
from simulator.fleet import DeploymentKey
from simulator.replica import Discipline
from simulator.results import RunResult

FloatColumn = npt.NDArray[np.float64]


def replicas_needed(
    scenario: Scenario, result: RunResult, edges: FloatColumn, delay_factor: float = 1.0
) -> FloatColumn:
    """Shape (intervals,): replicas that the requests arriving in each interval would keep at their limit.

    `batching`: replica seconds v of each request over 1 - a / TPOT limit (module text of `simulator.batching`).
    `static`: the share of the KV cache that a request holds, for as long as its two-phase delay.
    """
    requests = result.requests
    work_s = np.zeros(len(requests))
    for index, key in enumerate(requests.deployments):
        own = requests.deployment == index
        inputs = requests.input_tokens[own].astype(np.float64)
        outputs = requests.output_tokens[own].astype(np.float64)
        work_s[own] = _WORK[scenario.file.discipline](
            scenario, key, inputs, outputs, requests.query_type[own], delay_factor
        )
    interval = np.searchsorted(edges[1:-1], requests.arrival_s, side="right")
    return np.bincount(interval, weights=work_s, minlength=len(edges) - 1) / np.diff(edges)


def _batching_work_s(
    scenario: Scenario,
    key: DeploymentKey,
    inputs: FloatColumn,
    outputs: FloatColumn,
    types: npt.NDArray[np.int32],
    delay_factor: float,
) -> FloatColumn:
    model, tier, n, m = key
    step = scenario.delay_model.step_cost(scenario.catalog.models[model], scenario.catalog.tiers[tier], n, m)
    step = step.scaled(delay_factor)
    work_s = (
        step.prefill_s_per_token * inputs
        + step.decode_s_per_sequence * outputs
        + step.context_s_per_token * (inputs * outputs + outputs**2 / 2)
    )
    limit_s = np.array([np.inf if rule.tpot_slo_s is None else rule.tpot_slo_s for rule in scenario.types])
    return work_s / np.maximum(1 - step.base_s / limit_s, 1e-9)[types]


def _static_work_s(
    scenario: Scenario,
    key: DeploymentKey,
    inputs: FloatColumn,
    outputs: FloatColumn,
    types: npt.NDArray[np.int32],
    delay_factor: float,
) -> FloatColumn:
    del types
    model, tier = scenario.catalog.models[key[0]], scenario.catalog.tiers[key[1]]
    delay = scenario.delay_model.request_delay(model, tier, key[2], key[3])
    capacity = kv_capacity_tokens(model, tier, key[2], key[3], scenario.file.catalog.memory_utilisation)
    return np.asarray(delay.delay_s(inputs, outputs) * delay_factor * (inputs + outputs) / capacity)


_WORK = {Discipline.BATCHING: _batching_work_s, Discipline.STATIC: _static_work_s}


def replicas_ready(result: RunResult, edges: FloatColumn) -> FloatColumn:
    """Shape (intervals,): mean number of replicas that were ready or draining in each interval."""
    ready_s = np.zeros(len(edges) - 1)
    for rental in result.rentals:
        ready_s += np.maximum(0.0, np.minimum(rental.end_s, edges[1:]) - np.maximum(rental.ready_s, edges[:-1]))
    return ready_s / np.diff(edges)
