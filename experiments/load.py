"""Demand against capacity: how long the requests needed replicas, and how many were ready."""

import numpy as np
import numpy.typing as npt

from experiments.scenario import Scenario
from simulator.catalog import kv_capacity_tokens
from simulator.fleet import DeploymentKey
from simulator.replica import Discipline
from simulator.results import RequestTable, RunSummary

FloatColumn = npt.NDArray[np.float64]


def work_s(scenario: Scenario, requests: RequestTable) -> FloatColumn:
    """Shape (requests,): seconds for which each request would keep one replica at its limit, 0 unless routed.

    `batching`: replica seconds v of the request over 1 - a / TPOT limit (module text of `simulator.batching`).
    `static`: the share of the KV cache that it holds, for as long as its two-phase delay.
    """
    needed = np.zeros(len(requests))
    work = _WORK[scenario.file.discipline]
    for index in np.unique(requests.deployment[requests.deployment >= 0]).tolist():
        own = requests.deployment == index
        inputs = requests.input_tokens[own].astype(np.float64)
        outputs = requests.output_tokens[own].astype(np.float64)
        needed[own] = work(scenario, requests.deployments[index], inputs, outputs, requests.query_type[own])
    return needed


def _batching_work_s(
    scenario: Scenario,
    key: DeploymentKey,
    inputs: FloatColumn,
    outputs: FloatColumn,
    types: npt.NDArray[np.int32],
) -> FloatColumn:
    model, tier, n, m = key
    step = scenario.delay_model.step_cost(scenario.catalog.models[model], scenario.catalog.tiers[tier], n, m)
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
) -> FloatColumn:
    del types
    model, tier = scenario.catalog.models[key[0]], scenario.catalog.tiers[key[1]]
    delay = scenario.delay_model.request_delay(model, tier, key[2], key[3])
    capacity = kv_capacity_tokens(model, tier, key[2], key[3], scenario.file.catalog.memory_utilisation)
    return np.asarray(delay.delay_s(inputs, outputs) * (inputs + outputs) / capacity)


_WORK = {Discipline.BATCHING: _batching_work_s, Discipline.STATIC: _static_work_s}


def replicas_ready(result: RunSummary, edges: FloatColumn) -> FloatColumn:
    """Shape (intervals,): mean number of replicas that were ready or draining in each interval."""
    ready_s = np.zeros(len(edges) - 1)
    for rental in result.rentals:
        ready_s += np.maximum(0.0, np.minimum(rental.end_s, edges[1:]) - np.maximum(rental.ready_s, edges[:-1]))
    return ready_s / np.diff(edges)
