"""What to do where static headroom is the wrong tool: other ways to keep the SLOs, each with its price.

A fleet that has to stand at a few percent of its limit so that the bursts fit is paid for the bursts all the time.
Others pay less: plan again more often, refuse what comes in the peak, or promise less.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.measures.agreement import expected
from experiments.measures.cost import fleet_cost_by_phase
from experiments.measures.tally import Judgement
from experiments.replay.run import ReplayOptions, engine_of, replay_policy, survey
from experiments.scenario.scenario import Scenario
from experiments.scenario.slo import ROUNDING, beyond, count_slo, percentile_name
from experiments.verify.draws import Draws
from experiments.verify.search import Search, Tried
from policies.registry import make_policy
from simulator.engine.results import RequestTable
from simulator.units import SECONDS_PER_H

INTERVALS_S = (300.0, 60.0)
REPLANNER = "agh"
LITTLE = 0.3  # a load over its limit below which static headroom is the wrong tool
LEVELS = (0.9, 0.75, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One way, priced on the arrivals that were learned from.

    `late_share` is that of the SLO which is furthest beyond what may be late, or closest to it; `basis` says whether it
    was simulated or estimated, and how.
    """

    way: str
    cost_usd_per_h: float
    late_share: float
    holds: bool
    basis: str


def emptiest(scenario: Scenario, search: Search) -> tuple[str, float] | None:
    """The deployment of the best plan (or the closest) with the lowest load over its limit, if below `LITTLE`."""
    at = search.best or search.closest
    if at is None:
        return None
    said = expected(scenario, search.sample.demand(scenario), at.candidate.plan)
    loads = {}
    for deployment in at.candidate.plan.deployments:
        c = deployment.configuration
        found, step = said[c.deployment_key], scenario.step_cost(c.deployment_key)
        if found.requests_per_s > 0:
            limit = step.share_for_work(c.tpot_target_s or max(scenario.tpot_targets_s))
            loads[f"{c.model} on {c.tier} TP{c.tensor_parallel}"] = found.load / limit
    name = min(loads, key=loads.__getitem__, default=None)
    return None if name is None or loads[name] >= LITTLE else (name, loads[name])


def alternatives(scenario: Scenario, draws: Draws, search: Search, seed: int) -> list[Alternative]:
    """Shorter re-planning intervals, admission control and looser percentiles, each with its price."""
    return [
        *_replanned(scenario, draws, search, seed),
        *_refusing(scenario, search),
        *_looser(search),
    ]


def _replanned(scenario: Scenario, draws: Draws, search: Search, seed: int) -> list[Alternative]:
    found = []
    chosen, functions = engine_of(scenario)
    arriving = survey(scenario, draws.learning_source)
    for interval_s in INTERVALS_S:
        late, of = np.zeros((2, sum(map(len, search.slos))))

        def take(
            batch: RequestTable,
            _: Judgement,
            __: npt.NDArray[np.int32],
            late: npt.NDArray[np.float64] = late,
            of: npt.NDArray[np.float64] = of,
        ) -> None:
            counts = [count_slo(batch, i, slo) for i, of_type in enumerate(search.slos) for slo in of_type]
            late += [count.over for count in counts]
            of += [count.requests for count in counts]

        options = ReplayOptions(interval_s=interval_s, seed=seed, engine=chosen, functions=functions)
        run = replay_policy(scenario, arriving, make_policy(REPLANNER), options, sink=take)
        allowed = np.array([slo.allowed for of_type in search.slos for slo in of_type])
        share = np.divide(late, of, out=np.zeros_like(late), where=of > 0)
        worst = int(np.argmax(share / allowed))
        start_up_usd, _, drain_usd = fleet_cost_by_phase(scenario, run.result)  # as other ways: only while it serves
        cost_usd = run.summary["cost_usd"]
        assert isinstance(cost_usd, float)
        found.append(
            Alternative(
                way=f"plan again every {interval_s / 60:g} min ({REPLANNER}, cap {scenario.file.limits.cap:g})",
                cost_usd_per_h=(cost_usd - start_up_usd - drain_usd) * SECONDS_PER_H / draws.learning.horizon_s,
                late_share=float(share[worst]),
                holds=bool((share <= allowed + ROUNDING).all()),
                basis="simulated",
            )
        )
    return found


def _refusing(scenario: Scenario, search: Search) -> list[Alternative]:
    """Of each plan that was tried: if every request that is late there were refused when it came."""
    horizon_s = search.sample.horizon_s
    offers = []
    for item in search.tried:
        requests, refused_usd = item.trial.run.requests, 0.0
        refused = np.zeros(len(requests), dtype=np.bool_)
        for i, of_type in enumerate(search.slos):
            for slo in of_type:
                refused |= beyond(requests, slo)[1] & (requests.query_type == i)
        refused &= requests.served  # what was not served is in the cost already
        for i, rule in enumerate(scenario.types):
            refused_usd += rule.unmet_penalty_usd_per_query * int((refused & (requests.query_type == i)).sum())
        cost_usd_per_h = item.trial.cost_usd_per_h + refused_usd * SECONDS_PER_H / horizon_s
        offers.append((cost_usd_per_h, float(refused.mean()) if len(refused) else 0.0))
    if not offers:
        return []
    cost_usd_per_h, share = min(offers)
    way = f"refuse {share:.1%} of the requests, in the peaks (admission control)"
    basis = "estimated where it was learned: what is late is refused, at its penalty; the others can only gain"
    return [Alternative(way=way, cost_usd_per_h=cost_usd_per_h, late_share=0.0, holds=True, basis=basis)]


def _looser(search: Search) -> list[Alternative]:
    """The cheapest plan that was tried and keeps all limits at a lower percentile."""
    found: list[Alternative] = []
    for level in LEVELS:
        fit = [item for item in search.tried if _most_late(item) <= 1 - level + ROUNDING]
        if not fit or any(slo.level <= level for of_type in search.slos for slo in of_type):
            continue
        item = min(fit, key=lambda tried: tried.trial.cost_usd_per_h)
        if found and item.trial.cost_usd_per_h >= found[-1].cost_usd_per_h:
            continue  # promising still less saves nothing
        found.append(
            Alternative(
                way=f"promise {percentile_name(level)} instead",
                cost_usd_per_h=item.trial.cost_usd_per_h,
                late_share=_most_late(item),
                holds=True,
                basis="simulated, only where it was learned",
            )
        )
    return found


def _most_late(item: Tried) -> float:
    return max(item.trial.late, default=0.0)
