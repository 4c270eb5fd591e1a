"""The `milp` policy: state the whole problem, let HiGHS solve it, report plan, bound and gap.

Pyomo states the model and translates it for HiGHS (`pyomo.contrib.solver`). The search itself is run on the `highspy`
object behind Pyomo's interface, `_solver_model`, for what the interface does not offer: start values, callbacks, and an
output that stays free for whoever shows the progress (Pyomo catches all of it while it solves).
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.contrib.solver.common.factory import SolverFactory
from pyomo.contrib.solver.common.results import SolutionStatus, TerminationCondition

from policies.heuristics.adaptive import Agh
from policies.heuristics.conflict.search import why_no_plan
from policies.heuristics.dominance import undominated
from policies.heuristics.routing import route
from policies.highs import make_ready
from policies.milp.model import build_model, set_values, solution_arrays, spending, usable_configurations
from simulator.errors import InfeasibleError, RunError, SolverError
from simulator.planning.plan import Plan, PlanArrays, PlanStatus, build_plan, plan_arrays
from simulator.planning.policy import SearchProgress, StoppingRule
from simulator.planning.problem import IntArray, PlanningProblem

START_SHARE = 0.1  # of the time limit, for the heuristic plan to start from
# Handing a model to HiGHS takes some 1.8 times as long as building it in Pyomo, and presolve, which does not look at
# the clock, some 4 to 5 times (measured at 20x20x20 and 50x20x20). Where both do not fit in the time, AGH gets what is
# left of it.
HAND_OVER_PER_BUILD = 6.5
STATING_S_PER_SHARE = 2e-5  # of Pyomo's model (23 us measured): where even this does not fit, it is not begun
READING_SHARE = 0.05  # of the time limit, kept for reading and polishing the solution
# HiGHS's incumbents and bounds are true within its tolerances only. What is reported during the search keeps clear of
# them by this (relative), so that the exact values at the end never contradict an earlier report.
REPORT_MARGIN = 1e-6
FEASIBLE_POINT = 2  # HiGHS: kSolutionStatusFeasible of `primal_solution_status`

CONDITIONS = {  # HiGHS's model status by name; any other one is an error of the solver
    "kOptimal": TerminationCondition.convergenceCriteriaSatisfied,
    "kInfeasible": TerminationCondition.provenInfeasible,
    "kUnboundedOrInfeasible": TerminationCondition.infeasibleOrUnbounded,  # every column is bounded, so infeasible
    "kTimeLimit": TerminationCondition.maxTimeLimit,
    "kSolutionLimit": TerminationCondition.iterationLimit,  # nodes
    "kIterationLimit": TerminationCondition.iterationLimit,
    "kInterrupt": TerminationCondition.interrupted,
}
INFEASIBLE = (TerminationCondition.provenInfeasible, TerminationCondition.infeasibleOrUnbounded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """What HiGHS says at the end; the values of a solution are those of the Pyomo variables then."""

    termination_condition: TerminationCondition
    solution_status: SolutionStatus
    incumbent_objective: float | None
    objective_bound: float | None  # may be infinite before the root is solved


@dataclass(slots=True)
class Progress:
    """Tells of each better cost and bound [USD]: the cost never rises, the bound never falls.

    `failure` is what a report raised. It must not run through the solver's own code, so it is kept until the solver is
    done, and nothing is reported any more.
    """

    report: Callable[[SearchProgress], None] | None
    started: float
    unit_usd: float = 1.0  # of what HiGHS counts
    cost_usd: float | None = None
    bound_usd: float | None = None
    failure: BaseException | None = field(default=None, init=False)

    def tell(self, *, cost_usd: float | None = None, bound_usd: float | None = None) -> None:
        """Report what is better than what was reported before."""
        if self.report is None or self.failure is not None:
            return
        cheaper = (
            cost_usd is not None and math.isfinite(cost_usd) and (self.cost_usd is None or cost_usd < self.cost_usd)
        )
        tighter = (
            bound_usd is not None
            and math.isfinite(bound_usd)
            and (self.bound_usd is None or bound_usd > self.bound_usd)
        )
        if cheaper:
            self.cost_usd = cost_usd
        if tighter:
            self.bound_usd = bound_usd
        if cheaper or tighter:
            self._send()

    def found(self, cost: float, bound: float) -> None:
        """Report what HiGHS has in the middle of its search, short of its tolerances."""
        cost_usd, bound_usd = cost * self.unit_usd, bound * self.unit_usd
        self.tell(
            cost_usd=cost_usd + REPORT_MARGIN * abs(cost_usd), bound_usd=bound_usd - REPORT_MARGIN * abs(bound_usd)
        )

    def finish(self, plan: Plan) -> None:
        """Report the final values, unless they were the last ones reported."""
        if self.report is not None and (self.cost_usd, self.bound_usd) != (plan.cost_usd, plan.bound_usd):
            self.cost_usd, self.bound_usd = plan.cost_usd, plan.bound_usd
            self._send()

    def _send(self) -> None:
        assert self.report is not None
        seconds = time.perf_counter() - self.started
        self.report(SearchProgress(seconds=seconds, cost_usd=self.cost_usd, bound_usd=self.bound_usd))


@dataclass(frozen=True, slots=True)
class Milp:
    """Exact planning by branch and bound (HiGHS through Pyomo), started from AGH's plan.

    A time-out is a status, not an exception: the plan is then the best so far with the bound proven so far. AGH's plan
    is also what remains if HiGHS finds nothing better, or nothing at all, before it has to stop, or fails.
    """

    name: str = "milp"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        progress = Progress(stop.report, time.perf_counter(), unit_usd=problem.money_unit_usd)
        made = self._plan(problem, stop, seed, progress)
        made = replace(made, seconds=time.perf_counter() - progress.started)
        progress.finish(made)
        return made

    def _plan(self, problem: PlanningProblem, stop: StoppingRule, seed: int, progress: Progress) -> Plan:
        if not len(usable_configurations(problem)):
            return self._nothing(problem, stop, seed, progress.started)
        limit_s = None if stop.time_limit_s is None else START_SHARE * stop.time_limit_s
        quiet = replace(stop, report=None)  # reports are this policy's own
        start = _heuristic_plan(problem, replace(quiet, time_limit_s=limit_s), seed)
        if start is not None:
            progress.tell(cost_usd=start.cost_usd)

        def agh_alone(plan: Plan, time_limit_s: float) -> Plan:
            """What AGH finds in the time that is left: too little of it for HiGHS to begin."""
            left_s = (1 - READING_SHARE) * time_limit_s - (time.perf_counter() - progress.started)
            again = _heuristic_plan(problem, replace(quiet, time_limit_s=max(left_s, 0.0)), seed) or plan
            best = min(again, plan, key=lambda plan: plan.cost_usd)
            return replace(best, policy=self.name, status=PlanStatus.TIME_LIMIT)

        def too_long(build_s: float) -> bool:
            gone_s = time.perf_counter() - progress.started
            return stop.time_limit_s is not None and gone_s + build_s > stop.time_limit_s

        if (
            start is not None
            and stop.time_limit_s is not None
            and too_long(STATING_S_PER_SHARE * problem.allowed.sum())
        ):
            return agh_alone(start, stop.time_limit_s)
        build_started = time.perf_counter()
        built = build_model(problem)
        build_s = time.perf_counter() - build_started
        if start is not None and stop.time_limit_s is not None and too_long(HAND_OVER_PER_BUILD * build_s):
            return agh_alone(start, stop.time_limit_s)
        arrays = _start_arrays(problem, start)
        if arrays is not None:
            set_values(built, arrays)
        results = solve(built.model, stop, seed, progress)
        if results.termination_condition in INFEASIBLE and start is None:
            raise InfeasibleError(_why_infeasible(problem, stop, seed, progress.started))
        status = _status(results.termination_condition)
        plans = [] if start is None else [replace(start, policy=self.name, status=status)]
        if results.solution_status is not SolutionStatus.noSolution:
            solved = solution_arrays(built)
            # Branch and bound leaves shares within tolerances: with the placement fixed the routing is an LP.
            solved = _routed(problem, solved.replicas) or solved
            plans.append(build_plan(problem, solved, policy=self.name, status=status, seconds=0.0))
        if not plans:
            why = "in its time: give it more"
            if results.termination_condition is TerminationCondition.error:
                why = "because HiGHS failed"
            raise SolverError(f"policy {self.name} found no plan for {problem.name} {why}")
        best = min(plans, key=lambda plan: plan.cost_usd)
        bound_usd = _believed(results, best.cost_usd, problem.money_unit_usd)
        best = replace(best, bound_usd=bound_usd)
        if status is PlanStatus.OPTIMAL and (best.gap is None or best.gap > stop.relative_gap + REPORT_MARGIN):
            best = replace(best, status=PlanStatus.FEASIBLE)  # what HiGHS says and its solution does not keep
        return best

    def _nothing(self, problem: PlanningProblem, stop: StoppingRule, seed: int, started: float) -> Plan:
        """Where no configuration is usable there is nothing to solve: all demand is unmet, if the caps allow it."""
        if (problem.unmet_cap < 1).any():
            raise InfeasibleError(_why_infeasible(problem, stop, seed, started))
        share = np.zeros((len(problem.query_types), len(problem.configurations)))
        arrays = PlanArrays(np.zeros(len(problem.configurations), dtype=np.int64), share, np.ones(len(share)))
        plan = build_plan(problem, arrays, policy=self.name, status=PlanStatus.OPTIMAL, seconds=0.0)
        return replace(plan, bound_usd=plan.cost_usd)


def _believed(results: Solved, cost_usd: float, unit_usd: float) -> float | None:
    """The bound of HiGHS, None where a plan is there that contradicts it by more than HiGHS's tolerances."""
    bound = results.objective_bound
    if bound is None or not math.isfinite(bound) or results.termination_condition in INFEASIBLE:
        return None
    bound_usd = bound * unit_usd
    return min(bound_usd, cost_usd) if bound_usd <= cost_usd * (1 + REPORT_MARGIN) else None


def _heuristic_plan(problem: PlanningProblem, stop: StoppingRule, seed: int) -> Plan | None:
    try:
        return Agh().plan(problem, incumbent=None, stop=stop, seed=seed)
    except (InfeasibleError, RunError):
        return None  # a heuristic may miss what exists, or its LPs fail: the solver has the last word


def _routed(problem: PlanningProblem, replicas: IntArray) -> PlanArrays | None:
    """The best routing over a fleet, None if there is none or the LP fails: the search can do without."""
    try:
        return route(problem, replicas)
    except RunError:
        return None


def _start_arrays(problem: PlanningProblem, start: Plan | None) -> PlanArrays | None:
    """AGH's plan as a point of the model: without dominated configurations, routed by the LP.

    None where AGH ran into the clock: what it has then depends on the machine, and HiGHS's tree would, too.
    """
    if start is None or start.status is PlanStatus.TIME_LIMIT:
        return None
    return _routed(problem, undominated(problem, plan_arrays(problem, start).replicas))


def solve(model: pyo.ConcreteModel, stop: StoppingRule, seed: int, progress: Progress) -> Solved:
    """Hand the model to HiGHS and solve it in what is left of the time since `progress.started`.

    Variables that have values are a point to start from.

    A failure of HiGHS is a result: `TerminationCondition.error`, without a bound or a solution.
    """
    logging.getLogger("pyomo.contrib.solver").setLevel(logging.ERROR)
    solver = SolverFactory("highs")
    make_ready()
    solver.set_instance(model)  # takes seconds on large models, and HiGHS's own clock does not see it
    highs, column_of = solver._solver_model, solver._pyomo_var_to_solver_var_map
    variables = list(model.component_data_objects(pyo.Var))
    options: dict[str, bool | int | float] = {
        "output_flag": False,
        "threads": 1,  # one thread, one tree, one result
        "random_seed": seed % 2**31,
        "mip_feasibility_tolerance": 1e-7,
        "mip_rel_gap": stop.relative_gap,
    }
    if stop.max_nodes is not None:
        options["mip_max_nodes"] = stop.max_nodes
    if stop.time_limit_s is not None:
        gone_s = time.perf_counter() - progress.started
        options["time_limit"] = max(0.1, stop.time_limit_s * (1 - READING_SHARE) - gone_s)
    for option, value in options.items():
        highs.setOptionValue(option, value)
    known = [v for v in variables if v.value is not None and id(v) in column_of]
    if known:
        # Pyomo's interface does not pass the values of variables on, so HiGHS gets them directly. It makes no demands
        # on them: a point that is off by a rounding is repaired by an LP with the integers fixed.
        columns = np.array([column_of[id(v)] for v in known], dtype=np.int32)
        highs.setSolution(len(known), columns, np.array([v.value for v in known], dtype=np.float64))
    if progress.report is not None:
        _listen(highs, progress)
    highs.HandleKeyboardInterrupt = True  # callbacks, so that Ctrl-C is heard, and `cancelSolve`
    failed = Solved(
        termination_condition=TerminationCondition.error,
        solution_status=SolutionStatus.noSolution,
        incumbent_objective=None,
        objective_bound=None,
    )
    try:
        highs.run()
    except (RuntimeError, MemoryError):  # C++ exceptions; the statuses of HiGHS are looked at below
        return failed
    finally:
        if progress.failure is not None:
            raise progress.failure
    condition = CONDITIONS.get(highs.getModelStatus().name)
    if condition is None:
        return failed
    info = highs.getInfo()
    solved = info.primal_solution_status == FEASIBLE_POINT
    optimal = condition is TerminationCondition.convergenceCriteriaSatisfied
    if solved:
        values = highs.getSolution().col_value
        for variable in variables:
            if id(variable) in column_of:
                variable.set_value(values[column_of[id(variable)]], skip_validation=True)
    if info.mip_node_count >= 0:
        bound_usd: float | None = info.mip_dual_bound
    else:  # no tree: presolve or a time-out before the root
        bound_usd = info.objective_function_value if solved and optimal else None
    status = SolutionStatus.noSolution
    if solved:
        status = SolutionStatus.optimal if optimal else SolutionStatus.feasible
    return Solved(
        termination_condition=condition,
        solution_status=status,
        incumbent_objective=info.objective_function_value if solved else None,
        objective_bound=bound_usd,
    )


def _listen(highs: Any, progress: Progress) -> None:
    """Report what HiGHS finds. The callbacks only look: they are given copies and ask for nothing."""

    def tell(event: Any) -> None:
        try:
            progress.found(event.data_out.mip_primal_bound, event.data_out.mip_dual_bound)
        except BaseException as error:  # must not unwind HiGHS's own stack
            progress.failure = error
            highs.cancelSolve()

    highs.cbMipImprovingSolution.subscribe(tell)
    highs.cbMipInterrupt.subscribe(tell)  # called many times per node; the one that sees every bound


def _status(condition: TerminationCondition) -> PlanStatus:
    if condition is TerminationCondition.convergenceCriteriaSatisfied:
        return PlanStatus.OPTIMAL
    if condition is TerminationCondition.maxTimeLimit:
        return PlanStatus.TIME_LIMIT
    return PlanStatus.FEASIBLE


def _why_infeasible(problem: PlanningProblem, stop: StoppingRule, seed: int, started: float) -> str:
    left_s = None if stop.time_limit_s is None else stop.time_limit_s - (time.perf_counter() - started)
    return why_no_plan(problem, partial(_least_spending_usd, seed), time_limit_s=left_s)


def _least_spending_usd(seed: int, problem: PlanningProblem, seconds: float) -> float | None:
    """What the cheapest fleet found spends that keeps every limit but the budget; None if there is none either."""
    unlimited = replace(problem, budget_usd=math.inf)  # or what is too dear by itself would be left out
    built, unit_usd = build_model(unlimited), problem.money_unit_usd
    built.model.cost.deactivate()
    built.model.spending = pyo.Objective(expr=spending(built.model, problem, unit_usd))
    stop = StoppingRule(relative_gap=0.001, max_nodes=1000, time_limit_s=seconds)
    least = solve(built.model, stop, seed, Progress(None, time.perf_counter())).incumbent_objective
    return None if least is None else least * unit_usd
