"""The `milp` policy: state the whole problem, let HiGHS solve it, report plan, bound and gap."""

import logging
import math
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

START_SHARE = 0.1  # of the time limit, for the heuristic plan to start from
# Handing a model to HiGHS takes some 2.3 times as long as building it in Pyomo, and presolve, which does not look at
# the clock, some 3 times (measured at 50x20x20). Where both do not fit in the time, AGH gets what is left of it.
HAND_OVER_PER_BUILD = 5.5
READING_SHARE = 0.05  # of the time limit, kept for reading and polishing the solution


@dataclass(frozen=True, slots=True)
class Milp:
    """Exact planning by branch and bound (HiGHS through Pyomo).

    A time-out is a status, not an exception: the plan is then the best so far with the bound proven so far. AGH gives a
    plan to fall back on, because HiGHS may find nothing better, or nothing at all, before it has to stop.
    """

    name: str = "milp"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        started = time.perf_counter()
        if not len(usable_configurations(problem)):
            return self._nothing(problem)
        limit_s = None if stop.time_limit_s is None else START_SHARE * stop.time_limit_s
        start = _heuristic_plan(problem, replace(stop, time_limit_s=limit_s), seed)
        build_started = time.perf_counter()
        built = build_model(problem)
        built_at = time.perf_counter()
        presolved_at = built_at + HAND_OVER_PER_BUILD * (built_at - build_started)
        if start is not None and stop.time_limit_s is not None and presolved_at - started > stop.time_limit_s:
            left_s = (1 - READING_SHARE) * stop.time_limit_s - (built_at - started)
            best = _heuristic_plan(problem, replace(stop, time_limit_s=max(left_s, 0.0)), seed) or start
            seconds = time.perf_counter() - started
            return replace(best, policy=self.name, status=PlanStatus.TIME_LIMIT, seconds=seconds)
        results = _solve(built, stop, seed, started)
        if results.termination_condition in (
            TerminationCondition.provenInfeasible,
            TerminationCondition.infeasibleOrUnbounded,
        ):
            raise InfeasibleError(_explain_infeasible(problem, seed))
        status = _status(results.termination_condition)
        plans = [] if start is None else [replace(start, policy=self.name, status=status)]
        if results.solution_status is not SolutionStatus.noSolution:
            results.solution_loader.load_vars()
            arrays = solution_arrays(built)
            # Branch and bound leaves shares within tolerances: with the placement fixed the routing is an LP.
            arrays = route(problem, arrays.replicas) or arrays
            plans.append(build_plan(problem, arrays, policy=self.name, status=status, seconds=0.0))
        if not plans:
            raise RunError(f"policy {self.name} found no plan for {problem.name} in its time: give it more")
        best = min(plans, key=lambda plan: plan.cost_usd)
        bound_usd = results.objective_bound
        return replace(
            best,
            bound_usd=min(bound_usd, best.cost_usd) if bound_usd is not None and math.isfinite(bound_usd) else None,
            seconds=time.perf_counter() - started,
        )

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


def _heuristic_plan(problem: PlanningProblem, stop: StoppingRule, seed: int) -> Plan | None:
    try:
        return Agh().plan(problem, incumbent=None, stop=stop, seed=seed)
    except InfeasibleError:
        return None  # a heuristic may miss what exists: the solver has the last word


def _solve(built: MilpModel, stop: StoppingRule, seed: int, started: float) -> Results:
    """Hand the model to HiGHS and solve it in what is left of the time since `started` (`time.perf_counter`)."""
    logging.getLogger("pyomo.contrib.solver").setLevel(logging.ERROR)
    options: dict[str, int | float | str] = {"random_seed": seed % 2**31, "mip_feasibility_tolerance": 1e-7}
    if stop.max_nodes is not None:
        options["mip_max_nodes"] = stop.max_nodes
    solver = SolverFactory("highs")
    solver.set_instance(built.model)  # takes seconds on large models, and HiGHS's own clock does not see it
    remaining_s = None
    if stop.time_limit_s is not None:
        remaining_s = max(0.1, stop.time_limit_s * (1 - READING_SHARE) - (time.perf_counter() - started))
    return solver.solve(
        built.model,
        threads=1,  # one thread, one tree, one result
        time_limit=remaining_s,
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
    stop = StoppingRule(relative_gap=0.001, max_nodes=1000, time_limit_s=20.0)
    results = _solve(built, stop, seed, time.perf_counter())
    if results.incumbent_objective is not None:
        return (
            f"{text}: budget_usd is {problem.budget_usd:g}, but the cheapest fleet found that keeps every other limit "
            f"spends {results.incumbent_objective:.2f} USD per {problem.period_h:g} h"
        )
    return f"{text}: whatever the budget, no fleet keeps the delay, error, storage and unmet limits of all query types"
