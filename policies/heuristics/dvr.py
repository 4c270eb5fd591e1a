"""`dvr`: what arXiv 2604.07472 calls decoupled VM selection and routing. How it works in detail is our reading."""

import time
from dataclasses import dataclass

import numpy as np

from policies.heuristics.greedy import usable_alone
from policies.heuristics.infeasible import explain, over_cap
from policies.heuristics.routing import room, route, route_deployments
from simulator.errors import InfeasibleError
from simulator.planning.plan import Plan, PlanArrays, PlanStatus, build_plan
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

WHOLE = 1e-6  # what rounding may add to replicas that are a whole number


@dataclass(frozen=True, slots=True)
class Dvr:
    """Decoupled VM selection and routing, as we read it.

    Each type asks for the configuration that serves its whole demand at the lowest rent and weights storage in whole
    replicas (per unit of what `max_replicas` can serve), among those that keep its delay and error limits by
    themselves. The wishes are merged per (model, tier): the configuration that most of its types ask for, with
    replicas for the demand of all of them together. These are rented by falling unmet penalty of their types, with as
    many replicas as the budget still pays after the weights and the tokens of those types, which cost the same wherever
    they are served. Only then the demand is routed, by the linear program.
    """

    @property
    def name(self) -> str:
        return "dvr"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Choose, then route, once and in milliseconds; `incumbent`, `stop` and `seed` play no part.

        Raises
        ------
        InfeasibleError
            If no routing over the chosen fleet keeps the unmet caps; the message names the types and the limit.
        """
        started = time.perf_counter()
        arrays = route(problem, _chosen_fleet(problem))
        if arrays is None:
            raise InfeasibleError(self._complaints(problem))
        return build_plan(
            problem,
            arrays,
            policy=self.name,
            status=PlanStatus.FEASIBLE,
            seconds=time.perf_counter() - started,
        )

    def _complaints(self, problem: PlanningProblem) -> list[str]:
        def plan(variant: PlanningProblem) -> PlanArrays | None:
            fleet = _chosen_fleet(variant)
            deployed = np.flatnonzero(fleet)
            # Unmet demand beyond the caps costs what it does within: what is short is short for lack of room.
            routing = route_deployments(variant, deployed, fleet[deployed], excess_usd=_dearest_usd(variant))
            return None if routing is None else routing.arrays(variant)

        arrays = plan(problem)
        unmet = np.ones(len(problem.query_types)) if arrays is None else arrays.unmet
        return explain(problem, over_cap(problem, unmet), self.name, plan) or [
            f"problem {problem.name}: {self.name} finds no plan: no routing over the fleet that it chose keeps every "
            "limit"
        ]


def _dearest_usd(problem: PlanningProblem) -> float:
    """More than any plan pays for its demand, so that the elastic caps are broken only where they must be."""
    return 10.0 * float(problem.money_unit_usd + problem.unmet_usd.sum() + problem.delay_penalty_usd.sum())


def _chosen_fleet(problem: PlanningProblem) -> IntArray:
    """Shape (configurations,): the replicas that the types ask for, as far as budget and storage go."""
    wish, use = _wishes(problem), _replicas_used(problem)
    replicas = np.zeros(len(problem.configurations), dtype=np.int64)
    wanted = [int(pair) for pair in np.unique(problem.pair_index[wish[wish >= 0]])]
    types_of = {pair: np.flatnonzero((wish >= 0) & (problem.pair_index[wish] == pair)) for pair in wanted}
    left_usd, left_gb = room(problem.budget_usd), room(problem.storage_capacity_gb)
    for pair in sorted(wanted, key=lambda pair: -float(problem.unmet_usd[types_of[pair]].sum())):
        types = types_of[pair]
        a = int(np.bincount(wish[types]).argmax())
        count = np.clip(np.ceil(use[types, a].sum() - WHOLE), 1, problem.max_replicas)
        storage_usd = problem.model_storage_usd[a] + problem.token_storage_usd[types].sum()
        storage_gb = problem.model_storage_gb[a] + problem.token_storage_gb[types].sum()
        if problem.rent_usd[a] > 0:
            count = min(count, np.floor((left_usd - storage_usd) / problem.rent_usd[a]))
        spent_usd = problem.rent_usd[a] * count + storage_usd
        if count >= 1 and spent_usd <= left_usd and storage_gb <= left_gb:
            replicas[a] = int(count)
            left_usd, left_gb = left_usd - spent_usd, left_gb - storage_gb
    return replicas


def _wishes(problem: PlanningProblem) -> IntArray:
    """Shape (types,): the configuration that each type would rent if it were alone, -1 if there is none."""
    use = _replicas_used(problem)
    wish = np.full(len(use), -1, dtype=np.int64)
    if problem.max_replicas < 1 or use.size == 0:
        return wish
    usable = usable_alone(problem) & np.isfinite(use)
    replicas = np.clip(np.ceil(use - WHOLE), 1, problem.max_replicas)
    served = np.minimum(np.divide(replicas, use, out=np.ones_like(use), where=use > replicas), 1.0)
    asked_usd = problem.rent_usd * replicas + problem.model_storage_usd
    usd = np.divide(asked_usd, served, out=np.full_like(use, np.inf), where=usable)
    best = np.lexsort((use, usd), axis=1)[:, 0]  # of equal cost the one that the type fills least
    some = usable.any(axis=1)
    wish[some] = best[some]
    return wish


def _replicas_used(problem: PlanningProblem) -> FloatArray:
    """Shape (types, configurations): replicas that the whole demand of the type fills, not whole; maybe infinite."""
    cap = np.broadcast_to(problem.cap, problem.load.shape)
    by_load = np.divide(problem.load, cap, out=np.where(problem.load > 0, np.inf, 0.0), where=cap > 0)
    return np.maximum(by_load, problem.kv)
