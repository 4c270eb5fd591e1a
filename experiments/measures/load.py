"""Demand against capacity: how long the requests needed replicas, and how many were ready."""

import numpy as np
import numpy.typing as npt

from experiments.scenario.scenario import Scenario
from simulator.engine.results import RequestTable, RunSummary
from simulator.fleet.replicas import DeploymentKey
from simulator.replica.disciplines import Discipline

FloatColumn = npt.NDArray[np.float64]


def work_s(scenario: Scenario, requests: RequestTable) -> FloatColumn:
    """Shape (requests,): seconds for which each request would keep one replica at its limit, 0 unless routed.

    `batching`: its share of a replica's time (`busy_s`) over 1 - a / TPOT limit (module text of
    `simulator.planning.batching_rows`). `static`: the share of the KV cache that it holds, for as long as its two-phase
    delay.
    """
    busy = busy_s(scenario, requests)
    if scenario.file.discipline is Discipline.STATIC or not len(requests.deployments):
        return busy
    base_s = np.array([scenario.step_cost(key).base_s for key in requests.deployments])
    limit_s = np.array([rule.planned_tpot_s or np.inf for rule in scenario.types])
    left = np.maximum(1 - base_s[requests.deployment] / limit_s[requests.query_type], 1e-9)
    return np.where(requests.deployment >= 0, busy / left, 0.0)


def busy_s(scenario: Scenario, requests: RequestTable) -> FloatColumn:
    """Shape (requests,): what each request takes of the time of one replica at its deployment, 0 unless routed.

    `batching`: the work that it adds to the steps (`StepCost.work_s`). `static`: the share of the KV cache that it
    holds, for as long as its two-phase delay.
    """
    busy = np.zeros(len(requests))
    of_key = _BUSY[scenario.file.discipline]
    for index in np.unique(requests.deployment[requests.deployment >= 0]).tolist():
        own = requests.deployment == index
        inputs = requests.input_tokens[own].astype(np.float64)
        outputs = requests.output_tokens[own].astype(np.float64)
        busy[own] = of_key(scenario, requests.deployments[index], inputs, outputs)
    return busy


def _batching_busy_s(scenario: Scenario, key: DeploymentKey, inputs: FloatColumn, outputs: FloatColumn) -> FloatColumn:
    return scenario.step_cost(key).work_s(inputs, outputs)


def _static_busy_s(scenario: Scenario, key: DeploymentKey, inputs: FloatColumn, outputs: FloatColumn) -> FloatColumn:
    model, tier, n, m = key
    delay = scenario.delay_model.request_delay(scenario.catalog.models[model], scenario.catalog.tiers[tier], n, m)
    return np.asarray(delay.delay_s(inputs, outputs) * (inputs + outputs) / max(scenario.kv_tokens(key), 1))


_BUSY = {Discipline.BATCHING: _batching_busy_s, Discipline.STATIC: _static_busy_s}


def replicas_ready(result: RunSummary, edges: FloatColumn) -> FloatColumn:
    """Shape (intervals,): mean number of replicas that were ready or draining in each interval."""
    ready_s = np.zeros(len(edges) - 1)
    for rental in result.rentals:
        ready_s += np.maximum(0.0, np.minimum(rental.end_s, edges[1:]) - np.maximum(rental.ready_s, edges[:-1]))
    return ready_s / np.diff(edges)
