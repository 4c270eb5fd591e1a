"""How much headroom a deployment needs, read from one simulation of it.

Which requests are late depends on the load around them: the work that arrived at their deployment within a residence
time of them. If a share v of a type's requests at a deployment was late, the load that is too much is about the
quantile 1 - v of that load over the requests, Q(1 - v); it must not be exceeded by more than 1 - p of them, so that
the load has to shrink, or the capacity to grow, by

    Q(p) / Q(1 - v)

Only the order of the loads is used, and the scale cancels: what queues and batching really do is in v. A deployment
that keeps the limits of its types keeps its load.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.scenario.scenario import Scenario
from experiments.scenario.slo import ROUNDING, PercentileSlo, beyond
from experiments.verify.guess import window_of
from experiments.verify.sample import Sample
from simulator.catalog.configuration import DeploymentKey
from simulator.engine.results import RequestTable
from simulator.planning.plan import Plan

FloatArray = npt.NDArray[np.float64]

LEAST, MOST = 1.03, 2.5  # of one round: a load far above its limit says little about where that is


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """By what factor the load of a deployment has to shrink, and for which SLO of which type."""

    factor: float
    query_type: int
    slo: PercentileSlo


def needs(
    scenario: Scenario,
    sample: Sample,
    plan: Plan,
    requests: RequestTable,
    slos: Sequence[Sequence[PercentileSlo]],
    guard: float,
) -> dict[DeploymentKey, Need]:
    """Deployments at which more requests are late than may be, with what they need.

    Parameters
    ----------
    requests
        Of a simulation of the plan.
    """
    found: dict[DeploymentKey, Need] = {}
    late_of_slo = [(i, slo, beyond(requests, slo, guard)) for i, of_type in enumerate(slos) for slo in of_type]
    for deployment in plan.deployments:
        key = deployment.configuration.deployment_key
        if key not in requests.deployments:
            continue
        here = requests.deployment == requests.deployments.index(key)
        counts = np.bincount(requests.query_type[here], minlength=len(slos))
        if not counts.any():
            continue
        share = counts / np.maximum([len(of_type) for of_type in sample.types], 1)
        window_s = window_of(scenario, sample, deployment.configuration, share)
        load = np.full(len(requests), np.nan)
        load[here] = local_load(scenario, requests, here, key, window_s)
        for i, slo, (applies, over) in late_of_slo:
            of_type = here & applies & (requests.query_type == i)
            late = int((of_type & over).sum())
            if late <= (slo.allowed + ROUNDING) * of_type.sum():
                continue
            factor = float(np.clip(_factor(load[of_type], late / of_type.sum(), slo.level), LEAST, MOST))
            if key not in found or factor > found[key].factor:
                found[key] = Need(factor=factor, query_type=i, slo=slo)
    return found


def _factor(load: FloatArray, late_share: float, level: float) -> float:
    wanted, bearable = np.quantile(load, [level, 1 - late_share])
    return float(wanted / bearable) if bearable > 0 else MOST


def local_load(
    scenario: Scenario, requests: RequestTable, here: npt.NDArray[np.bool_], key: DeploymentKey, window_s: float
) -> FloatArray:
    """Work that arrived within a window before or after each request of a deployment [replica seconds per second]."""
    arrival_s = requests.arrival_s[here]
    inputs, outputs = (column[here].astype(np.float64) for column in (requests.input_tokens, requests.output_tokens))
    done = np.concatenate([[0.0], np.cumsum(scenario.step_cost(key).work_s(inputs, outputs))])
    upto = np.searchsorted(arrival_s, arrival_s + window_s, side="right")
    since = np.searchsorted(arrival_s, arrival_s - window_s, side="left")
    return np.asarray((done[upto] - done[since]) / (2 * window_s))
