"""`lpr`, `dvr` and `hf`: what arXiv 2604.07472 compares its heuristics with.

The paper names three baselines; how each of them works in detail is our reading, which the classes state. All three
end with the routing program of `routing.py` or with AGH, so what they lose is lost in the choice of the fleet:

- `lpr` rents what the linear relaxation rents, rounded up;
- `dvr` chooses for each query type alone, as if no other shared its GPUs, and routes afterwards;
- `hf` rents a single GPU tier.
"""

import time
from dataclasses import dataclass, replace
from typing import TypeAlias

import highspy
import numpy as np
from scipy import sparse

from policies.heuristics.adaptive import Agh
from policies.heuristics.coverage import largest_share
from policies.heuristics.dominance import dominated, useful_replicas
from policies.heuristics.greedy import keeps_limits
from policies.heuristics.infeasible import explain, over_cap
from policies.heuristics.routing import route, route_deployments
from policies.highs import new_solver
from simulator.errors import InfeasibleError, RunError
from simulator.planning.plan import Plan, PlanArrays, PlanStatus, build_plan, plan_cost_usd
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem

WHOLE = 1e-6  # what solver noise may add to replicas that are a whole number
WITHIN = 1e-9  # relative: what rounding may add to a sum of rents, as in `routing.py`
THRESHOLDS = (0.9, 0.5, 0.25, 0.1, 0.05, 0.01, 1e-6)  # of a deployment in the relaxation, to be kept
STARTS = 4  # of AGH on each tier
ENTERING = 60  # configurations that join the relaxed program at a time
GAIN_USD = 1e-7  # what a configuration must promise to join it
MIXTURES = np.linspace(0.0, 1.0, 11)  # weights of "at least 1" in the bound of `_attractive`
SHOWN = 3  # tiers, and types of each, that a message of `hf` names
Rows: TypeAlias = "sparse.csr_array[np.float64, tuple[int, int]]"  # text: older SciPy has no such subscript


# -- lpr ---------------------------------------------------------------------------------------------------------------


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
    program. Of the plans of a few thresholds the cheapest is kept.
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
            fleets = [_rounded(problem, relaxed, threshold) for threshold in THRESHOLDS]
        best = _cheapest(problem, fleets)
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
        kept = np.setdiff1d(candidates, left, assume_unique=True)
        solver = new_solver()
        if time_limit_s is not None:
            solver.setOptionValue("time_limit", max(deadline_s - time.perf_counter(), 0.0))
        solver.passModel(_relaxed_program(problem, kept))
        solver.run()
        status = solver.getModelStatus()
        if status == highspy.HighsModelStatus.kTimeLimit or time.perf_counter() >= deadline_s:
            return None
        # Every column is bounded, so what is unbounded or infeasible is infeasible.
        if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
            if len(left) == 0:
                raise InfeasibleError(
                    f"problem {problem.name}: lpr finds no plan: not even the linear relaxation, which may rent "
                    "fractions of replicas, keeps every limit, so there is none"
                )
            entering = left
            continue
        if status != highspy.HighsModelStatus.kOptimal:
            raise RunError(f"HiGHS failed on the relaxation of {problem.name} ({solver.modelStatusToString(status)})")
        solution = solver.getSolution()
        entering = _attractive(problem, left, _Prices.of(problem, np.array(solution.row_dual, dtype=np.float64)))
        if len(entering) == 0:
            break
    values = np.array(solution.col_value, dtype=np.float64)
    replicas, deployed = np.zeros(len(problem.configurations)), np.zeros(len(problem.configurations))
    replicas[kept], deployed[kept] = values[: len(kept)], values[len(kept) : 2 * len(kept)]
    served = 1 - values[len(values) - len(problem.query_types) :]
    return _Relaxed(float(solver.getObjectiveValue()), replicas, deployed, served)


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
        storage, budget = -totals / _scale(np.array([problem.storage_capacity_gb, problem.budget_usd]))
        delay, error = -delay / _scale(problem.delay_slo_s), -error / _scale(problem.error_slo)
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
    for use in (problem.load[:, a] / problem.cap[a], problem.kv[:, a]):
        for one in MIXTURES:
            gain = np.maximum(reward_usd - (1 - one) * rent_usd * use, 0.0)
            most_usd = np.minimum(most_usd, (largest * gain).sum(axis=0) - one * rent_usd - fixed_usd)
    order = np.argsort(-most_usd, kind="stable")[:ENTERING]
    return np.sort(a[order[most_usd[order] > GAIN_USD]])


def _relaxed_program(problem: PlanningProblem, kept: IntArray) -> highspy.HighsLp:
    """The relaxation over the configurations `kept`: columns r, w, x of the routes that may carry anything, and u."""
    largest, useful = largest_share(problem)[:, kept], useful_replicas(problem)[kept].astype(np.float64)
    i, a = np.nonzero(largest)
    n, routes, types, pairs = len(kept), len(i), len(problem.query_types), len(problem.configurations_of_pair)
    column, ones = kept[a], np.ones(n)

    def per(row: IntArray, values: FloatArray, rows: int) -> Rows:
        return sparse.csr_array((values, (row, np.arange(len(row)))), shape=(rows, len(row)))

    def diagonal(values: FloatArray) -> Rows:
        return per(np.arange(len(values)), values, len(values))

    # HiGHS has absolute tolerances, so every limit is scaled to one.
    delay_scale, error_scale = _scale(problem.delay_slo_s), _scale(problem.error_slo)
    gb, usd = _scale(np.array([problem.storage_capacity_gb, problem.budget_usd]))
    replicas_totals = np.stack([np.zeros(n), problem.rent_usd[kept] / usd])
    weights_totals = np.stack([problem.model_storage_gb[kept] / gb, problem.model_storage_usd[kept] / usd])
    tokens_totals = np.stack([problem.token_storage_gb[i] / gb, problem.token_storage_usd[i] / usd])
    blocks: list[list[Rows | None]] = [
        # demand, delay, error
        [None, None, per(i, np.ones(routes), types), diagonal(np.ones(types))],
        [None, None, per(i, problem.delay_s[i, column] / delay_scale[i], types), None],
        [None, None, per(i, problem.error[i, column] / error_scale[i], types), None],
        # storage and budget, pairs
        [*map(sparse.csr_array, (replicas_totals, weights_totals, tokens_totals)), None],
        [None, per(problem.pair_index[kept], ones, pairs), None, None],
        # compute, KV memory
        [diagonal(-problem.cap[kept]), None, per(a, problem.load[i, column], n), None],
        [diagonal(-ones), None, per(a, problem.kv[i, column], n), None],
        # replicas, linking
        [diagonal(-ones), diagonal(ones), None, None],
        [diagonal(ones), diagonal(-useful), None, None],
        [None, sparse.csr_array(per(a, -largest[i, a], n).T), diagonal(np.ones(routes)), None],
    ]
    limits = [
        np.ones(types),
        problem.delay_slo_s / delay_scale,
        problem.error_slo / error_scale,
        np.array([problem.storage_capacity_gb / gb, problem.budget_usd / usd]),
        np.ones(pairs),
        np.zeros(4 * n + routes),
    ]
    matrix = sparse.csr_array(sparse.block_array(blocks, format="csr"))
    serve_usd = problem.delay_penalty_usd[i, column] + problem.token_storage_usd[i]
    program = highspy.HighsLp()
    program.num_row_, program.num_col_ = matrix.shape
    program.col_cost_ = np.concatenate(
        [problem.rent_usd[kept], problem.model_storage_usd[kept], serve_usd, problem.unmet_usd]
    )
    program.col_lower_ = np.zeros(program.num_col_)
    program.col_upper_ = np.concatenate([useful, ones, np.ones(routes), problem.unmet_cap])
    program.row_lower_ = np.concatenate([np.ones(types), np.full(program.num_row_ - types, -highspy.kHighsInf)])
    program.row_upper_ = np.concatenate(limits)
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_ = matrix.indptr
    program.a_matrix_.index_ = matrix.indices
    program.a_matrix_.value_ = matrix.data
    return program


def _scale(limit: FloatArray) -> FloatArray:
    return np.where((limit > 0) & np.isfinite(limit), limit, 1.0)


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
    fits = (usd + tokens_usd <= _room(problem.budget_usd)) & (gb + tokens_gb <= _room(problem.storage_capacity_gb))
    replicas = np.zeros(len(problem.configurations), dtype=np.int64)
    replicas[order[fits]] = count[fits]
    return replicas


def _room(limit: float) -> float:
    return limit + WITHIN * max(limit, 1.0)


def _cheapest(problem: PlanningProblem, fleets: list[IntArray]) -> PlanArrays | None:
    """The cheapest of some fleets, each with its best routing; None if none can be routed."""
    best: PlanArrays | None = None
    best_usd, routed = np.inf, set[bytes]()
    for fleet in fleets:
        if fleet.tobytes() in routed:
            continue
        routed.add(fleet.tobytes())
        arrays = route(problem, fleet)
        cost_usd = np.inf if arrays is None else sum(plan_cost_usd(problem, arrays).values())
        if cost_usd < best_usd:
            best, best_usd = arrays, cost_usd
    return best


# -- dvr ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dvr:
    """Decoupled VM selection and routing, as we read it.

    Each type asks for the configuration that serves its whole demand at the lowest rent and weights storage in whole
    replicas (per unit of what `max_replicas` can serve), among those that keep its delay and error limits by
    themselves. The wishes are merged per (model, tier): the configuration that most of its types ask for, with
    replicas for the demand of all of them together. These are rented by falling unmet penalty of their types, with as
    many replicas as the budget still pays after the weights and the tokens of those types, which cost the same wherever
    they are served. Only then the demand is routed, by the linear program.
    """

    @property
    def name(self) -> str:
        return "dvr"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Choose, then route, once and in milliseconds; `incumbent`, `stop` and `seed` play no part.

        Raises
        ------
        InfeasibleError
            If no routing over the chosen fleet keeps the unmet caps; the message names the types and the limit.
        """
        started = time.perf_counter()
        arrays = route(problem, _chosen_fleet(problem))
        if arrays is None:
            raise InfeasibleError(self._complaints(problem))
        return build_plan(
            problem,
            arrays,
            policy=self.name,
            status=PlanStatus.FEASIBLE,
            seconds=time.perf_counter() - started,
        )

    def _complaints(self, problem: PlanningProblem) -> list[str]:
        def plan(variant: PlanningProblem) -> PlanArrays | None:
            fleet = _chosen_fleet(variant)
            deployed = np.flatnonzero(fleet)
            # Unmet demand beyond the caps costs what it does within: what is short is short for lack of room.
            routing = route_deployments(variant, deployed, fleet[deployed], excess_usd=_dearest_usd(variant))
            return None if routing is None else routing.arrays(variant)

        arrays = plan(problem)
        unmet = np.ones(len(problem.query_types)) if arrays is None else arrays.unmet
        return explain(problem, over_cap(problem, unmet), self.name, plan) or [
            f"problem {problem.name}: {self.name} finds no plan: no routing over the fleet that it chose keeps every "
            "limit"
        ]


def _dearest_usd(problem: PlanningProblem) -> float:
    """More than any plan pays for its demand, so that the elastic caps are broken only where they must be."""
    return 10.0 * float(1.0 + problem.unmet_usd.sum() + problem.delay_penalty_usd.sum())


def _chosen_fleet(problem: PlanningProblem) -> IntArray:
    """Shape (configurations,): the replicas that the types ask for, as far as budget and storage go."""
    wish, use = _wishes(problem), _replicas_used(problem)
    replicas = np.zeros(len(problem.configurations), dtype=np.int64)
    wanted = [int(pair) for pair in np.unique(problem.pair_index[wish[wish >= 0]])]
    types_of = {pair: np.flatnonzero((wish >= 0) & (problem.pair_index[wish] == pair)) for pair in wanted}
    left_usd, left_gb = _room(problem.budget_usd), _room(problem.storage_capacity_gb)
    for pair in sorted(wanted, key=lambda pair: -float(problem.unmet_usd[types_of[pair]].sum())):
        types = types_of[pair]
        a = int(np.bincount(wish[types]).argmax())
        count = np.clip(np.ceil(use[types, a].sum() - WHOLE), 1, problem.max_replicas)
        storage_usd = problem.model_storage_usd[a] + problem.token_storage_usd[types].sum()
        storage_gb = problem.model_storage_gb[a] + problem.token_storage_gb[types].sum()
        if problem.rent_usd[a] > 0:
            count = min(count, np.floor((left_usd - storage_usd) / problem.rent_usd[a]))
        spent_usd = problem.rent_usd[a] * count + storage_usd
        if count >= 1 and spent_usd <= left_usd and storage_gb <= left_gb:
            replicas[a] = int(count)
            left_usd, left_gb = left_usd - spent_usd, left_gb - storage_gb
    return replicas


def _wishes(problem: PlanningProblem) -> IntArray:
    """Shape (types,): the configuration that each type would rent if it were alone, -1 if there is none."""
    use = _replicas_used(problem)
    wish = np.full(len(use), -1, dtype=np.int64)
    if problem.max_replicas < 1 or use.size == 0:
        return wish
    usable = _usable_alone(problem) & np.isfinite(use)
    replicas = np.clip(np.ceil(use - WHOLE), 1, problem.max_replicas)
    served = np.minimum(np.divide(replicas, use, out=np.ones_like(use), where=use > replicas), 1.0)
    asked_usd = problem.rent_usd * replicas + problem.model_storage_usd
    usd = np.divide(asked_usd, served, out=np.full_like(use, np.inf), where=usable)
    best = np.lexsort((use, usd), axis=1)[:, 0]  # of equal cost the one that the type fills least
    some = usable.any(axis=1)
    wish[some] = best[some]
    return wish


def _replicas_used(problem: PlanningProblem) -> FloatArray:
    """Shape (types, configurations): replicas that the whole demand of the type fills, not whole; maybe infinite."""
    cap = np.broadcast_to(problem.cap, problem.load.shape)
    by_load = np.divide(problem.load, cap, out=np.where(problem.load > 0, np.inf, 0.0), where=cap > 0)
    return np.maximum(by_load, problem.kv)


def _usable_alone(problem: PlanningProblem) -> BoolArray:
    """Shape (types, configurations): what keeps the limits of the type by itself, as GH selects it.

    Where nothing does but some demand may stay unmet, what keeps them for the share that must be served.
    """
    usable: BoolArray = problem.allowed & keeps_limits(problem, np.ones_like(problem.unmet_cap))
    stuck = (problem.unmet_cap < 1) & ~usable.any(axis=1)
    usable[stuck] = (problem.allowed & keeps_limits(problem, 1 - problem.unmet_cap))[stuck]
    return usable


# -- hf ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hf:
    """Homogeneous fleet, as we read it: the cheapest plan whose GPUs are all of one tier.

    For each tier AGH plans with the configurations on it alone (any models, any parallel degrees), from a few starts.
    A fleet of nothing counts as one too.
    """

    @property
    def name(self) -> str:
        return "hf"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Plan on each tier in turn with up to 4 starts; `stop` and `seed` are those of AGH, `incumbent` plays no part.

        When the time limit is hit, the remaining tiers are left out and the plan has the status `time_limit`.

        Raises
        ------
        InfeasibleError
            If no tier alone was found to keep the unmet caps; the message says why the first ones do not.
        """
        started = time.perf_counter()
        best = _cheapest(problem, [np.zeros(len(problem.configurations), dtype=np.int64)])
        best_usd = np.inf if best is None else sum(plan_cost_usd(problem, best).values())
        failed: list[str] = []
        timed_out = False
        tier_of = np.array([configuration.tier for configuration in problem.configurations])
        for tier in problem.tiers:
            columns = np.flatnonzero(tier_of == tier.name)
            if len(columns) == 0:
                continue
            left_s = None if stop.time_limit_s is None else stop.time_limit_s - (time.perf_counter() - started)
            if left_s is not None and left_s <= 0:
                timed_out = True
                break
            part = _part(problem, columns)
            rule = replace(stop, starts=min(stop.starts, STARTS), time_limit_s=left_s)
            # Not AGH's `plan`: for each tier that fails, that would search once more for the reason.
            point, late = Agh().search(part, None, rule, seed)
            timed_out = timed_out or late
            unmet = np.ones(len(problem.query_types)) if point is None else point.placement.unmet
            if point is None or point.excess > 0:
                short = [problem.query_types[i].name for i in over_cap(problem, unmet)]
                more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
                failed.append(f"{tier.name} leaves too much unmet of {', '.join(short[:SHOWN])}{more}")
            elif point.score_usd < best_usd:
                best, best_usd = _in_full(problem, columns, point.placement.arrays()), point.score_usd
        if best is None:
            raise InfeasibleError(self._complaints(problem, failed, timed_out, stop))
        return build_plan(
            problem,
            best,
            policy=self.name,
            status=PlanStatus.TIME_LIMIT if timed_out else PlanStatus.FEASIBLE,
            seconds=time.perf_counter() - started,
        )

    def _complaints(
        self, problem: PlanningProblem, failed: list[str], timed_out: bool, stop: StoppingRule
    ) -> list[str]:
        within_time = f" in {stop.time_limit_s} s" if timed_out else ""
        more = [f"and so on for {len(failed) - SHOWN} more tiers"] if len(failed) > SHOWN else []
        return [
            f"problem {problem.name}: {self.name} found no plan that keeps the unmet caps with a single GPU tier"
            + within_time,
            *failed[:SHOWN],
            *more,
        ]


def _part(problem: PlanningProblem, columns: IntArray) -> PlanningProblem:
    """The problem with these configurations alone."""
    return replace(
        problem,
        configurations=tuple(problem.configurations[a] for a in columns),
        delay_s=problem.delay_s[:, columns],
        error=problem.error[:, columns],
        load=problem.load[:, columns],
        kv=problem.kv[:, columns],
        cap=problem.cap[columns],
        allowed=problem.allowed[:, columns],
    )


def _in_full(problem: PlanningProblem, columns: IntArray, arrays: PlanArrays) -> PlanArrays:
    """A plan for these configurations alone, in the indices of the problem."""
    replicas, share = np.zeros(len(problem.configurations), dtype=np.int64), np.zeros(problem.delay_s.shape)
    replicas[columns], share[:, columns] = arrays.replicas, arrays.share
    return PlanArrays(replicas, share, arrays.unmet)
