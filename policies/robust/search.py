"""A local search in the space of fleets under a robust objective.

Fleets are bounded in all scenarios before they are routed in any; those that may be better are routed, cheapest bound
first, and given up as soon as the scenarios routed so far tell enough.
"""

import math

import numpy as np

from policies.exact.clock import Clock
from policies.exact.neighbours import Fleet, neighbours
from policies.exact.options import deployment_options
from policies.heuristics.dominance import undominated
from policies.heuristics.fleet_bound import NONE
from policies.heuristics.moving import Moving
from policies.robust.objective import Objective
from policies.robust.scenarios import widest
from simulator.planning.problem import FloatArray, IntArray

BOUNDS_PER_ROUTING = 400  # fleets that are bounded in one scenario in the time of one routing
MOST_NEIGHBOURS = 150_000  # fleets that differ by two deployments and are bounded, some tenths of a second
CHUNK = 4096  # fleets that are bounded between two looks at the clock
ROUNDING = 1e-9  # relative: two costs that differ by less are equal


class FleetSearch:
    """The best fleet so far, shape (configurations,), and the search that betters it.

    `value_usd` is its measure with the cost of moving to it.
    """

    def __init__(self, objective: Objective, moving: Moving, clock: Clock) -> None:
        self.objective, self.moving, self.clock = objective, moving, clock
        self.widest = widest(objective.problem, objective.scenarios)
        self.options = deployment_options(self.widest, moving)
        self.best: IntArray | None = None
        self.best_usd = np.zeros(0)
        self.value_usd = np.inf
        self._seen: set[bytes] = set()
        places = zip(self.options.configuration.tolist(), self.options.replicas.tolist(), strict=True)
        self._option = {place: option for option, place in enumerate(places)}

    def take(self, replicas: IntArray) -> bool:
        """Look at a fleet that somebody else found, and at its like without what others can replace; whether better."""
        both = [self._try(fleet, np.zeros(len(self.objective.scenarios))) for fleet in (replicas, self._lean(replicas))]
        return any(both)

    def _lean(self, replicas: IntArray) -> IntArray:
        return undominated(self.widest, replicas)

    def aim_at(self, objective: Objective) -> None:
        """Go on with another measure of the same scenarios."""
        self.objective = objective
        self._seen.clear()
        if self.best is not None:
            self.value_usd = float(objective.measure(self.best_usd)) + self.moving.cost_usd(self.best)

    def climb(self, replicas: IntArray) -> None:
        """Exchange one deployment for another from a fleet that somebody else found; where that ends may be better."""
        before = self.best, self.best_usd, self.value_usd
        self.best, self.value_usd = None, np.inf
        self._seen.clear()
        self.take(replicas)
        self.improve(most=1)
        if self.value_usd >= before[2]:
            self.best, self.best_usd, self.value_usd = before
        self._seen.clear()

    def improve(self, most: int = 2) -> None:
        """Exchange one deployment for another, or up to `most`, until nothing helps or the clock says so."""
        while len(self.options) and not self.clock.up():
            fleet = self._fleet()
            if fleet is None:
                return
            everything = np.arange(len(self.options))
            near = neighbours(fleet, 1, everything, self.options.pair)
            bound_usd = self._look(near)
            if bound_usd is None:
                continue
            if most == 1:
                return
            promising = self._best_bounded(near, bound_usd)[: _among(len(fleet))]
            if self._look(neighbours(fleet, 2, promising, self.options.pair)) is not None:
                return

    def _look(self, fleets: IntArray) -> FloatArray | None:
        """Look through fleets (F, K) until one is better: None then, else what is known of their measures, (F,)."""
        o, bound_usd = self.options, np.full(len(fleets), np.inf)
        for start in range(0, len(fleets), CHUNK):
            if self.clock.up():
                break
            chunk = fleets[start : start + CHUNK]
            move_usd = np.where(chunk == NONE, 0.0, o.move_usd[chunk]).sum(axis=1) + self.moving.leaving_usd
            measure_usd, alive, least = self.objective.bounds_usd(
                chunk,
                o.configuration,
                o.replicas,
                o.fixed_usd,
                best_usd=self.best_usd,
                below_usd=self.value_usd - move_usd,
            )
            self.clock.spent += len(chunk) / BOUNDS_PER_ROUTING
            value_usd = measure_usd + move_usd
            bound_usd[start : start + CHUNK] = value_usd
            for n in np.argsort(value_usd[alive], kind="stable"):
                if self.clock.up():
                    break
                if self._try(self._replicas(chunk[alive[n]]), least[:, n]):
                    return None
        return bound_usd

    def _best_bounded(self, fleets: IntArray, bound_usd: FloatArray) -> IntArray:
        """Options in the order of the lowest bound of a fleet that has them."""
        found = dict.fromkeys(
            option for n in np.argsort(bound_usd, kind="stable") for option in fleets[n].tolist() if option != NONE
        )
        return np.array(list(found), dtype=np.int64)

    def _try(self, replicas: IntArray, at_least: FloatArray) -> bool:
        """Route this fleet in the scenarios; whether it is the best so far."""
        key = replicas.tobytes()
        if key in self._seen:
            return False
        self._seen.add(key)
        deployed = np.flatnonzero(replicas)
        move_usd = self.moving.cost_usd(replicas)
        below_usd = self.value_usd - ROUNDING * abs(self.value_usd) if np.isfinite(self.value_usd) else np.inf
        cost_usd, routed = self.objective.costs_usd(
            deployed, replicas[deployed], at_least=at_least, below_usd=below_usd, move_usd=move_usd
        )
        self.clock.spent += routed
        if cost_usd is None:
            return False
        self.best, self.best_usd = replicas, cost_usd
        self.value_usd = float(self.objective.measure(cost_usd)) + move_usd
        return True

    def _replicas(self, fleet: IntArray) -> IntArray:
        replicas = np.zeros(len(self.objective.problem.configurations), dtype=np.int64)
        chosen = fleet[fleet != NONE]
        replicas[self.options.configuration[chosen]] = self.options.replicas[chosen]
        return replicas

    def _fleet(self) -> Fleet | None:
        """The best fleet as options, without what is none."""
        if self.best is None:
            return None
        lean = self._lean(self.best)
        places = ((int(a), int(lean[a])) for a in np.flatnonzero(lean))
        return tuple(self._option[place] for place in places if place in self._option)


def _among(deployments: int) -> int:
    """Among how many options two are exchanged, so that fleets of that size have so many neighbours."""
    ways_out = 1 + deployments + math.comb(deployments, 2)
    return math.isqrt(2 * MOST_NEIGHBOURS // ways_out)
