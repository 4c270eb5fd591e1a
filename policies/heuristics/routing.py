"""Optimal routing over a fixed fleet: the linear program that is left once the replicas are chosen.

It is the routing step of AGH and stage 2 of the paper (placement fixed, delay and error inflated). Hundreds of these
are solved in one plan, each with a few hundred variables, so the program goes straight to HiGHS (`highs.py`).

Every program starts from scratch with the same options, so that a result depends on the arguments alone.
"""

import math
import threading
from dataclasses import dataclass

import highspy
import numpy as np

from policies.highs import NO_SOLUTION, LinearProgram, failure, make_ready, new_solver
from policies.limits import Limits, Protection, protected
from simulator.errors import SolverError
from simulator.planning.plan import PlanArrays, plan_cost_usd
from simulator.planning.problem import BoolArray, CapacityRows, FloatArray, IntArray, PlanningProblem

# Every limit is scaled to one before HiGHS sees it, so these are relative: well inside the 1e-6 that a plan may be off.
FEASIBILITY_TOLERANCE = 1e-9
EXCESS_TOLERANCE = 1e-8
SETTINGS: tuple[dict[str, str | int | float], ...] = (
    {
        "presolve": "off",  # halves the time at this size
        "simplex_scale_strategy": 0,  # the rows are scaled already
        "primal_feasibility_tolerance": FEASIBILITY_TOLERANCE,
    },
    # Where those fail: another calculation of the same program, by the primal simplex.
    {"presolve": "on", "simplex_strategy": 4, "primal_feasibility_tolerance": FEASIBILITY_TOLERANCE},
)


@dataclass(frozen=True, slots=True)
class Routing:
    """Where the demand goes in a fleet of D deployments.

    Attributes
    ----------
    deployed, replicas
        Shape (D,): configuration of each deployment and its replicas.
    share
        Shape (types, D).
    unmet
        Shape (types,).
    excess
        How far the unmet shares exceed their caps, summed over types; zero unless the caps were elastic.
    cost_usd
        Objective of the period, without any price on the excess.
    """

    deployed: IntArray
    replicas: IntArray
    share: FloatArray
    unmet: FloatArray
    excess: float
    cost_usd: float

    def arrays(self, problem: PlanningProblem) -> PlanArrays:
        replicas, share = np.zeros(len(problem.configurations), dtype=np.int64), np.zeros(problem.delay_s.shape)
        replicas[self.deployed] = self.replicas
        share[:, self.deployed] = self.share
        return PlanArrays(replicas, share, self.unmet)


def route(
    problem: PlanningProblem, replicas: IntArray, *, delay_factor: float = 1.0, error_factor: float = 1.0
) -> PlanArrays | None:
    """Route the demand at least cost over a fixed fleet [paper: routing with the placement fixed, stage 2].

    Parameters
    ----------
    problem
        Not changed.
    replicas
        Shape (configurations,): replicas of each configuration. Whether they respect `max_replicas` and the rule of one
        configuration per (model, tier) is the caller's business.
    delay_factor, error_factor
        The true delay and error, relative to the nominal ones. They scale the delay and error rows and the delay
        penalty. Under `paper` capacity rows `delay_factor` scales the KV rows as well, because those count tokens in
        flight by Little's law; `batching` rows belong to an operating point and stay as they are.

    Returns
    -------
    PlanArrays or None
        The cheapest routing. None if no routing keeps every constraint: the rent and the weights alone break the
        budget or the storage, or an unmet cap below one cannot be kept.

    Raises
    ------
    SolverError
        If the solver fails twice, which says nothing about the routing.
    """
    deployed = np.flatnonzero(replicas)
    routing = route_deployments(
        problem, deployed, replicas[deployed], delay_factor=delay_factor, error_factor=error_factor
    )
    return None if routing is None else routing.arrays(problem)


def route_deployments(
    problem: PlanningProblem,
    deployed: IntArray,
    replicas: IntArray,
    *,
    delay_factor: float = 1.0,
    error_factor: float = 1.0,
    excess_usd: float | None = None,
    below_usd: float = np.inf,
    unmet_limit_usd: float = np.inf,
    protection: Protection | None = None,
) -> Routing | None:
    """`route` in terms of D deployments, for a search that tries many fleets.

    With `excess_usd` the unmet caps are elastic: each unit of unmet share beyond its cap is priced at that much, so
    that the search can tell a fleet that nearly keeps the caps from one that is far off. Where the
    solver sees early that cost and excess will reach `below_usd`, it gives up and the result is None.

    With `unmet_limit_usd` all unmet demand together may be penalised by that much. With `protection` the delay and
    error limits, and the delay penalty, are those of the worst case that it speaks of.
    """
    a = deployed
    fixed_usd = float(problem.rent_usd[a] @ replicas + problem.model_storage_usd[a].sum())
    money_usd = problem.budget_usd - fixed_usd
    storage_gb = float(problem.storage_capacity_gb - problem.model_storage_gb[a].sum())
    if _overdrawn(money_usd, problem.budget_usd) or _overdrawn(storage_gb, problem.storage_capacity_gb):
        return None

    allowed = problem.allowed[:, a]
    cost_usd = delay_factor * problem.delay_penalty_usd[:, a] + problem.token_storage_usd[:, None]
    kv_factor = delay_factor if problem.capacity_rows is CapacityRows.PAPER else 1.0
    column = np.arange(allowed.size).reshape(allowed.shape)
    delay_s, error = delay_factor * problem.delay_s[:, a], error_factor * problem.error[:, a]
    unmet_columns = allowed.size + np.arange(2 * len(allowed))  # within the caps, and beyond
    more_usd = np.zeros(0)  # of the columns that the protection adds
    if protection is None:
        of_types = [
            Limits.per_type(column, delay_s, problem.delay_slo_s),
            Limits.per_type(column, error, problem.error_slo),
        ]
    else:
        first = int(unmet_columns[-1]) + 1
        slower, delay_weight = protected(column, delay_s, problem.delay_slo_s, protection, first)
        wronger, error_weight = protected(column, error, problem.error_slo, protection, first + delay_weight.size)
        second_usd = delay_factor * problem.delay_usd_per_s[:, None]
        more_usd = np.concatenate([(second_usd * delay_weight).ravel(), np.zeros(error_weight.size)])
        of_types = [*slower, *wronger]
    limits = [
        *of_types,
        Limits.per_deployment(column, problem.load[:, a], problem.cap[a] * replicas),
        Limits.per_deployment(column, kv_factor * problem.kv[:, a], replicas.astype(np.float64)),
        Limits.of_all_served(column, problem.token_storage_gb, storage_gb),
        Limits.of_all_served(column, problem.token_storage_usd, money_usd),
    ]
    if np.isfinite(unmet_limit_usd):
        limits.append(Limits(unmet_columns[None], np.tile(problem.unmet_usd, 2)[None], np.array([unmet_limit_usd])))
    values = _solve(
        cost_usd,
        allowed,
        problem.unmet_usd,
        problem.unmet_cap,
        excess_usd,
        more_usd,
        limits,
        below_usd - fixed_usd,
        problem.money_unit_usd,
    )
    if values is None:
        return None
    values, more = np.split(values, [allowed.size + 2 * len(allowed)])
    shares, within_cap, excess = np.split(np.clip(values, 0.0, 1.0), [allowed.size, allowed.size + len(allowed)])
    share, unmet = shares.reshape(allowed.shape), within_cap + excess
    return Routing(
        deployed=a,
        replicas=replicas,
        share=share,
        unmet=unmet,
        excess=float(excess.sum()) if excess.sum() > EXCESS_TOLERANCE else 0.0,
        cost_usd=float(fixed_usd + (cost_usd * share).sum() + problem.unmet_usd @ unmet + more_usd @ more),
    )


def cheapest(problem: PlanningProblem, fleets: list[IntArray]) -> PlanArrays | None:
    """The cheapest of some fleets, each with its best routing; None if none can be routed.

    Raises
    ------
    SolverError
        If the solver fails on each of them that could be routed.
    """
    best: PlanArrays | None = None
    best_usd, routed = np.inf, set[bytes]()
    failed: SolverError | None = None
    for fleet in fleets:
        if fleet.tobytes() in routed:
            continue
        routed.add(fleet.tobytes())
        try:
            arrays = route(problem, fleet)
        except SolverError as error:
            failed = error
            continue
        cost_usd = np.inf if arrays is None else math.fsum(plan_cost_usd(problem, arrays).values())
        if cost_usd < best_usd:
            best, best_usd = arrays, cost_usd
    if best is None and failed is not None:
        raise failed
    return best


def room(limit: float) -> float:
    """What a sum of rents or storage may come to: its limit, and what rounding may add to the sum."""
    return limit + FEASIBILITY_TOLERANCE * limit


def _overdrawn(left: float, whole: float) -> bool:
    return left < -FEASIBILITY_TOLERANCE * whole


def _solve(
    cost_usd: FloatArray,
    allowed: BoolArray,
    unmet_usd: FloatArray,
    unmet_cap: FloatArray,
    excess_usd: float | None,
    more_usd: FloatArray,
    limits: list[Limits],
    below_usd: float,
    unit_usd: float,
) -> FloatArray | None:
    """The program over the shares (type by type), the unmet shares, what exceeds the unmet caps, and more, row by row.

    `more_usd` is the price of the columns after those, which have no upper bound. HiGHS counts money in `unit_usd`.

    Returns the optimal values of the columns, None if there are none of lower cost.
    """
    types = len(allowed)
    program = LinearProgram()
    shares = program.columns(allowed.ravel().astype(np.float64), cost_usd.ravel() / unit_usd).reshape(allowed.shape)
    unmet = program.columns(unmet_cap, unmet_usd / unit_usd)
    beyond_usd = unmet_usd + (excess_usd or 0.0)
    excess = program.columns(np.zeros(types) if excess_usd is None else 1 - unmet_cap, beyond_usd / unit_usd)
    program.columns(np.full(len(more_usd), np.inf), more_usd / unit_usd)
    demand, ones = np.hstack([shares, unmet[:, None], excess[:, None]]), np.ones(types)
    program.rows((np.arange(types)[:, None], demand, 1.0), at_least=ones, at_most=ones)
    for block in limits:
        unit = np.where(block.limit > 0, block.limit, np.abs(block.use).max(axis=1, initial=0.0))
        unit = np.where(unit > 0, unit, 1.0)
        row = np.arange(len(unit))[:, None]
        program.rows((row, block.column, block.use / unit[:, None]), at_most=block.limit / unit)
    for attempt in range(len(SETTINGS)):
        solver = _solver(attempt)
        solver.setOptionValue("objective_bound", below_usd / unit_usd)
        program.hand_to(solver)
        solver.run()
        status = solver.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            return np.array(solver.getSolution().col_value, dtype=np.float64)
        if status in (*NO_SOLUTION, highspy.HighsModelStatus.kObjectiveBound):
            return None
        del _of_thread.solvers[attempt]  # the next program gets a new one
    raise failure(solver, "a routing program")


_of_thread = threading.local()


def _solver(attempt: int) -> highspy.Highs:
    """The solver of this thread for an attempt. A program that is passed to it replaces all that was there."""
    make_ready()
    if not hasattr(_of_thread, "solvers"):
        _of_thread.solvers = {}
    if attempt not in _of_thread.solvers:
        _of_thread.solvers[attempt] = new_solver(**SETTINGS[attempt])
    solver: highspy.Highs = _of_thread.solvers[attempt]
    return solver
