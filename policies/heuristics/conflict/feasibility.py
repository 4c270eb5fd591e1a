"""Whether a planning problem has a plan at all: the oracle of the search for conflicts."""

import time
from dataclasses import replace

import highspy
import numpy as np

from policies.heuristics.coverage import largest_share
from policies.heuristics.dominance import replicas_filled
from policies.heuristics.greedy import Greedy, falling_rate
from policies.heuristics.infeasible import over_cap
from policies.highs import NO_SOLUTION, LinearProgram, failure, new_solver, unit_of
from simulator.planning.problem import FloatArray, PlanningProblem

TOLERANCE = 1e-7
SETTINGS = {"primal_feasibility_tolerance": TOLERANCE, "mip_feasibility_tolerance": TOLERANCE}


def is_feasible(problem: PlanningProblem, seconds: float) -> bool | None:
    """Whether a problem has a plan; None if not decided in `seconds`. An oracle for `smallest_conflict`.

    GH finds most plans in milliseconds; branch and bound decides the rest (a relaxation of its own before that takes
    longer than all of it, for want of its presolve). To serve less is never harder, so types that may stay unmet do,
    and others are served as little as their caps allow.
    """
    deadline = time.monotonic() + seconds
    i = np.flatnonzero(problem.unmet_cap < 1)
    if not len(i):
        return problem.budget_usd >= 0 and problem.storage_capacity_gb >= 0
    problem = replace(
        problem,
        query_types=tuple(problem.query_types[n] for n in i),
        **{name: getattr(problem, name)[i] for name in ("delay_s", "error", "load", "kv", "allowed")},
    )
    must = 1 - problem.unmet_cap
    # The largest share that keeps the limits of the type by itself: tight links of shares and deployments.
    share = np.minimum(largest_share(problem), must[:, None])
    if (share.sum(axis=1) < must * (1 - TOLERANCE)).any():
        return False
    if not len(over_cap(problem, Greedy(problem, m1=True, m2=True, m3=True).build(falling_rate(problem)).unmet)):
        return True
    solver = prepared(_feasibility_program(problem, must, share), deadline - time.monotonic())
    solver.setOptionValue("mip_max_improving_sols", 1)  # the first plan is answer enough
    status = run(solver)
    if solver.getInfo().primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
        return True
    return False if status in NO_SOLUTION else None


def _feasibility_program(problem: PlanningProblem, must: FloatArray, share: FloatArray) -> LinearProgram:
    """Deployed or not, replicas and shares of each configuration. Limits are scaled to one, infinite ones left out.

    Under a budget, spending is minimised because that leads to a plan within it; without one nothing is minimised.
    """
    usable = np.flatnonzero(share.any(axis=0))
    most = np.minimum(np.maximum(np.ceil(replicas_filled(problem, share)), 1.0), problem.max_replicas)[usable]
    i, a = np.nonzero(share[:, usable])
    each, route, none = np.arange(len(usable)), np.arange(len(i)), np.zeros(len(usable))
    totals = np.array([problem.budget_usd, problem.storage_capacity_gb])
    usd, gb = unit_of(totals)
    rent, weights = problem.rent_usd[usable] / usd, problem.model_storage_usd[usable] / usd
    tokens = problem.token_storage_usd[i] / usd
    bounded = np.isfinite(problem.budget_usd)
    program = LinearProgram()
    w = program.columns(np.ones(len(usable)), weights if bounded else None, whole=True)
    r = program.columns(most, rent if bounded else None, whole=True)
    x = program.columns(share[i, usable[a]], tokens if bounded else None)
    program.rows((each, r, 1.0), (each, w, -most), at_most=none)
    program.rows((each, w, 1.0), (each, r, -1.0), at_most=none)
    program.rows((route, x, 1.0), (route, w[a], -share[i, usable[a]]), at_most=np.zeros(len(i)))
    program.rows((each, r, -problem.cap[usable]), (a, x, problem.load[i, usable[a]]), at_most=none)
    program.rows((each, r, -1.0), (a, x, problem.kv[i, usable[a]]), at_most=none)
    program.rows((problem.pair_index[usable], w, 1.0), at_most=np.ones(len(problem.configurations_of_pair)))
    program.rows((i, x, 1.0), at_least=must)
    for use, limit in ((problem.delay_s, problem.delay_slo_s), (problem.error, problem.error_slo)):
        program.rows((i, x, use[i, usable[a]] / unit_of(limit)[i]), at_most=limit / unit_of(limit))
    program.rows(
        *((0, r, rent), (0, w, weights), (0, x, tokens)),
        *((1, w, problem.model_storage_gb[usable] / gb), (1, x, problem.token_storage_gb[i] / gb)),
        at_most=totals / unit_of(totals),
    )
    return program


def prepared(program: LinearProgram, seconds: float) -> highspy.Highs:
    """A solver that has the program and so much time."""
    solver = new_solver(**SETTINGS, time_limit=max(seconds, 0.0))
    program.hand_to(solver)
    return solver


def run(solver: highspy.Highs) -> highspy.HighsModelStatus:
    """Solve, and say how it ended."""
    if solver.run() == highspy.HighsStatus.kError:
        raise failure(solver, "the question whether there is a plan")
    status: highspy.HighsModelStatus = solver.getModelStatus()
    return status
