"""`lpr`: what arXiv 2604.07472 calls linear relaxation with rounding. How it works in detail is our reading."""

import time
from dataclasses import dataclass

import highspy
import numpy as np

from policies.heuristics.coverage import largest_share
from policies.heuristics.dominance import dominated, useful_replicas
from policies.heuristics.routing import cheapest, room
from policies.highs import NO_SOLUTION, LinearProgram, failure, new_solver, unit_of
from simulator.errors import InfeasibleError, SolverError
from simulator.planning.plan import Plan, PlanStatus, build_plan
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

WHOLE = 1e-6  # what solver noise may add to replicas that are a whole number
THRESHOLDS = (0.9, 0.5, 0.25, 0.1, 0.05, 0.01, 1e-6)  # of a deployment in the relaxation, to be chosen
ENTERING = 60  # configurations that join the relaxed program at a time
GAIN = 1e-7  # of a percent of what a plan costs: what a configuration must promise to join it
MIXTURES = np.linspace(0.0, 1.0, 11)  # weights of "at least 1" in the bound of `_attractive`


@dataclass(frozen=True, slots=True)
class _Relaxed:
    """What the linear relaxation costs and rents.

    Attributes
    ----------
    cost_usd
        Its optimal value: no plan costs less.
    replicas
        Shape (configurations,): replicas of each, not whole [r].
    deployed
        Shape (configurations,): how far each is deployed, in [0, 1] [w].
    served
        Shape (types,): share that is served [1 - u].
    """

    cost_usd: float
    replicas: FloatArray
    deployed: FloatArray
    served: FloatArray


@dataclass(frozen=True, slots=True)
class Lpr:
    """Linear relaxation with rounding, as we read it.

    The relaxation is that of the whole problem (docs/planning.md, without its cover inequalities and dominated
    configurations). For a threshold, each (model, tier) keeps its configuration of largest `w` if that reaches the
    threshold, with its replicas rounded up. While the rent and what is stored (the tokens of what the relaxation serves
    among it) break the budget or the storage, the deployment of smallest `w` goes. The demand is routed by the linear
    program. Of the plans of a few thresholds the cheapest is chosen.
    """

    @property
    def name(self) -> str:
        return "lpr"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Round the relaxation; of `stop` only the time limit counts, `incumbent` and `seed` play no part.

        If the relaxation takes longer than `stop.time_limit_s`, the plan is to serve nothing, with status `time_limit`.

        Raises
        ------
        InfeasibleError
            If the relaxation has no solution, no rounding of it keeps the unmet caps, or time was too short for it.
        RunError
            If the solver fails.
        """
        started = time.perf_counter()
        relaxed = _relaxation(problem, stop.time_limit_s)
        if relaxed is None:
            fleets = [np.zeros(len(problem.configurations), dtype=np.int64)]
        else:
            fleets = _roundings(problem, relaxed)
        best = cheapest(problem, fleets)
        if best is None and relaxed is None:
            raise InfeasibleError(
                f"problem {problem.name}: {self.name} could not solve the linear relaxation in {stop.time_limit_s} s"
            )
        if best is None:
            raise InfeasibleError(
                f"problem {problem.name}: {self.name} finds no plan: the linear relaxation has a solution, but no "
                "rounding of it that was tried keeps the unmet caps within the budget and the storage"
            )
        return build_plan(
            problem,
            best,
            policy=self.name,
            status=PlanStatus.TIME_LIMIT if relaxed is None else PlanStatus.FEASIBLE,
            seconds=time.perf_counter() - started,
        )


def _relaxation(problem: PlanningProblem, time_limit_s: float | None) -> _Relaxed | None:
    """Solve the linear relaxation [docs/planning.md]; None if time was up before.

    With all configurations it takes HiGHS some ten seconds at 20x20x20, and all but a few hundred of them stay at
    zero. So it is solved over a few, its prices tell which others could lower its cost, and so on until none could.

    Raises
    ------
    InfeasibleError
        If it has no solution: then the problem has no plan either.
    RunError
        If the solver fails.
    """
    deadline_s = np.inf if time_limit_s is None else time.perf_counter() + time_limit_s
    candidates = np.flatnonzero(~dominated(problem))
    left = candidates  # not in the program yet
    entering = _attractive(problem, left, _first_prices(problem))
    while True:
        left = np.setdiff1d(left, entering, assume_unique=True)
        chosen = np.setdiff1d(candidates, left, assume_unique=True)
        solver = new_solver()
        if time_limit_s is not None:
            solver.setOptionValue("time_limit", max(deadline_s - time.perf_counter(), 0.0))
        _relaxed_program(problem, chosen).hand_to(solver)
        solver.run()
        status = solver.getModelStatus()
        if status == highspy.HighsModelStatus.kTimeLimit or time.perf_counter() >= deadline_s:
            return None
        if status in NO_SOLUTION:
            if len(left) == 0:
                raise InfeasibleError(
                    f"problem {problem.name}: lpr finds no plan: not even the linear relaxation, which may rent "
                    "fractions of replicas, keeps every limit, so there is none"
                )
            entering = left
            continue
        if status != highspy.HighsModelStatus.kOptimal:
            raise failure(solver, f"the relaxation of {problem.name}")
        solution = solver.getSolution()
        entering = _attractive(problem, left, _Prices.of(problem, np.array(solution.row_dual) * problem.money_unit_usd))
        if len(entering) == 0:
            break
    values = np.array(solution.col_value, dtype=np.float64)
    replicas, deployed = np.zeros(len(problem.configurations)), np.zeros(len(problem.configurations))
    replicas[chosen], deployed[chosen] = values[: len(chosen)], values[len(chosen) : 2 * len(chosen)]
    served = 1 - values[len(values) - len(problem.query_types) :]
    return _Relaxed(float(solver.getObjectiveValue()) * problem.money_unit_usd, replicas, deployed, served)


@dataclass(frozen=True, slots=True)
class _Prices:
    """Prices of the rows that all configurations share [USD per unit], by the signs of their use: no price is negative
    but that of the demand, which may be.

    Attributes
    ----------
    demand, delay, error
        Shape (types,): of a served share; of a second of mean delay; of mean error.
    storage, budget
        Of a GB, and of a USD that counts against the budget.
    pair
        Shape (pairs,): of a deployment of the (model, tier).
    """

    demand: FloatArray
    delay: FloatArray
    error: FloatArray
    storage: float
    budget: float
    pair: FloatArray

    @classmethod
    def of(cls, problem: PlanningProblem, duals: FloatArray) -> "_Prices":
        """From the duals of the relaxed program, whose shared rows come first and are scaled."""
        types, pairs = len(problem.query_types), len(problem.configurations_of_pair)
        demand, delay, error, totals, pair = np.split(
            duals[: 3 * types + 2 + pairs], np.cumsum([types, types, types, 2])
        )
        storage, budget = -totals / unit_of(np.array([problem.storage_capacity_gb, problem.budget_usd]))
        delay, error = -delay / unit_of(problem.delay_slo_s), -error / unit_of(problem.error_slo)
        return cls(demand, delay, error, float(storage), float(budget), -pair)


def _first_prices(problem: PlanningProblem) -> _Prices:
    """As if nothing were served; what must be served is worth more than anything costs."""
    worth_usd = problem.unmet_usd + np.where(problem.unmet_cap < 1, problem.rent_usd.sum(), 0.0)
    none, pairs = np.zeros_like(worth_usd), len(problem.configurations_of_pair)
    return _Prices(worth_usd, none, none, 0.0, 0.0, np.zeros(pairs))


def _attractive(problem: PlanningProblem, a: IntArray, prices: _Prices) -> IntArray:
    """Those of the configurations `a` that may lower the cost at these prices, the most promising ones only.

    The reduced cost of a deployment with any replicas `r` and shares is bounded from below: `r` is at least 1, at least
    the load over the capacity and at least the KV use, hence at least any mixture of these.
    """
    serve_usd = problem.delay_penalty_usd[:, a] + (1 + prices.budget) * problem.token_storage_usd[:, None]
    serve_usd += prices.storage * problem.token_storage_gb[:, None] + prices.delay[:, None] * problem.delay_s[:, a]
    serve_usd += prices.error[:, None] * problem.error[:, a]
    reward_usd = prices.demand[:, None] - serve_usd
    rent_usd = (1 + prices.budget) * problem.rent_usd[a]
    fixed_usd = (1 + prices.budget) * problem.model_storage_usd[a] + prices.storage * problem.model_storage_gb[a]
    fixed_usd += prices.pair[problem.pair_index[a]]
    largest, most_usd = largest_share(problem)[:, a], np.full(len(a), np.inf)
    cap = np.where(problem.cap[a] > 0, problem.cap[a], np.inf)
    for use in (problem.load[:, a] / cap, problem.kv[:, a]):
        for one in MIXTURES:
            gain = np.maximum(reward_usd - (1 - one) * rent_usd * use, 0.0)
            most_usd = np.minimum(most_usd, (largest * gain).sum(axis=0) - one * rent_usd - fixed_usd)
    order = np.argsort(-most_usd, kind="stable")[:ENTERING]
    return np.sort(a[order[most_usd[order] > GAIN * problem.money_unit_usd]])


def _relaxed_program(problem: PlanningProblem, chosen: IntArray) -> LinearProgram:
    """The relaxation over the configurations `chosen`: columns r, w, x of the routes that may carry anything, and u."""
    largest, useful = largest_share(problem)[:, chosen], useful_replicas(problem)[chosen].astype(np.float64)
    i, a = np.nonzero(largest)
    each, route, types = np.arange(len(chosen)), np.arange(len(i)), np.arange(len(problem.query_types))
    rent_usd, weights_usd, weights_gb = (
        problem.rent_usd[chosen],
        problem.model_storage_usd[chosen],
        problem.model_storage_gb,
    )
    tokens_usd, tokens_gb = problem.token_storage_usd[i], problem.token_storage_gb[i]
    unit_usd = problem.money_unit_usd
    program = LinearProgram()
    r = program.columns(useful, rent_usd / unit_usd)
    w = program.columns(np.ones(len(chosen)), weights_usd / unit_usd)
    x = program.columns(np.ones(len(i)), (problem.delay_penalty_usd[i, chosen[a]] + tokens_usd) / unit_usd)
    u = program.columns(problem.unmet_cap, problem.unmet_usd / unit_usd)

    # HiGHS has absolute tolerances, so every limit is scaled to one. The rows that `_Prices` reads come first.
    ones, none = np.ones(len(types)), np.zeros(len(chosen))
    program.rows((i, x, 1.0), (types, u, 1.0), at_least=ones, at_most=ones)
    for use, limit in ((problem.delay_s, problem.delay_slo_s), (problem.error, problem.error_slo)):
        program.rows((i, x, use[i, chosen[a]] / unit_of(limit)[i]), at_most=limit / unit_of(limit))
    totals = np.array([problem.storage_capacity_gb, problem.budget_usd])
    gb, usd = unit_of(totals)
    program.rows(
        *((0, w, weights_gb[chosen] / gb), (0, x, tokens_gb / gb)),
        *((1, r, rent_usd / usd), (1, w, weights_usd / usd), (1, x, tokens_usd / usd)),
        at_most=totals / unit_of(totals),
    )
    program.rows((problem.pair_index[chosen], w, 1.0), at_most=np.ones(len(problem.configurations_of_pair)))
    # Compute and KV memory; at least one replica where deployed, and no more than are useful; shares where deployed.
    program.rows((each, r, -problem.cap[chosen]), (a, x, problem.load[i, chosen[a]]), at_most=none)
    program.rows((each, r, -1.0), (a, x, problem.kv[i, chosen[a]]), at_most=none)
    program.rows((each, r, -1.0), (each, w, 1.0), at_most=none)
    program.rows((each, r, 1.0), (each, w, -useful), at_most=none)
    program.rows((route, w[a], -largest[i, a]), (route, x, 1.0), at_most=np.zeros(len(i)))
    return program


def rounded_fleets(problem: PlanningProblem, time_limit_s: float | None) -> list[IntArray]:
    """The fleets, shape (configurations,), that the linear relaxation rounds to; none where it has no solution in time.

    Where a fleet has many replicas these are nearly optimal: to round up costs a replica of each deployment.
    """
    try:
        relaxed = _relaxation(problem, time_limit_s)
    except (InfeasibleError, SolverError):
        return []
    return [] if relaxed is None else _roundings(problem, relaxed)


def _roundings(problem: PlanningProblem, relaxed: _Relaxed) -> list[IntArray]:
    return [_rounded(problem, relaxed, threshold) for threshold in THRESHOLDS]


def _rounded(problem: PlanningProblem, relaxed: _Relaxed, threshold: float) -> IntArray:
    """Shape (configurations,): the fleet that the relaxation rounds to; it keeps the budget and the storage."""
    order = np.argsort(-relaxed.deployed, kind="stable")
    order = order[relaxed.deployed[order] >= threshold]
    _, first = np.unique(problem.pair_index[order], return_index=True)
    order = order[np.sort(first)]
    count = np.clip(np.ceil(relaxed.replicas[order] - WHOLE), 1, problem.max_replicas)
    usd = np.cumsum(problem.rent_usd[order] * count + problem.model_storage_usd[order])
    gb = np.cumsum(problem.model_storage_gb[order])
    tokens_usd, tokens_gb = problem.token_storage_usd @ relaxed.served, problem.token_storage_gb @ relaxed.served
    fits = (usd + tokens_usd <= room(problem.budget_usd)) & (gb + tokens_gb <= room(problem.storage_capacity_gb))
    replicas = np.zeros(len(problem.configurations), dtype=np.int64)
    replicas[order[fits]] = count[fits]
    return replicas
