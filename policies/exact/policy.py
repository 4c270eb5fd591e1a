"""The `exact` policy: bound, fix, search what is left, and prove it."""

import time
from dataclasses import dataclass, replace

import numpy as np

from policies.conflict import Limit, LimitKind, is_feasible, smallest_conflict
from policies.exact.incumbents import Incumbents
from policies.exact.lagrangian import Duals, covers_of
from policies.exact.options import Options, deployment_options
from policies.exact.tree import Clock, Evaluated, Node, Outcome, Pricer, Tree
from policies.exact.writing import certificate_of
from policies.greedy import Gh
from policies.proof import Effort, Proof
from policies.routing import route
from simulator.errors import InfeasibleError, InputError, RunError
from simulator.plan import Plan, PlanArrays, PlanStatus, build_plan, plan_arrays
from simulator.policy import SearchProgress, StoppingRule
from simulator.problem import PlanningProblem

COVER_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CONFLICT_TIME_S = 30.0  # for finding out why there is no plan
ROUNDING = 1e-12  # of the dearest plan: two costs that differ by less are equal
IMPROVEMENTS = 400  # routings of the local search at the root


@dataclass(frozen=True, slots=True)
class Exact:
    """Exact planning by branch and price (docs/planning.md).

    The root bound comes from column generation over whole deployments; Lagrangian fixing takes out the deployments that
    no better plan opens; a best-first tree over sums of groups closes the gap. A time-out is a status: the plan is then
    the best so far, with the bound proven so far.
    """

    name: str = "exact"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        return self.prove(problem, incumbent=incumbent, stop=stop, seed=seed).plan

    def prove(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Proof:
        """The plan with the certificate of its bound.

        Raises
        ------
        InfeasibleError
            If the problem has no plan.
        RunError
            If the time is up before any plan is found.
        """
        return _Search(problem, stop, seed, self.name).run(incumbent)


class _Search:
    """One run of the policy."""

    def __init__(self, problem: PlanningProblem, stop: StoppingRule, seed: int, name: str) -> None:
        self.problem, self.stop, self.seed, self.name = problem, stop, seed, name
        self.clock = Clock(time.perf_counter(), stop.time_limit_s, stop.max_nodes)
        self.options = deployment_options(problem)
        self.incumbents = Incumbents(problem, self.options, self.clock.up)
        self.worst_usd = _worst_cost_usd(problem, self.options)
        self._told = (np.inf, -np.inf)

    @property
    def cutoff_usd(self) -> float:
        """What a plan has to cost less than to be of interest."""
        if self.incumbents.best is None:
            return self.worst_usd
        cost_usd = self.incumbents.cost_usd
        return cost_usd - max(self.stop.relative_gap * cost_usd, ROUNDING * self.worst_usd)

    def run(self, incumbent: Plan | None) -> Proof:
        if not len(self.options):
            return self._nothing()
        self._start(incumbent)
        covers = covers_of(self.problem, self.options, COVER_WEIGHTS)
        scale_usd = max(min(self.incumbents.cost_usd, self.worst_usd), 1e-9)
        pricer = Pricer(self.problem, self.options, covers, None, scale_usd=scale_usd)
        everything = np.arange(len(self.options))
        root = pricer.evaluate((), everything, self.cutoff_usd, self.clock, start=pricer.first_columns())
        root_bound_usd = root.bound_usd
        self._tell(root.bound_usd)
        self.incumbents.prices(root.relaxed, root.alive)
        self.incumbents.round(root.open)
        self.incumbents.enumerate()
        self.incumbents.improve(most=IMPROVEMENTS)
        self._tell(root.bound_usd)
        inner, root, left = pricer.shrink(root, self.cutoff_usd)

        def visit(node: Evaluated) -> float:
            opened = np.zeros(len(self.options))
            opened[left] = node.open
            before = self.incumbents.cost_usd
            self.incumbents.round(opened)
            if self.incumbents.cost_usd < before:
                self.incumbents.improve(most=IMPROVEMENTS)
            return self.cutoff_usd

        tree = Tree(inner, root, self.clock, self.cutoff_usd)
        outcome = tree.search(visit, self._tell)
        if self.incumbents.best is None:
            if outcome.done:
                raise InfeasibleError(_why_infeasible(self.problem))
            raise RunError(f"policy {self.name} found no plan for {self.problem.name} in its time: give it more")
        plan = self._plan(outcome)
        self._tell(outcome.bound_usd)
        effort = Effort(
            root_bound_usd=min(root_bound_usd, plan.cost_usd),
            configurations=len(self.problem.configurations),
            configurations_left=len(np.unique(self.options.configuration[left])),
            nodes=outcome.explored,
        )
        certificate = certificate_of(self.problem, tree.groups, min(outcome.bound_usd, plan.cost_usd), outcome.nodes)
        return Proof(plan=plan, certificate=certificate, effort=effort)

    def _nothing(self) -> Proof:
        """Nothing can be deployed: all demand stays unmet, which its own penalties prove to be the best there is."""
        problem, types = self.problem, len(self.problem.query_types)
        if (problem.unmet_cap < 1).any():
            raise InfeasibleError(_why_infeasible(problem))
        share = np.zeros((types, len(problem.configurations)))
        arrays = PlanArrays(np.zeros(len(problem.configurations), dtype=np.int64), share, np.ones(types))
        plan = build_plan(problem, arrays, policy=self.name, status=PlanStatus.OPTIMAL, seconds=self.clock.seconds())
        plan = replace(plan, bound_usd=plan.cost_usd)
        duals = Duals(
            demand=problem.unmet_usd,
            delay=np.zeros(types),
            error=np.zeros(types),
            budget=0.0,
            storage=0.0,
            covers=np.zeros(0),
            restrictions=np.zeros(0),
        )
        certificate = certificate_of(problem, None, plan.cost_usd, [Node(path=(), duals=duals)])
        effort = Effort(
            root_bound_usd=plan.cost_usd,
            configurations=len(problem.configurations),
            configurations_left=0,
            nodes=0,
        )
        return Proof(plan=plan, certificate=certificate, effort=effort)

    def _start(self, incumbent: Plan | None) -> None:
        """Plans to begin with: GH's, which takes milliseconds, and the fleet in force if it still serves."""
        try:
            plan = Gh().plan(self.problem, incumbent=None, stop=self.stop, seed=self.seed)
            self.incumbents.take(plan_arrays(self.problem, plan))
        except InfeasibleError:
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

    def _plan(self, outcome: Outcome) -> Plan:
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
        elif self.clock.up():
            status = PlanStatus.TIME_LIMIT
        plan = build_plan(self.problem, arrays, policy=self.name, status=status, seconds=self.clock.seconds())
        return replace(plan, bound_usd=min(max(outcome.bound_usd, 0.0), plan.cost_usd))  # no cost is negative

    def _tell(self, bound_usd: float) -> None:
        if self.stop.report is None:
            return
        news = (self.incumbents.cost_usd, max(self._told[1], min(bound_usd, self.incumbents.cost_usd)))
        if news != self._told:
            self._told = news
            cost_usd = None if self.incumbents.best is None else news[0]
            self.stop.report(SearchProgress(seconds=self.clock.seconds(), cost_usd=cost_usd, bound_usd=news[1]))


def _worst_cost_usd(problem: PlanningProblem, options: Options) -> float:
    """No plan costs this much: every pair at its dearest or the whole budget, all demand at its dearest, and a bit."""
    dearest = np.zeros(int(options.pair.max(initial=0)) + 1)
    np.maximum.at(dearest, options.pair, options.fixed_usd)
    serving = np.where(options.largest_share > 0, options.serve_usd, 0.0).max(axis=1, initial=0.0)
    fixed_usd = min(float(dearest.sum()), problem.budget_usd)
    return fixed_usd + float(np.maximum(serving, problem.unmet_usd).sum()) + 1.0


def _why_infeasible(problem: PlanningProblem) -> str:
    conflict = smallest_conflict(problem, is_feasible, time_limit_s=CONFLICT_TIME_S)
    cheapest_usd = None
    if Limit(LimitKind.BUDGET) in conflict.limits:
        cheapest_usd = _least_spending_usd(problem)
    return conflict.message(problem, cheapest_usd=cheapest_usd)


def _least_spending_usd(problem: PlanningProblem) -> float | None:
    """What the cheapest fleet found spends that keeps every limit but the budget; None if there is none either."""
    free = [replace(q, delay_penalty_usd_per_query_s=0.0, unmet_penalty_usd_per_query=0.0) for q in problem.query_types]
    dearest = replace(problem, budget_usd=np.inf, query_types=tuple(free))
    stop = StoppingRule(relative_gap=0.001, time_limit_s=CONFLICT_TIME_S)
    try:
        return Exact().plan(dearest, incumbent=None, stop=stop, seed=0).cost_usd
    except (InfeasibleError, RunError):
        return None
