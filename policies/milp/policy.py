"""The `milp` policy: state the whole problem, let HiGHS solve it, report plan, bound and gap."""

import logging
import time
from dataclasses import dataclass, replace

import numpy as np
import pyomo.environ as pyo
from pyomo.contrib.solver.common.factory import SolverFactory
from pyomo.contrib.solver.common.results import Results, SolutionStatus, TerminationCondition

from policies.adaptive import Agh
from policies.milp.model import MilpModel, build_model, solution_arrays, usable_configurations
from policies.routing import route
from simulator.errors import InfeasibleError, RunError
from simulator.plan import Plan, PlanArrays, PlanStatus, build_plan
from simulator.policy import StoppingRule
from simulator.problem import PlanningProblem

PLAN_RESERVE = 0.05  # share of the time limit kept for reading and polishing the solution


@dataclass(frozen=True, slots=True)
class Milp:
    """Exact planning by branch and bound (HiGHS through Pyomo).

    A time-out is a status, not an exception: the plan is then the best so far with the bound proven so far. Where the
    solver has found nothing in its time, the plan is AGH's, under the solver's bound.
    """

    name: str = "milp"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        started = time.perf_counter()
        if not len(usable_configurations(problem)):
            return self._nothing(problem)
        built = build_model(problem)
        spent = time.perf_counter() - started
        remaining = None if stop.time_limit_s is None else max(0.1, stop.time_limit_s * (1 - PLAN_RESERVE) - spent)
        results = _solve(built, stop, seed, remaining)
        if results.termination_condition in (
            TerminationCondition.provenInfeasible,
            TerminationCondition.infeasibleOrUnbounded,
        ):
            raise InfeasibleError(_explain_infeasible(problem, seed))
        bound_usd = results.objective_bound
        if results.solution_status is SolutionStatus.noSolution:
            if results.termination_condition is TerminationCondition.error:
                raise RunError(f"HiGHS failed on problem {problem.name}")
            fallback = Agh().plan(problem, incumbent=incumbent, stop=replace(stop, starts=1), seed=seed)
            return replace(
                fallback,
                policy=self.name,
                status=PlanStatus.TIME_LIMIT,
                bound_usd=None if bound_usd is None else min(bound_usd, fallback.cost_usd),
                seconds=time.perf_counter() - started,
            )
        results.solution_loader.load_vars()
        arrays = solution_arrays(built)
        # Branch and bound leaves shares and switches within tolerances: with the placement fixed the routing is an LP.
        arrays = route(problem, arrays.replicas) or arrays
        plan = build_plan(
            problem,
            arrays,
            policy=self.name,
            status=_status(results.termination_condition),
            seconds=time.perf_counter() - started,
        )
        return replace(plan, bound_usd=None if bound_usd is None else min(bound_usd, plan.cost_usd))

    def _nothing(self, problem: PlanningProblem) -> Plan:
        """Where no configuration is usable there is nothing to solve: all demand is unmet, if the caps allow it."""
        capped = [query_type.name for query_type in problem.query_types if query_type.unmet_cap < 1]
        if capped:
            raise InfeasibleError(
                f"problem {problem.name} is infeasible: no configuration can serve {', '.join(capped)}"
            )
        share = np.zeros((len(problem.query_types), len(problem.configurations)))
        arrays = PlanArrays(np.zeros(len(problem.configurations), dtype=np.int64), share, np.ones(len(share)))
        plan = build_plan(problem, arrays, policy=self.name, status=PlanStatus.OPTIMAL, seconds=0.0)
        return replace(plan, bound_usd=plan.cost_usd)


def _solve(built: MilpModel, stop: StoppingRule, seed: int, time_limit_s: float | None) -> Results:
    logging.getLogger("pyomo.contrib.solver").setLevel(logging.ERROR)
    options: dict[str, int | float | str] = {"random_seed": seed % 2**31, "mip_feasibility_tolerance": 1e-7}
    if stop.max_nodes is not None:
        options["mip_max_nodes"] = stop.max_nodes
    return SolverFactory("highs").solve(
        built.model,
        threads=1,  # one thread, one tree, one result
        time_limit=time_limit_s,
        rel_gap=stop.relative_gap,
        solver_options=options,
        load_solutions=False,
        raise_exception_on_nonoptimal_result=False,
    )


def _status(condition: TerminationCondition) -> PlanStatus:
    if condition is TerminationCondition.convergenceCriteriaSatisfied:
        return PlanStatus.OPTIMAL
    if condition is TerminationCondition.maxTimeLimit:
        return PlanStatus.TIME_LIMIT
    return PlanStatus.FEASIBLE


def _explain_infeasible(problem: PlanningProblem, seed: int) -> str:
    """Say whether money is the reason, and how much would do: drop the budget and minimise the spending."""
    text = f"problem {problem.name} is infeasible"
    built = build_model(problem)
    built.model.budget.deactivate()
    built.model.cost.deactivate()
    built.model.spending = pyo.Objective(expr=built.model.budget.body)
    results = _solve(built, StoppingRule(relative_gap=0.001, max_nodes=1000), seed, 20.0)
    if results.incumbent_objective is not None:
        return (
            f"{text}: budget_usd is {problem.budget_usd:g}, but the cheapest fleet found that keeps every other limit "
            f"spends {results.incumbent_objective:.2f} USD per {problem.period_h:g} h"
        )
    return f"{text}: whatever the budget, no fleet keeps the delay, error, storage and unmet limits of all query types"
