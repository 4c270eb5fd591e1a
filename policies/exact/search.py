"""The stages of a search for the cheapest plan: begin, price, look around, branch.

`Exact` takes all of them to the end and writes the proof down; `AghPlus` gives each a share of its effort.
"""

import time
from dataclasses import replace

import numpy as np

from policies.exact.clock import Clock
from policies.exact.column_generation import Evaluated, Pricer
from policies.exact.groups import Groups
from policies.exact.incumbents import Incumbents
from policies.exact.lagrangian import covers_of
from policies.exact.options import Options, deployment_options
from policies.exact.tree import Node, Outcome, Tree
from policies.heuristics.adaptive import MANY, Agh
from policies.heuristics.greedy import Gh
from policies.heuristics.lpr import rounded_fleets
from policies.heuristics.moving import Moving
from policies.heuristics.routing import cheapest, route
from simulator.errors import InfeasibleError, InputError, RunError, SolverError
from simulator.planning.plan import Plan, PlanStatus, build_plan, plan_arrays
from simulator.planning.policy import SearchProgress, StoppingRule
from simulator.planning.problem import IntArray, PlanningProblem

COVER_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BEGIN_SHARE = 0.3  # of the time, for the plan to begin with where fleets are large
ROUNDING = 1e-12  # of the dearest plan: two costs that differ by less are equal
IMPROVEMENTS = 400  # routings of the local search at the root


class Search:
    """One run of a policy on one problem."""

    def __init__(self, problem: PlanningProblem, stop: StoppingRule, seed: int, name: str, moving: Moving) -> None:
        self.problem, self.stop, self.seed, self.name = problem, stop, seed, name
        self.clock = Clock(time.perf_counter(), stop.time_limit_s, stop.max_nodes, stop.effort)
        self.options = deployment_options(problem, moving)
        self.worst_usd = worst_cost_usd(problem, self.options)
        self.incumbents = Incumbents(problem, self.options, moving, self.clock, self.worst_usd)
        self.groups: Groups | None = None
        self._told = (np.inf, -np.inf)

    @property
    def cutoff_usd(self) -> float:
        """What a plan has to cost less than to be of interest."""
        if self.incumbents.best is None:
            return self.worst_usd
        cost_usd = self.incumbents.cost_usd
        return cost_usd - max(self.stop.relative_gap * abs(cost_usd), ROUNDING * self.worst_usd)

    def guess(self, routings: int, share: float = 1.0) -> None:
        """A local search by prices that are guessed, which takes no more than a share of the time."""
        self.incumbents.prices(self._pricer().guess(), np.arange(len(self.options)))
        self.incumbents.improve(routings, self.clock.first(share))

    def _pricer(self) -> Pricer:
        covers = covers_of(self.problem, self.options, COVER_WEIGHTS)
        scale_usd = max(min(self.incumbents.cost_usd, self.worst_usd), 1e-9 * self.problem.money_unit_usd)
        return Pricer(self.problem, self.options, covers, None, scale_usd=scale_usd)

    def price(self, share: float = 1.0) -> None:
        """The root: its bound, the prices that prove it, and the fleets near its relaxed solution.

        It takes no more than a share of the time; prices that are not yet the best are still prices.
        """
        self.pricer = self._pricer()
        everything = np.arange(len(self.options))
        start = np.concatenate([self.pricer.first_columns(), self._columns_of_best()])
        clock = self.clock.first(share)
        self.root = self.pricer.evaluate((), everything, self.cutoff_usd, clock, start=start)
        self.tell(self.root.bound_usd)
        self.incumbents.prices(self.root.relaxed, self.root.alive)
        self.incumbents.round(self.root.open)

    def _columns_of_best(self) -> IntArray:
        """The deployments of the best plan so far as they are used there: with them the master has a solution at once.

        Without one its prices are penalties for the first half of the rounds.
        """
        routing = self.incumbents.routing_of_best()
        if routing is None:
            return np.zeros(0, dtype=np.int64)
        fleet, share = routing
        return self.pricer.pool.add(fleet, share)

    def look_around(self, routings: int) -> None:
        """Fleets of the best-priced options, and a local search around the best; both by the prices of the root."""
        self.incumbents.improve(most=routings)
        self.incumbents.enumerate(most=routings)
        self.incumbents.improve(most=routings)
        self.tell(self.root.bound_usd)

    def branch(self) -> Outcome:
        """Fix what cannot improve and search the tree of what is left."""
        self.left = self.root.alive[self.root.relaxed.forced_usd < self.cutoff_usd]
        if self.clock.up() or self.root.bound_usd >= self.cutoff_usd:
            node = Node(path=(), duals=self.root.duals, covers=self.root.covers)
            bound_usd = min(self.root.bound_usd, self.cutoff_usd)
            return Outcome(bound_usd=bound_usd, nodes=[node], done=bound_usd >= self.cutoff_usd, explored=0)
        inner, root, left = self.pricer.shrink(self.root, self.cutoff_usd)
        self.groups = inner.groups

        def visit(node: Evaluated) -> float:
            opened = np.zeros(len(self.options))
            opened[left] = node.open
            before = self.incumbents.cost_usd
            self.incumbents.round(opened)
            if self.incumbents.cost_usd < before:
                self.incumbents.improve(most=IMPROVEMENTS)
            return self.cutoff_usd

        return Tree(inner, root, self.clock, self.cutoff_usd).search(visit, self.tell)

    def begin(self, incumbent: Plan | None) -> None:
        """Plans to begin with: GH's, which takes milliseconds, and the fleet in force if it still serves.

        Where GH's fleet is large, the rounded relaxation and AGH's too: there are too many fleets to come to it by
        exchanges.
        """
        limit_s = None if self.stop.time_limit_s is None else BEGIN_SHARE * self.stop.time_limit_s
        stop = replace(self.stop, report=None, time_limit_s=limit_s)
        try:
            plan = Gh().plan(self.problem, incumbent=None, stop=stop, seed=self.seed)
            self.incumbents.take(plan_arrays(self.problem, plan))
            if sum(deployment.replicas for deployment in plan.deployments) >= MANY:
                rounded = cheapest(self.problem, rounded_fleets(self.problem, limit_s))
                if rounded is not None:
                    self.incumbents.take(rounded)
                plan = Agh().plan(self.problem, incumbent=None, stop=stop, seed=self.seed)
                self.incumbents.take(plan_arrays(self.problem, plan))
        except (InfeasibleError, SolverError):
            pass  # a heuristic may miss what exists
        self.incumbents.try_fleet(())  # to serve nothing is a plan too
        if incumbent is not None:
            try:
                replicas = plan_arrays(self.problem, incumbent).replicas
                arrays = route(self.problem, replicas) if replicas.max() <= self.problem.max_replicas else None
            except (InputError, RunError):
                arrays = None  # made for another problem; or the solver fails, which says nothing
            if arrays is not None:
                self.incumbents.take(arrays)

    def plan(self, outcome: Outcome) -> Plan:
        """The best plan with the bound of the tree."""
        best = self.incumbents.best
        if best is None:
            raise ValueError("there is no plan")
        try:
            arrays = route(self.problem, best.replicas) or best
        except RunError:
            arrays = best
        status = PlanStatus.FEASIBLE
        if outcome.done:
            status = PlanStatus.OPTIMAL
        elif self.clock.late():
            status = PlanStatus.TIME_LIMIT
        plan = build_plan(self.problem, arrays, policy=self.name, status=status, seconds=self.clock.seconds())
        return replace(plan, bound_usd=min(max(outcome.bound_usd, 0.0), plan.cost_usd))  # no cost is negative

    def tell(self, bound_usd: float) -> None:
        if self.stop.report is None:
            return
        news = (self.incumbents.cost_usd, max(self._told[1], min(bound_usd, self.incumbents.cost_usd)))
        if news != self._told:
            self._told = news
            cost_usd = None if self.incumbents.best is None else news[0]
            self.stop.report(SearchProgress(seconds=self.clock.seconds(), cost_usd=cost_usd, bound_usd=news[1]))


def worst_cost_usd(problem: PlanningProblem, options: Options) -> float:
    """No plan costs this much: every pair at its dearest or the whole budget, all demand at its dearest, and a bit."""
    dearest = np.zeros(int(options.pair.max(initial=0)) + 1)
    np.maximum.at(dearest, options.pair, options.fixed_usd + np.maximum(options.move_usd, 0.0))
    serving = np.where(options.largest_share > 0, options.serve_usd, 0.0).max(axis=1, initial=0.0)
    moved_usd = float(np.maximum(options.move_usd, 0.0).sum())
    fixed_usd = min(float(dearest.sum()), problem.budget_usd + moved_usd)
    return fixed_usd + float(np.maximum(serving, problem.unmet_usd).sum()) + problem.money_unit_usd
