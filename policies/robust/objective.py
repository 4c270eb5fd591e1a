"""What a fleet costs in the scenarios, and the one number that a robust plan makes least.

The number is the conditional value at risk: the mean cost of the dearest `1 - tail` of the probability, at tail 0 the
mean of all (Rockafellar and Uryasev, 2000). It never falls when a scenario gets dearer, so bounds on the costs of the
scenarios bound it, and a fleet is given up as soon as what is known of it reaches the best.
"""

import copy

import numpy as np

from policies.checking.random_problem import with_types
from policies.heuristics.fleet_bound import NONE, FleetBound
from policies.heuristics.routing import Routing, route_deployments
from policies.robust.scenarios import Scenario
from simulator.errors import RunError
from simulator.planning.problem import FloatArray, IntArray

TARGET = 1.2  # where bounding a scenario of several ends, in multiples of its cost with the best fleet
NOTHING = 1e-9  # of all penalties: unmet demand that is none


class Objective:
    """The scenarios of a problem, and the limit on nominal unmet demand that every fleet has to keep.

    Parameters
    ----------
    scenarios
        The nominal one first.
    tail
        From 0 (the mean) to below 1.
    unmet_limit_usd
        Of the penalties at nominal.
    """

    def __init__(self, scenarios: list[Scenario], tail: float, unmet_limit_usd: float) -> None:
        self.scenarios, self.tail = scenarios, tail
        self.problem = scenarios[0].problem
        all_usd = float(self.problem.unmet_usd.sum())
        self.unmet_limit_usd = unmet_limit_usd if unmet_limit_usd > NOTHING * all_usd else 0.0
        self.weight = np.array([scenario.weight for scenario in scenarios])
        self._bounds: dict[tuple[int, int], FleetBound] = {}
        self._harder = np.array([[_is_harder(than, this) for this in scenarios] for than in scenarios])
        self._harder[0, 1:] = False  # the nominal world has limits that the others do not have
        easiest_first = sorted(range(1, len(scenarios)), key=lambda s: float(scenarios[s].problem.delay_s.sum()))
        self._order = [0, *easiest_first]

    def by_the_mean(self) -> "Objective":
        """The same scenarios, measured by their mean."""
        other = copy.copy(self)
        other.tail = 0.0
        return other

    def measure(self, cost_usd: FloatArray) -> FloatArray:
        """The number to be made least, from costs of the scenarios: shape (scenarios, ...) to (...)."""
        if self.tail == 0:
            return np.asarray(np.tensordot(self.weight, cost_usd, axes=1))
        order = np.argsort(-cost_usd, axis=0, kind="stable")
        weight = self.weight[order]
        counted = np.clip(1 - self.tail - (np.cumsum(weight, axis=0) - weight), 0.0, weight)
        return np.asarray((counted * np.take_along_axis(cost_usd, order, axis=0)).sum(axis=0) / (1 - self.tail))

    # -- one fleet ------------------------------------------------------------------------------------------------

    def route(self, number: int, deployed: IntArray, replicas: IntArray) -> Routing | None:
        """The cheapest routing over a fleet in a scenario; None if there is none, or the solver fails on it."""
        scenario = self.scenarios[number]
        limit_usd = self.unmet_limit_usd if number == 0 else np.inf
        try:
            return route_deployments(
                scenario.problem, deployed, replicas, unmet_limit_usd=limit_usd, protection=scenario.protection
            )
        except RunError:  # it says nothing about other fleets
            return None

    def costs_usd(
        self, deployed: IntArray, replicas: IntArray, *, at_least: FloatArray, below_usd: float, move_usd: float
    ) -> tuple[FloatArray | None, int]:
        """Costs of a fleet in the scenarios, shape (scenarios,), and how many routings that took.

        None if it has no nominal routing, or as soon as the measure with `move_usd` reaches `below_usd`. `at_least`,
        shape (scenarios,), are bounds to begin with.
        """
        known = at_least.copy()
        telling = known if self.tail else self.weight * known  # a tail is of the dearest, whatever their weight
        hardest_first = np.argsort(-telling[1:], kind="stable") + 1
        for routed, s in enumerate([0, *hardest_first.tolist()], start=1):
            routing = self.route(s, deployed, replicas)
            if routing is None:
                return None, routed
            known[s] = routing.cost_usd
            if not float(self.measure(known)) + move_usd < below_usd:
                return None, routed
        return known, len(known)

    # -- many fleets ----------------------------------------------------------------------------------------------

    def bounds_usd(
        self,
        fleets: IntArray,
        configuration: IntArray,
        replicas: IntArray,
        fixed_usd: FloatArray,
        *,
        best_usd: FloatArray,
        below_usd: FloatArray,
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """Bounds on what fleets cost in the scenarios.

        Parameters
        ----------
        fleets
            Shape (F, K): options, and `NONE` after the last one.
        configuration, replicas, fixed_usd
            Shape (options,): what an option deploys, and what it costs whatever it serves.
        best_usd
            Shape (scenarios,): what the best fleet costs.
        below_usd
            Shape (F,): what the measure of each fleet has to stay below.

        Returns
        -------
        measure_usd, kept, bounds_usd
            What is known of the measure of each fleet when it was given up, shape (F,); indices of the fleets that may
            stay below, shape (kept,), and bounds of those, shape (scenarios, kept).
        """
        rent_usd = np.where(fleets == NONE, 0.0, fixed_usd[fleets]).sum(axis=1)
        size = (fleets != NONE).sum(axis=1)
        kept, measure_usd = np.arange(len(fleets)), np.full(len(fleets), -np.inf)
        known = np.repeat(rent_usd[None], len(self.scenarios), axis=0)
        alone = int((self.weight > 0).sum()) == 1
        for s in self._order:
            target_usd = float(best_usd[s]) * (1.0 if alone and self.weight[s] > 0 else TARGET)
            found = np.empty(len(kept))
            for deployments in np.unique(size[kept]):
                chosen = size[kept] == deployments
                found[chosen] = self._bound(s, int(deployments))(
                    fleets[kept[chosen]], configuration, replicas, fixed_usd, cutoff_usd=target_usd
                )
            known[s] = np.maximum(known[s], found)
            for harder in np.flatnonzero(self._harder[s]):
                known[harder] = np.maximum(known[harder], found)
            finite = self.measure(np.where(np.isfinite(known), known, 0.0))
            measure_usd[kept] = np.where(np.isfinite(found), finite, np.inf)
            alive = measure_usd[kept] < below_usd[kept]
            kept, known = kept[alive], known[:, alive]
            if not len(kept):
                break
        return measure_usd, kept, known

    def _bound(self, number: int, deployments: int) -> FleetBound:
        name, problem = self.scenarios[number].relaxed(deployments)
        if (number, name) not in self._bounds:
            if number == 0 and self.unmet_limit_usd == 0:
                problem = with_types(problem, unmet_cap=0.0)
            self._bounds[number, name] = FleetBound(problem)
        return self._bounds[number, name]


def _is_harder(than: Scenario, this: Scenario) -> bool:
    """Whether no fleet costs less in `this` than in `than`: more demand, slower, wronger, and fuller caches."""
    a, b = than.problem, this.problem
    if than is this or than.protection is not None:
        return False
    arrays = ((a.delay_s, b.delay_s), (a.error, b.error), (a.load, b.load), (a.kv, b.kv), (than.demand, this.demand))
    return all(bool((x <= y).all()) for x, y in arrays)
