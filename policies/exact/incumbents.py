"""Plans to beat: fleets near the relaxed solution, each routed at least cost.

The better the best known plan, the more options are fixed and the fewer nodes are explored. Fleets come from three
places: subsets of the best-priced options at the root, in order of their Lagrangian bound; the relaxed solution of each
node, rounded; and a local search (drop, add, swap one deployment) around what was found.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from policies.exact.clock import Clock
from policies.exact.lagrangian import Relaxed
from policies.exact.options import Options
from policies.moving import Moving
from policies.routing import route_deployments
from simulator.errors import RunError
from simulator.plan import PlanArrays, plan_cost_usd
from simulator.problem import FloatArray, IntArray, PlanningProblem

ENUMERATED = {1: 200, 2: 100, 3: 50, 4: 25}  # size of the subsets: among how many of the best-priced options
ROUTED_AT_ROOT = 200
SWAPS = 40  # best-priced options that may come in
ROUNDINGS = (0.7, 0.5, 0.35, 0.2)

Fleet = tuple[int, ...]


class Incumbents:
    """The best plan so far, and the searches that better it.

    `cost_usd` is that of the plan with what `Options.move_usd` says of its deployments.
    """

    def __init__(self, problem: PlanningProblem, options: Options, moving: Moving, clock: Clock) -> None:
        self.problem, self.options, self.moving, self.clock = problem, options, moving, clock
        self.best: PlanArrays | None = None
        self.cost_usd = np.inf
        self.routed = 0
        self._seen: set[Fleet] = set()
        self._reduced: FloatArray | None = None
        self._base_usd = -np.inf

    def take(self, arrays: PlanArrays) -> None:
        """A plan that somebody else found."""
        cost_usd = float(sum(plan_cost_usd(self.problem, arrays).values()))
        cost_usd += self.moving.cost_usd(arrays.replicas) - self.moving.leaving_usd
        if cost_usd < self.cost_usd:
            self.best, self.cost_usd = arrays, cost_usd

    def prices(self, relaxed: Relaxed, options: IntArray) -> None:
        """Order and bound fleets by the reduced costs at the root; `options` are those that `relaxed` speaks of."""
        self._reduced = np.full(len(self.options), np.inf)
        self._reduced[options] = relaxed.reduced_usd
        best = np.zeros(int(self.options.pair.max()) + 1)
        np.minimum.at(best, self.options.pair[options], relaxed.reduced_usd)
        self._base_usd = relaxed.bound_usd - float(best.sum())

    def bound_usd(self, fleet: Sequence[int]) -> float:
        """What every plan with exactly this fleet costs at least."""
        if self._reduced is None:
            return -np.inf
        return self._base_usd + float(self._reduced[list(fleet)].sum())

    def enumerate(self) -> None:
        """Subsets of the best-priced options, cheapest bound first."""
        if self._reduced is None:
            return
        order = np.argsort(self._reduced, kind="stable")
        order = order[np.isfinite(self._reduced[order])]
        problem, o = self.problem, self.options
        serves = o.largest_share > 0
        fast = serves & (o.delay_s <= problem.delay_slo_s[:, None])
        good = serves & (o.error <= problem.error_slo[:, None])
        found: list[tuple[float, Fleet]] = []
        for size, among in ENUMERATED.items():
            priced = order[:among]
            fleets = priced[np.array(list(itertools.combinations(range(len(priced)), size)), dtype=np.int64)]
            fleets = fleets.reshape(-1, size)
            bound_usd = self._base_usd + self._reduced[fleets].sum(axis=1)
            keep = bound_usd < self.cost_usd
            pairs = np.sort(o.pair[fleets], axis=1)
            keep &= (np.diff(pairs, axis=1) > 0).all(axis=1)
            # A mean within a limit needs some deployment within it.
            for able in (fast, good):
                keep &= able[:, fleets].any(axis=2).all(axis=0)
            found += [
                (float(usd), tuple(fleet)) for usd, fleet in zip(bound_usd[keep], fleets[keep].tolist(), strict=True)
            ]
        found.sort()
        for bound_usd, fleet in found[:ROUTED_AT_ROOT]:
            if self.clock.up() or bound_usd >= self.cost_usd:
                break
            self.try_fleet(fleet)

    def round(self, opened: FloatArray) -> None:
        """Fleets of the options that a relaxed solution opens by more than some share."""
        for share in ROUNDINGS:
            chosen = np.flatnonzero(opened >= share)
            chosen = chosen[np.argsort(-opened[chosen], kind="stable")]
            self.try_fleet(tuple(int(d) for d in self.options.first_of_pairs(chosen)))

    def improve(self, most: int) -> None:
        """Local search around the best plan: drop, swap or add one deployment, until nothing helps."""
        fleet = self._fleet()
        if fleet is None:
            return
        others = self._best_priced()
        self.try_fleet(fleet)
        tried = self.routed
        better = True
        while better and self.routed - tried < most:
            better = False
            for neighbour in self._neighbours(fleet, others):
                if self.clock.up() or self.routed - tried >= most:
                    return
                if self.try_fleet(neighbour):
                    fleet, better = neighbour, True
                    break

    def _best_priced(self) -> IntArray:
        if self._reduced is None:
            return np.zeros(0, dtype=np.int64)
        order = np.argsort(self._reduced, kind="stable")[:SWAPS]
        return order[np.isfinite(self._reduced[order])]

    def _neighbours(self, fleet: Fleet, others: IntArray) -> Iterable[Fleet]:
        pair = self.options.pair
        outside = [int(d) for d in others if int(d) not in fleet]
        moves: list[Fleet] = [fleet[:k] + fleet[k + 1 :] for k in range(len(fleet))]
        for d in outside:
            rest = tuple(f for f in fleet if pair[f] != pair[d])
            moves.append((*rest, d))
            moves += [(*rest[:k], *rest[k + 1 :], d) for k in range(len(rest))]
        return sorted(dict.fromkeys(moves), key=self.bound_usd)

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
