"""The `exact` policy: bound, fix, search what is left, and prove it."""

from dataclasses import dataclass, replace

import numpy as np

from policies.checking.proof import Effort, Proof
from policies.exact.lagrangian import Duals
from policies.exact.search import IMPROVEMENTS, Search
from policies.exact.tree import Node, Outcome
from policies.exact.writing import certificate_of
from policies.heuristics.conflict.search import why_no_plan
from policies.heuristics.moving import Moving
from simulator.errors import InfeasibleError, RunError
from simulator.planning.plan import Plan, PlanArrays, PlanStatus, build_plan
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import PlanningProblem


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
        search = Search(problem, stop, seed, self.name, Moving.of(problem, None))
        if not len(search.options):
            return _nothing(search)
        search.begin(incumbent)
        search.price()
        root_bound_usd = search.root.bound_usd
        search.look_around(IMPROVEMENTS)
        outcome = search.branch()
        plan = settled(search, outcome)
        effort = Effort(
            root_bound_usd=min(root_bound_usd, plan.cost_usd),
            configurations=len(problem.configurations),
            configurations_left=len(np.unique(search.options.configuration[search.left])),
            nodes=outcome.explored,
        )
        bound_usd = min(outcome.bound_usd, plan.cost_usd)
        certificate = certificate_of(problem, search.groups, bound_usd, outcome.nodes)
        return Proof(plan=plan, certificate=certificate, effort=effort)


def _nothing(search: Search) -> Proof:
    """Nothing can be deployed: all demand stays unmet, which its own penalties prove to be the best there is."""
    problem, types = search.problem, len(search.problem.query_types)
    if (problem.unmet_cap < 1).any():
        raise InfeasibleError(_why_infeasible(search))
    share = np.zeros((types, len(problem.configurations)))
    arrays = PlanArrays(np.zeros(len(problem.configurations), dtype=np.int64), share, np.ones(types))
    plan = build_plan(problem, arrays, policy=search.name, status=PlanStatus.OPTIMAL, seconds=search.clock.seconds())
    plan = replace(plan, bound_usd=plan.cost_usd)
    duals = replace(Duals.none(types), demand=problem.unmet_usd)
    certificate = certificate_of(problem, None, plan.cost_usd, [Node(path=(), duals=duals)])
    effort = Effort(
        root_bound_usd=plan.cost_usd,
        configurations=len(problem.configurations),
        configurations_left=0,
        nodes=0,
    )
    return Proof(plan=plan, certificate=certificate, effort=effort)


def settled(search: Search, outcome: Outcome) -> Plan:
    """The plan that a search came to, reported; or why there is none."""
    if search.incumbents.best is None:
        if outcome.done:
            raise InfeasibleError(_why_infeasible(search))
        raise RunError(f"policy {search.name} found no plan for {search.problem.name} in its time: give it more")
    plan = search.plan(outcome)
    search.tell(outcome.bound_usd)
    return plan


def _why_infeasible(search: Search) -> str:
    limit_s = search.stop.time_limit_s
    left_s = None if limit_s is None else limit_s - search.clock.seconds()
    return why_no_plan(search.problem, _least_spending_usd, time_limit_s=left_s)


def _least_spending_usd(problem: PlanningProblem, seconds: float) -> float | None:
    """What the cheapest fleet found spends that keeps every limit but the budget; None if there is none either."""
    free = [replace(q, delay_penalty_usd_per_query_s=0.0, unmet_penalty_usd_per_query=0.0) for q in problem.query_types]
    dearest = replace(problem, budget_usd=np.inf, query_types=tuple(free))
    stop = StoppingRule(relative_gap=0.001, time_limit_s=seconds)
    try:
        return Exact().plan(dearest, incumbent=None, stop=stop, seed=0).cost_usd
    except (InfeasibleError, RunError):
        return None
