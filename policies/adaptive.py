"""`agh`: the adaptive greedy heuristic of arXiv 2604.07472.

Multi-start: the construction of GH for several orders of the types. From each start a local search over placements, with
the demand routed by the linear program of `routing.py` after every move, so that a move is judged by what it really
costs and a type may be spread over deployments that only together keep its limits:

- consolidate: empty a deployment, give back one of its replicas, or shrink it to fewer GPUs;
- relocate: take a type, or all types of one deployment, out of the plan and serve them anew, each time with the move of
  lowest marginal cost, which may open, grow or upgrade a deployment.

The cheapest plan of all starts is kept. The first start is GH itself, so AGH never costs more than GH.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from policies.fleet import SHARE_TOLERANCE, Fleet
from policies.greedy import Greedy, name_with_switches
from policies.routing import route_deployments
from simulator.errors import InfeasibleError
from simulator.plan import Plan, PlanStatus, build_plan
from simulator.policy import StoppingRule
from simulator.problem import IntArray, PlanningProblem
from simulator.rng import stream

IMPROVEMENT_USD = 1e-7  # a move must gain more than rounding


def orders(problem: PlanningProblem, starts: int, seed: int) -> Iterator[IntArray]:
    """Orders of the types, one per start [paper: AGH, multi-start].

    By arrival rate, error SLO and token storage, each falling and rising, then random permutations.
    """
    keys = (problem.arrival_per_h, problem.error_slo, problem.token_storage_gb)
    sorted_orders = [np.argsort(sign * key, kind="stable") for key in keys for sign in (-1, 1)]
    random = stream(seed, "agh")
    for start in range(starts):
        yield sorted_orders[start] if start < len(sorted_orders) else random.permutation(len(problem.query_types))


@dataclass(frozen=True, slots=True)
class _Point:
    """A placement with its best routing."""

    fleet: Fleet
    excess: float  # unmet demand beyond the caps; only a plan without any is a plan
    cost_usd: float
    score_usd: float  # cost and the price of the excess


@dataclass(slots=True)
class _Search:
    """Local search over placements, with the memory of every placement that was routed."""

    problem: PlanningProblem
    greedy: Greedy
    iterations: int
    deadline_s: float
    local: bool
    consolidate: bool
    timed_out: bool = False
    _routed: dict[bytes, _Point | None] = field(default_factory=dict)

    def climb(self, start: Fleet, order: IntArray) -> _Point | None:
        """Improve a placement until no move does, or the iterations or the time are used up."""
        point = self._route(start, np.inf)
        tried = 0
        while point is not None and tried < self.iterations and not self.timed_out:
            for fleet in self._neighbours(point.fleet, order):
                tried += 1
                better = self._route(fleet, point.score_usd - IMPROVEMENT_USD)
                if better is not None:
                    point = better
                    break
                if tried >= self.iterations or self._is_late():
                    break
            else:
                break
        return point

    def _is_late(self) -> bool:
        self.timed_out = self.timed_out or time.perf_counter() >= self.deadline_s
        return self.timed_out

    def _route(self, fleet: Fleet, below_usd: float) -> _Point | None:
        """The placement of `fleet` with its best routing, None unless that scores less than `below_usd`."""
        if self._floor_usd(fleet) >= below_usd:
            return None
        key = fleet.configuration.tobytes() + fleet.replicas.tobytes()
        if key not in self._routed:
            self._routed[key] = self._solve(fleet)
        point = self._routed[key]
        return point if point is not None and point.score_usd < below_usd else None

    def _solve(self, fleet: Fleet) -> _Point | None:
        # A unit of excess costs more than any plan could, so the search first looks for a plan that keeps the caps.
        excess_usd = 10.0 * float(self.problem.unmet_usd.sum() + self.problem.rent_usd.max() * self.problem.max_replicas)
        routing = route_deployments(self.problem, fleet.deployed, fleet.replicas[fleet.active], excess_usd=excess_usd)
        if routing is None:
            return None
        routed = Fleet.of(self.problem, routing.deployed, routing.replicas, routing.share)
        score_usd = routing.cost_usd + excess_usd * routing.excess
        return _Point(routed, routing.excess, routing.cost_usd, score_usd)

    def _floor_usd(self, fleet: Fleet) -> float:
        """A lower bound on the cost of a placement that spares most of the linear programs: every limit ignored."""
        problem, a = self.problem, fleet.deployed
        fixed_usd = problem.rent_usd[a] @ fleet.replicas[fleet.active] + problem.model_storage_usd[a].sum()
        serve_usd = problem.delay_penalty_usd[:, a].min(axis=1, initial=np.inf) + problem.token_storage_usd
        return float(fixed_usd + np.minimum(serve_usd, problem.unmet_usd).sum())

    # -- neighbours of a placement --------------------------------------------------------------------------------------

    def _neighbours(self, fleet: Fleet, order: IntArray) -> Iterator[Fleet]:
        if self.consolidate:
            yield from self._consolidations(fleet)
        if self.local:
            yield from self._relocations(fleet, order)

    def _consolidations(self, fleet: Fleet) -> Iterator[Fleet]:
        """Less of one deployment, lightly loaded ones first [paper: AGH, consolidation]."""
        for pair in self._by_load(fleet):
            now, count = fleet.configuration[pair], fleet.replicas[pair]
            closed = fleet.copy()
            closed.close(pair)
            yield closed
            if count > 1:
                fewer = fleet.copy()
                fewer.replicas[pair] = count - 1
                yield fewer
            for a in np.flatnonzero(self.problem.pair_index == pair):
                if a != now and self.problem.rent_usd[a] < self.problem.rent_usd[now] * count:
                    smaller = fleet.copy()
                    smaller.configuration[pair], smaller.replicas[pair] = a, 1
                    yield smaller

    def _relocations(self, fleet: Fleet, order: IntArray) -> Iterator[Fleet]:
        """One type, or all types of one deployment, served anew [paper: AGH, relocate]."""
        for i in order:
            yield self._moved(fleet, [i], None)
        for pair in self._by_load(fleet):
            types = [i for i in order if fleet.share[i, pair] > SHARE_TOLERANCE]
            yield self._moved(fleet, types, int(fleet.configuration[pair]))

    def _moved(self, fleet: Fleet, types: list[int], avoid: int | None) -> Fleet:
        moved = fleet.copy()
        moved.share[types] = 0.0
        moved.release_idle()
        for i in types:
            self.greedy.serve_anywhere(moved, i, avoid=avoid)
        return moved

    def _by_load(self, fleet: Fleet) -> IntArray:
        """Active pairs by rising use of their replicas."""
        problem, a, share = self.problem, fleet.deployed, fleet.share[:, fleet.active]
        load = (problem.load[:, a] * share).sum(axis=0) / problem.cap[a]
        kv = (problem.kv[:, a] * share).sum(axis=0)
        return fleet.active[np.argsort(np.maximum(load, kv) / fleet.replicas[fleet.active], kind="stable")]


@dataclass(frozen=True, slots=True)
class Agh:
    """Adaptive greedy heuristic. The switches leave out a mechanism, for the ablation study."""

    m1: bool = True
    m2: bool = True
    m3: bool = True
    local: bool = True
    consolidate: bool = True

    @property
    def name(self) -> str:
        return name_with_switches("agh", self)

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Plan from `stop.starts` starts with up to `stop.iterations` moves each; `incumbent` plays no part.

        Raises
        ------
        InfeasibleError
            If no placement that was tried keeps the unmet caps; the message names the types and the limit.
        """
        started = time.perf_counter()
        best, timed_out = self._search(problem, stop, seed)
        if best is None or best.excess > 0:
            raise InfeasibleError("todo")
        return build_plan(
            problem,
            best.fleet.arrays(),
            policy=self.name,
            status=PlanStatus.TIME_LIMIT if timed_out else PlanStatus.FEASIBLE,
            seconds=time.perf_counter() - started,
        )

    def _search(self, problem: PlanningProblem, stop: StoppingRule, seed: int) -> tuple[_Point | None, bool]:
        """The best point of all starts, and whether the time limit cut the search short."""
        search = _Search(
            problem=problem,
            greedy=Greedy(problem, m1=self.m1, m2=self.m2, m3=self.m3),
            iterations=stop.iterations,
            deadline_s=np.inf if stop.time_limit_s is None else time.perf_counter() + stop.time_limit_s,
            local=self.local,
            consolidate=self.consolidate,
        )
        best: _Point | None = None
        for order in orders(problem, stop.starts, seed):
            point = search.climb(search.greedy.build(order), order)
            if point is not None and (best is None or point.score_usd < best.score_usd):
                best = point
            if search.timed_out:
                break
        return best, search.timed_out
