"""Demand against capacity: how long the requests needed replicas, and how many were ready."""

import numpy as np
import numpy.typing as npt

from experiments.scenario.scenario import Scenario
from simulator.engine.results import RequestTable, RunSummary

FloatColumn = npt.NDArray[np.float64]


def work_s(scenario: Scenario, requests: RequestTable) -> FloatColumn:
    """Shape (requests,): seconds for which each request would keep one replica at its limit, 0 unless routed.

    What it takes of the replica's time (`busy_s`), over the share of time that its type's TPOT limit leaves for work.
    """
    limit_s = np.array([rule.planned_tpot_s or np.inf for rule in scenario.types])
    work = busy_s(scenario, requests)
    for index, here in _by_deployment(requests):
        replica = scenario.nominal_replica(requests.deployments[index])
        work[here] /= scenario.discipline.share_for_work(replica, limit_s[requests.query_type[here]])
    return work


def busy_s(scenario: Scenario, requests: RequestTable) -> FloatColumn:
    """Shape (requests,): what each request takes of the time of one replica at its deployment, 0 unless routed."""
    busy = np.zeros(len(requests))
    for index, here in _by_deployment(requests):
        replica = scenario.nominal_replica(requests.deployments[index])
        inputs = requests.input_tokens[here].astype(np.float64)
        outputs = requests.output_tokens[here].astype(np.float64)
        busy[here] = scenario.discipline.work_s(replica, inputs, outputs)
    return busy


def _by_deployment(requests: RequestTable) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """Each deployment that requests were routed to, by index, with the mask of these requests."""
    used = np.unique(requests.deployment[requests.deployment >= 0]).tolist()
    return [(index, requests.deployment == index) for index in used]


def replicas_ready(result: RunSummary, edges: FloatColumn) -> FloatColumn:
    """Shape (intervals,): mean number of replicas that were ready or draining in each interval."""
    ready_s = np.zeros(len(edges) - 1)
    for rental in result.rentals:
        ready_s += np.maximum(0.0, np.minimum(rental.end_s, edges[1:]) - np.maximum(rental.ready_s, edges[:-1]))
    return ready_s / np.diff(edges)
