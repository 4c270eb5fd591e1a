"""Plans to beat: fleets near the relaxed solution, each routed at least cost.

The better the best known plan, the more options are fixed and the fewer nodes are explored. Fleets come from three
places: subsets of the best-priced options at the root, in order of their Lagrangian bound; the relaxed solution of each
node, rounded; and a local search (drop, add, swap one deployment) around what was found.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from policies.exact.clock import Clock
from policies.exact.lagrangian import Relaxed
from policies.exact.neighbours import Fleet, neighbours, one_of_each_pair, subsets
from policies.exact.options import Options
from policies.heuristics.fleet_bound import NONE, FleetBound
from policies.heuristics.moving import Moving
from policies.heuristics.routing import route_deployments
from simulator.errors import RunError
from simulator.planning.plan import PlanArrays, plan_cost_usd
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

ENUMERATED = {1: 400, 2: 200, 3: 80, 4: 25}  # size of the subsets: among how many of the best-priced options
EXCHANGES = ((1, 60), (1, 400), (2, 40))  # options that are exchanged at a time; among how many of the best-priced ones
CHUNK = 4096  # fleets that are bounded between two looks at the clock
BOUNDS_PER_ROUTING = 400  # fleets that are bounded in the time of one routing
ROUNDINGS = (0.7, 0.5, 0.35, 0.2)


class Incumbents:
    """The best plan so far, and the searches that better it.

    `cost_usd` is that of the plan with what `Options.move_usd` says of its deployments.
    """

    def __init__(
        self, problem: PlanningProblem, options: Options, moving: Moving, clock: Clock, worst_usd: float
    ) -> None:
        self.problem, self.options, self.moving, self.clock = problem, options, moving, clock
        self.worst_usd = worst_usd  # no plan costs as much
        self.fleet_bound = FleetBound(problem)
        self.best: PlanArrays | None = None
        self.cost_usd = np.inf
        self.routed = 0
        self._seen: set[Fleet] = set()
        self._reduced_usd = np.full(len(options), np.inf)
        self._base_usd = -np.inf

    def take(self, arrays: PlanArrays) -> None:
        """A plan that somebody else found."""
        cost_usd = math.fsum(plan_cost_usd(self.problem, arrays).values())
        cost_usd += self.moving.cost_usd(arrays.replicas) - self.moving.leaving_usd
        if cost_usd < self.cost_usd:
            self.best, self.cost_usd = arrays, cost_usd

    def prices(self, relaxed: Relaxed, options: IntArray) -> None:
        """Order and bound fleets by the reduced costs at the root; `options` are those that `relaxed` speaks of."""
        self._reduced_usd = np.full(len(self.options), np.inf)
        self._reduced_usd[options] = relaxed.reduced_usd
        best = np.zeros(int(self.options.pair.max()) + 1)
        np.minimum.at(best, self.options.pair[options], relaxed.reduced_usd)
        self._base_usd = relaxed.bound_usd - float(best.sum())

    def bound_usd(self, fleet: Sequence[int]) -> float:
        """What every plan with exactly this fleet costs at least."""
        if np.isneginf(self._base_usd):
            return -np.inf
        return self._base_usd + float(self._reduced_usd[list(fleet)].sum())

    def enumerate(self, most: int) -> None:
        """Subsets of the best-priced options, cheapest bound at the root first, until `most` of them are routed."""
        last = self.routed + most
        priced = self._best_priced(max(ENUMERATED.values()))
        for size, among in ENUMERATED.items():
            fleets = priced[subsets(min(among, len(priced)), size)]
            bound_usd = self._base_usd + self._reduced_usd[fleets].sum(axis=1)
            keep = np.flatnonzero((bound_usd < self.cost_usd) & one_of_each_pair(fleets, self.options.pair))
            fleets = fleets[keep[np.argsort(bound_usd[keep], kind="stable")]]
            for start in range(0, len(fleets), CHUNK):
                if self.clock.up() or self.routed >= last:
                    return
                for _ in self._betters(fleets[start : start + CHUNK], last):
                    pass

    def round(self, opened: FloatArray) -> None:
        """Fleets of the options that a relaxed solution opens by more than some share."""
        for share in ROUNDINGS:
            chosen = np.flatnonzero(opened >= share)
            chosen = chosen[np.argsort(-opened[chosen], kind="stable")]
            self.try_fleet(tuple(int(d) for d in self.options.first_of_pairs(chosen)))

    def improve(self, most: int, clock: Clock | None = None) -> None:
        """Local search around the best plan, until nothing helps: exchange one option, and where that fails two.

        It ends after `most` routings or when `clock`, or that of the whole search, says so.
        """
        clock = self.clock if clock is None else clock
        fleet = self._fleet()
        if fleet is None:
            return
        self.try_fleet(fleet)
        last = self.routed + most
        while fleet is not None and self.routed < last and not (clock.up() or self.clock.up()):
            fleet = self._better_neighbour(fleet, clock, last)

    def _better_neighbour(self, fleet: Fleet, clock: Clock, last: int) -> Fleet | None:
        """A fleet that costs less, one or two exchanges from `fleet`."""
        for out, among in EXCHANGES:
            around = neighbours(fleet, out, self._best_priced(among), self.options.pair)
            for start in range(0, len(around), CHUNK):
                if clock.up() or self.clock.up():
                    return None
                better = next(self._betters(around[start : start + CHUNK], last), None)
                if better is not None:
                    return better
        return None

    def _betters(self, fleets: IntArray, last: int) -> Iterator[Fleet]:
        """Those of `fleets` (F, K) that turn out better than the best plan before them, cheapest bound first.

        It ends when `last` fleets have been routed in all.
        """
        o = self.options
        fixed_usd = o.fixed_usd + o.move_usd
        cutoff_usd = min(self.cost_usd, self.worst_usd)
        bounds_usd = self.fleet_bound(fleets, o.configuration, o.replicas, fixed_usd, cutoff_usd=cutoff_usd)
        self.clock.spent += len(fleets) / BOUNDS_PER_ROUTING
        promising = np.flatnonzero(bounds_usd < cutoff_usd)
        for n in promising[np.argsort(bounds_usd[promising], kind="stable")]:
            if self.clock.up() or self.routed >= last or bounds_usd[n] >= self.cost_usd:
                return
            fleet = tuple(int(option) for option in fleets[n] if option != NONE)
            if self.try_fleet(fleet):
                yield fleet

    def _best_priced(self, most: int) -> IntArray:
        order = np.argsort(self._reduced_usd, kind="stable")[:most]
        chosen: IntArray = order[np.isfinite(self._reduced_usd[order])]
        return chosen

    def _fleet(self) -> Fleet | None:
        """The best plan as options; for one that is not among them the nearest in rent of its (model, tier)."""
        if self.best is None:
            return None
        found = []
        for a in np.flatnonzero(self.best.replicas):
            of_pair = np.flatnonzero(self.options.pair == self.problem.pair_index[a])
            if len(of_pair):
                rent_usd = self.problem.rent_usd[a] * self.best.replicas[a] + self.problem.model_storage_usd[a]
                other = (self.options.configuration[of_pair] != a) | (
                    self.options.replicas[of_pair] != self.best.replicas[a]
                )
                distance = np.abs(self.options.fixed_usd[of_pair] - rent_usd)
                found.append(int(of_pair[np.lexsort((distance, other))[0]]))
        return tuple(found)

    def routing_of_best(self) -> tuple[IntArray, FloatArray] | None:
        """The best plan as options and the share of each type that each serves; None where that is no plan."""
        fleet = np.array(self._fleet() or (), dtype=np.int64)
        if not len(fleet):
            return None
        o = self.options
        try:
            routing = route_deployments(self.problem, o.configuration[fleet], o.replicas[fleet])
        except RunError:
            return None
        return None if routing is None else (fleet, routing.share)

    def try_fleet(self, fleet: Fleet) -> bool:
        """Route this fleet; whether the plan is the best so far."""
        key = tuple(sorted(fleet))
        if key in self._seen or self.bound_usd(key) >= self.cost_usd:
            return False
        self._seen.add(key)
        self.routed += 1
        self.clock.spent += 1
        chosen = np.array(key, dtype=np.int64)
        move_usd = float(self.options.move_usd[chosen].sum())
        try:
            routing = route_deployments(
                self.problem,
                self.options.configuration[chosen],
                self.options.replicas[chosen],
                below_usd=self.cost_usd - move_usd,
            )
        except RunError:  # the solver failed on this fleet, which says nothing about others
            return False
        if routing is None or routing.cost_usd + move_usd >= self.cost_usd - 1e-12 * abs(self.cost_usd):
            return False
        self.best, self.cost_usd = routing.arrays(self.problem), routing.cost_usd + move_usd
        return True
