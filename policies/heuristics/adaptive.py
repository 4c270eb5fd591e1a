"""`agh`: the adaptive greedy heuristic of arXiv 2604.07472.

Multi-start: the construction of GH for several orders of the types. From each start a local search over placements, the
demand routed by the linear program of `routing.py` after every move, so that a move is judged by what it really costs
and a type may be spread over deployments that only together keep its limits:

- consolidate: empty a deployment, give back one of its replicas, or reshape it to GPUs that rent for no more;
- relocate: take a type, or all types of one deployment, out of the plan and serve them anew, each time with the move of
  lowest marginal cost, which may open, grow or upgrade a deployment.

The cheapest plan of all starts is kept. The first start is GH itself, so AGH never costs more than GH.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from policies.heuristics.dominance import useful_replicas
from policies.heuristics.greedy import Greedy, falling_rate, name_with_switches
from policies.heuristics.infeasible import explain, over_cap
from policies.heuristics.lpr import rounded_fleets
from policies.heuristics.moving import Moving, fleet_in_force
from policies.heuristics.placement import SHARE_TOLERANCE, Placement
from policies.heuristics.routing import route_deployments
from simulator.errors import InfeasibleError, SolverError
from simulator.planning.plan import Plan, PlanArrays, PlanStatus, build_plan, plan_cost_usd
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import IntArray, PlanningProblem
from simulator.rng import stream

Step = Callable[[Placement], Iterator[Placement]]

MANY = 30  # replicas of a fleet from which on it is rounded from the relaxation, too: one by one nothing much moves
RELAXATION_SHARE = 0.3  # of the time limit, for the relaxation
IMPROVEMENT = 1e-7  # of a percent of what a plan costs: a move must gain more than rounding


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
class Point:
    """A placement with its best routing."""

    placement: Placement
    excess: float  # unmet demand beyond the caps; only a plan without any is a plan
    score_usd: float  # cost, moving from the fleet in force, and the price of the excess

    @property
    def rank(self) -> tuple[bool, float]:
        """Order of points: any plan comes before whatever is none, however small its excess and its score."""
        return self.excess > 0, self.score_usd


@dataclass(slots=True)
class _Search:
    """Local search over placements, with the memory of every placement that was routed."""

    problem: PlanningProblem
    greedy: Greedy
    iterations: int
    deadline_s: float
    local: bool
    consolidate: bool
    useful_replicas: IntArray
    timed_out: bool = False
    _known: dict[bytes, Point | float] = field(default_factory=dict)  # of a placement; or a score it cannot beat

    def climb(self, start: Placement, order: IntArray) -> Point | None:
        """Improve a placement until a whole pass over the steps gains nothing, or iterations or time are used up."""
        point, tried, improved = self._route(start, np.inf), 0, True
        while point is not None and improved:
            improved = False
            for step in self._steps(point.placement, order):
                for placement in step(point.placement):
                    if tried == self.iterations or self._is_late():
                        return point
                    tried += 1
                    better = self._route(placement, point.score_usd - IMPROVEMENT * self.problem.money_unit_usd)
                    if better is not None and better.rank < point.rank:
                        point, improved = better, True
                        break
        return point

    def _is_late(self) -> bool:
        self.timed_out = self.timed_out or time.perf_counter() >= self.deadline_s
        return self.timed_out

    def _route(self, placement: Placement, below_usd: float) -> Point | None:
        """`placement` with its best routing, None unless that scores less than `below_usd`."""
        if placement.cost_floor_usd() + placement.moving_usd() >= below_usd:
            return None
        key = placement.configuration.tobytes() + placement.replicas.tobytes()
        known = self._known.get(key, -np.inf)
        if isinstance(known, float) and known < below_usd:
            known = self._known[key] = self._solve(placement, below_usd) or below_usd
        return known if isinstance(known, Point) and known.score_usd < below_usd else None

    def _solve(self, placement: Placement, below_usd: float) -> Point | None:
        moving_usd = placement.moving_usd()
        # A unit of excess costs more than any plan could, so the search leans towards plans that keep the caps.
        # (Not of more replicas than are of use: a price out of all proportion is more than the solver can take.)
        dearest_usd = (self.problem.rent_usd * self.useful_replicas).max(initial=0.0)
        excess_usd = 10.0 * float(self.problem.money_unit_usd + dearest_usd + self.problem.unmet_usd.sum())
        replicas = placement.replicas[placement.active]
        try:
            routing = route_deployments(
                self.problem, placement.deployed, replicas, excess_usd=excess_usd, below_usd=below_usd - moving_usd
            )
        except SolverError:  # a start has been routed greedily; what a step makes of it has no routing yet
            return self._as_it_is(placement, moving_usd, excess_usd) if below_usd == np.inf else None
        if routing is None:
            return None
        routed = placement.with_fleet(placement.deployed, replicas, routing.share)
        score_usd = routing.cost_usd + moving_usd + excess_usd * routing.excess
        return Point(routed, routing.excess, score_usd)

    def _as_it_is(self, placement: Placement, moving_usd: float, excess_usd: float) -> Point:
        unmet = placement.unmet
        excess = float(np.maximum(unmet - self.problem.unmet_cap, 0.0)[over_cap(self.problem, unmet)].sum())
        cost_usd = math.fsum(plan_cost_usd(self.problem, placement.arrays()).values())
        return Point(placement, excess, cost_usd + moving_usd + excess_usd * excess)

    # -- steps: from a placement to a few neighbours ------------------------------------------------------------------

    def _steps(self, placement: Placement, order: IntArray) -> Iterator[Step]:
        pairs = [int(pair) for pair in placement.by_load()]
        if self.consolidate:
            yield from (partial(self._consolidate, pair) for pair in pairs)
        if self.local:
            yield from (partial(self._relocate_type, int(i)) for i in order)
            yield from (partial(self._relocate_deployment, pair, order) for pair in pairs)

    def _consolidate(self, pair: int, placement: Placement) -> Iterator[Placement]:
        """One deployment closed, a replica less, or reshaped for no more rent [paper: AGH, consolidation]."""
        now, count = placement.configuration[pair], placement.replicas[pair]
        if count == 0:  # an earlier step closed it
            return
        closed = placement.copy()
        closed.close(pair)
        yield closed
        for step in _steps_down(int(count)):
            fewer = placement.copy()
            fewer.replicas[pair] = count - step
            yield fewer
        rent_usd = self.problem.rent_usd
        for a in np.flatnonzero(self.problem.pair_index == pair):
            replicas = count
            if rent_usd[a] > rent_usd[now]:
                replicas = int(rent_usd[now] * count / rent_usd[a])
            if a != now and replicas > 0:
                other = placement.copy()
                other.configuration[pair], other.replicas[pair] = a, replicas
                yield other

    def _relocate_type(self, i: int, placement: Placement) -> Iterator[Placement]:
        """One type served anew [paper: AGH, relocate]."""
        yield self._served_anew(placement, [i], None)

    def _relocate_deployment(self, pair: int, order: IntArray, placement: Placement) -> Iterator[Placement]:
        """All types of one deployment served anew, by anything but its configuration [paper: AGH, relocate]."""
        types = [int(i) for i in order if placement.share[i, pair] > SHARE_TOLERANCE]
        if types:
            yield self._served_anew(placement, types, int(placement.configuration[pair]))

    def _served_anew(self, placement: Placement, types: list[int], avoid: int | None) -> Placement:
        moved = placement.copy()
        moved.share[types] = 0.0
        moved.release_idle()
        for i in types:
            self.greedy.serve_anywhere(moved, i, avoid=avoid)
        return moved


def _steps_down(count: int) -> list[int]:
    """By how many replicas a deployment is tried to shrink: by one, a large one by up to an eighth, largest first."""
    steps = [2**k for k in range(count.bit_length()) if 2**k <= count // 8]
    return steps[::-1] or [1] * (count > 1)


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
        return name_with_switches(
            "agh", m1=self.m1, m2=self.m2, m3=self.m3, local=self.local, consolidate=self.consolidate
        )

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Plan from `stop.starts` starts with up to `stop.iterations` moves each.

        Where leaving the fleet in force has a price, the fleet of `incumbent` is the first start.

        Raises
        ------
        InfeasibleError
            If no placement that was tried keeps the unmet caps; the message names the types and the limit.
        """
        started = time.perf_counter()
        best, timed_out = self.search(problem, incumbent, stop, seed)
        if best is None or best.excess > 0:
            raise InfeasibleError(self._complaints(problem, best, timed_out, stop, seed))
        return build_plan(
            problem,
            best.placement.arrays(),
            policy=self.name,
            status=PlanStatus.TIME_LIMIT if timed_out else PlanStatus.FEASIBLE,
            seconds=time.perf_counter() - started,
        )

    def search(
        self, problem: PlanningProblem, incumbent: Plan | None, stop: StoppingRule, seed: int
    ) -> tuple[Point | None, bool]:
        """The best point of all starts, and whether the time limit cut the search short."""
        moving = Moving.of(problem, incumbent)
        search = _Search(
            problem=problem,
            greedy=Greedy(problem, moving, m1=self.m1, m2=self.m2, m3=self.m3),
            iterations=stop.iterations,
            deadline_s=np.inf if stop.time_limit_s is None else time.perf_counter() + stop.time_limit_s,
            local=self.local,
            consolidate=self.consolidate,
            useful_replicas=useful_replicas(problem),
        )

        def starts() -> Iterator[tuple[Placement, IntArray]]:
            if not moving.free:
                yield search.greedy.placed(fleet_in_force(problem, incumbent)), falling_rate(problem)
            for order in orders(problem, stop.starts, seed):
                yield search.greedy.build(order), order

        best: Point | None = None
        for start, order in starts():
            point = search.climb(start, order)
            if point is not None and (best is None or point.rank < best.rank):
                best = point
            if search.timed_out:
                break
        if best is not None and best.placement.replicas.sum() >= MANY and not search.timed_out:
            left_s = None if stop.time_limit_s is None else RELAXATION_SHARE * (search.deadline_s - time.perf_counter())
            for fleet in rounded_fleets(problem, left_s):
                point = search.climb(search.greedy.placed(fleet), falling_rate(problem))
                if point is not None and point.rank < best.rank:
                    best = point
        return best, search.timed_out

    def _complaints(
        self, problem: PlanningProblem, best: Point | None, timed_out: bool, stop: StoppingRule, seed: int
    ) -> list[str]:
        if timed_out:
            return [
                f"problem {problem.name}: {self.name} found no plan that keeps the unmet caps in {stop.time_limit_s} s"
            ]
        one_start = replace(stop, starts=1, time_limit_s=None)

        def plan(variant: PlanningProblem) -> PlanArrays | None:
            point, _ = self.search(variant, None, one_start, seed)
            return None if point is None else point.placement.arrays()

        unmet = np.ones(len(problem.query_types)) if best is None else best.placement.unmet
        return explain(problem, over_cap(problem, unmet), self.name, plan)
