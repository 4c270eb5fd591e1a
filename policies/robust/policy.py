"""`robust`: the fleet that stays good where delay, error or demand are worse than planned, routed as it is planned.

A program in two stages: the fleet comes first; then the world is known and the demand is routed over that fleet at
least cost, with what cannot be served at its penalty. The fleet is the one whose costs in the scenarios are least, by
their mean or that of their tail (docs/planning.md), among those that leave no more demand unmet at nominal than the
policy inside does: where money is short, no load is dropped at nominal for the sake of worse times.

1. The policy inside plans at nominal: the limit on nominal unmet demand, and the first fleet.
2. It plans for problems that are worse than nominal: fleets to begin with.
3. A local search in fleet space, each fleet bounded before it is routed.
4. With `milp` inside, the whole robust program is stated and solved from there.

What comes out is the nominal plan over that fleet. It has no bound: none is proven for its nominal cost.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from policies.exact.clock import Clock
from policies.heuristics.moving import Moving, fleet_in_force
from policies.robust.kinds import Kind
from policies.robust.objective import Objective
from policies.robust.search import FleetSearch
from simulator.errors import InfeasibleError, RunError
from simulator.planning.plan import Plan, PlanStatus, build_plan, plan_arrays
from simulator.planning.policy import Policy, StoppingRule, demand_levels
from simulator.planning.problem import IntArray, PlanningProblem

EFFORT = 4000  # routings if nobody says otherwise
NOMINAL_SHARE, CANDIDATES_SHARE, SEARCH_SHARE = 0.4, 0.6, 0.9  # of the time, by then
SCOUT_EFFORT = 150  # of each plan that is only to begin with: that it is the best of its problem need not be proven
EXACT_SEARCH_SHARE = 0.7  # of the time, by which the search is over where the program is solved after it

# From the objective, the stopping rule with what is left of the time, and the seed to a fleet, None if none was found.
Optimum = Callable[[Objective, StoppingRule, int], IntArray | None]


@dataclass(frozen=True, slots=True)
class Robust:
    """The fleet that is best in the scenarios of `kind`, found from what `inner` plans.

    Attributes
    ----------
    scout
        Plans for the worse problems; `inner` is asked only for the nominal plan where they differ.
    optimum
        Solves the whole program after the search, if there is one; it does not know of the cost of moving.
    """

    kind: Kind
    inner: Policy
    scout: Policy = field(repr=False)
    optimum: Optimum | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        return f"robust[{self.kind.text}:{self.inner.name}]"

    @property
    def demand_levels(self) -> tuple[float, ...]:
        """Quantiles of the demand that it heeds (`simulator.planning.policy.demand_levels`)."""
        return tuple(sorted({*self.kind.demand_levels, *demand_levels(self.inner)}))

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Plan for the scenarios, route at nominal.

        Raises
        ------
        InfeasibleError
            If the policy inside says that the nominal problem has no plan.
        RunError
            If the policy inside finds no nominal plan in its time.
        """
        effort = EFFORT if stop.effort is None and stop.time_limit_s is None else stop.effort
        clock = Clock(time.perf_counter(), stop.time_limit_s, effort=effort)
        stop = replace(stop, report=None)  # what the policy inside finds is not yet what is looked for
        first = self.inner.plan(problem, incumbent=incumbent, stop=_until(stop, clock, NOMINAL_SHARE), seed=seed)
        if first is incumbent:
            return first
        arrays = plan_arrays(problem, first)
        objective = Objective(self.kind.scenarios(problem), self.kind.tail, float(problem.unmet_usd @ arrays.unmet))
        share = SEARCH_SHARE if self.optimum is None else EXACT_SEARCH_SHARE
        searching = Clock(clock.started, None if stop.time_limit_s is None else share * stop.time_limit_s)
        searching.effort = clock.effort
        search = FleetSearch(objective.by_the_mean(), Moving.of(problem, incumbent), searching)
        search.take(arrays.replicas)
        if incumbent is not None and not clock.late():
            search.take(fleet_in_force(problem, incumbent))
        candidates, hurried = self._candidates(problem, incumbent, stop, clock, seed)
        _look_for_the_best(search, objective, candidates)
        hurried |= first.status is PlanStatus.TIME_LIMIT or searching.late()
        if self.optimum is not None and search.best is not None and search.moving.free and not clock.late():
            found = self.optimum(search.objective, _until(stop, clock, 1.0), seed)
            if found is not None:
                search.take(found)
            hurried |= stop.time_limit_s is not None and clock.seconds() > SEARCH_SHARE * stop.time_limit_s
        if search.best is not None:
            deployed = np.flatnonzero(search.best)
            routing = search.objective.route(0, deployed, search.best[deployed])
            arrays = arrays if routing is None else routing.arrays(problem)
        status = PlanStatus.TIME_LIMIT if hurried else PlanStatus.FEASIBLE
        return build_plan(problem, arrays, policy=self.name, status=status, seconds=clock.seconds())

    def _candidates(
        self, problem: PlanningProblem, incumbent: Plan | None, stop: StoppingRule, clock: Clock, seed: int
    ) -> tuple[list[IntArray], bool]:
        """Fleets for worse problems, shape (configurations,) each; and whether there was too little time for them."""
        problems = self.kind.candidates(problem)
        if len(problems) > 1:  # or else it is the very problem
            stop = replace(stop, effort=SCOUT_EFFORT if stop.effort is None else min(stop.effort, SCOUT_EFFORT))
        fleets, hurried = [], False
        for number, worse in enumerate(problems, start=1):
            by = NOMINAL_SHARE + (CANDIDATES_SHARE - NOMINAL_SHARE) * number / len(problems)
            if stop.time_limit_s is not None and clock.seconds() >= by * stop.time_limit_s:
                hurried = True
                continue
            try:
                made = self.scout.plan(worse, incumbent=incumbent, stop=_until(stop, clock, by), seed=seed)
            except (InfeasibleError, RunError):
                continue  # a heuristic may miss what exists
            hurried |= made.status is PlanStatus.TIME_LIMIT
            if made is not incumbent:
                fleets.append(plan_arrays(worse, made).replicas)
        return fleets, hurried


def _look_for_the_best(search: FleetSearch, objective: Objective, candidates: list[IntArray]) -> None:
    """By the mean; then by the tail, whose fleets are bounded far less sharply, from what that came to."""
    for fleet in candidates:
        search.climb(fleet)
    search.improve()
    if objective.tail:
        search.aim_at(objective)
        for fleet in candidates:
            search.climb(fleet)
        search.improve()


def _until(stop: StoppingRule, clock: Clock, share: float) -> StoppingRule:
    """The rule of somebody who shall be done by this share of the time."""
    if stop.time_limit_s is None:
        return stop
    return replace(stop, time_limit_s=max(share * stop.time_limit_s - clock.seconds(), 1e-3))
