"""Why a planning problem has no plan: the smallest set of its limits that cannot be kept together, in its own words.

A *limit* is what an operator could move: the budget, the storage, `max_replicas`, and of each query type its delay SLO,
its error SLO and its unmet cap. What a configuration is (delay, error, capacity, which routes are allowed, one
configuration per model and tier) is no limit. To *lift* one is to take the problem without it.

Feasibility is asked of an oracle, and one answer tells more than it was asked: with fewer limits a problem that has a
plan still has one, and with more limits a problem that has none still has none.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import highspy
import numpy as np

from policies.heuristics.coverage import share_within
from policies.heuristics.greedy import Greedy, falling_rate
from policies.heuristics.infeasible import over_cap
from policies.highs import new_solver
from simulator.errors import RunError
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem, QueryType

Feasible = Callable[[PlanningProblem, float], bool | None]

TOLERANCE = 1e-7
EXPLAINING_S = 30.0  # at most, to find out why there is no plan
SHORTEST_S, LARGE = 0.2, 5000  # time to explain a problem that is small; types x configurations of one that is not
SETTINGS = {"primal_feasibility_tolerance": TOLERANCE, "mip_feasibility_tolerance": TOLERANCE}

# Shares of the time: by then the search for a set, and the search for a smaller one, must be over.
SEARCH_SHARE, PROOF_SHARE = 0.6, 0.9
CALL_SHARE = 0.15  # of the time for one question: a hard one shall not take it all


class LimitKind(StrEnum):
    """What a limit bounds. The order is that of a message."""

    BUDGET = "budget"
    STORAGE = "storage"
    REPLICAS = "replicas"
    UNMET = "unmet"
    DELAY = "delay"
    ERROR = "error"


SHOWN = 4  # limits of one kind that a message tells one by one
SEVERAL = {LimitKind.UNMET: "unmet caps", LimitKind.DELAY: "delay SLOs", LimitKind.ERROR: "error SLOs"}


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a problem: on all of it, or on the query type of that name."""

    kind: LimitKind
    query_type: str | None = None

    def lifted(self, problem: PlanningProblem) -> PlanningProblem:
        """The problem without this limit. Arrays derived from it (`allowed`, capacity rows) stay as they are."""
        match self.kind:
            case LimitKind.BUDGET:
                return replace(problem, budget_usd=np.inf)
            case LimitKind.STORAGE:
                return replace(problem, storage_capacity_gb=np.inf)
            case LimitKind.REPLICAS:
                return replace(problem, max_replicas=max(problem.max_replicas, enough_replicas(problem)))
        types = (self._lifted_from(q) if q.name == self.query_type else q for q in problem.query_types)
        return replace(problem, query_types=tuple(types))

    def _lifted_from(self, query_type: QueryType) -> QueryType:
        match self.kind:
            case LimitKind.UNMET:
                return replace(query_type, unmet_cap=1.0)
            case LimitKind.DELAY:
                return replace(query_type, delay_slo_s=np.inf)
        return replace(query_type, error_slo=np.inf)

    def describe(self, problem: PlanningProblem) -> str:
        """The limit in the words of the problem, with its number."""
        match self.kind:
            case LimitKind.BUDGET:
                return f"the budget of {problem.budget_usd:g} USD per {problem.period_h:g} h"
            case LimitKind.STORAGE:
                return f"the storage capacity of {problem.storage_capacity_gb:g} GB"
            case LimitKind.REPLICAS:
                return f"at most {problem.max_replicas} replicas of a configuration (max_replicas)"
        (q,) = (q for q in problem.query_types if q.name == self.query_type)
        match self.kind:
            case LimitKind.UNMET if q.unmet_cap == 0:
                return f"all of {q.name} must be served (unmet_cap 0)"
            case LimitKind.UNMET:
                return f"at least {1 - q.unmet_cap:.4g} of {q.name} must be served (unmet_cap {q.unmet_cap:g})"
            case LimitKind.DELAY:
                return f"the delay SLO of {q.name} of {q.delay_slo_s:g} s"
        return f"the error SLO of {q.name} of {q.error_slo:g}"


Limits = frozenset[Limit]


def limits_of(problem: PlanningProblem) -> tuple[Limit, ...]:
    """The limits that can have a part in a conflict, in the order of a message.

    A type that may stay unmet altogether is none's business: to serve nothing of it keeps all its limits.
    """
    limits = []
    if np.isfinite(problem.budget_usd):
        limits.append(Limit(LimitKind.BUDGET))
    if np.isfinite(problem.storage_capacity_gb):
        limits.append(Limit(LimitKind.STORAGE))
    if problem.max_replicas < enough_replicas(problem):
        limits.append(Limit(LimitKind.REPLICAS))
    for q in problem.query_types:
        if q.unmet_cap < 1:
            limits.append(Limit(LimitKind.UNMET, q.name))
            limits += [Limit(LimitKind.DELAY, q.name)] if np.isfinite(q.delay_slo_s) else []
            limits += [Limit(LimitKind.ERROR, q.name)] if np.isfinite(q.error_slo) else []
    return tuple(limits)


def enough_replicas(problem: PlanningProblem) -> int:
    """A `max_replicas` that binds no plan: one more than what the whole demand would need on any one configuration."""
    return int(_replicas_for(problem, problem.allowed.astype(np.float64)).max(initial=0)) + 1


def _replicas_for(problem: PlanningProblem, share: FloatArray) -> IntArray:
    """Shape (configurations,): replicas, at least one, that each configuration needs for `share` (types, all of them).

    Nothing is served where `cap` is not positive, unless it takes no compute: that row says so itself.
    """
    load = np.where(share > 0, problem.load * share, 0.0).sum(axis=0)
    load = np.divide(load, problem.cap, out=np.zeros(len(load)), where=problem.cap > 0)
    kv = np.where(share > 0, problem.kv * share, 0.0).sum(axis=0)
    replicas: IntArray = np.maximum(np.ceil(np.maximum(load, kv)), 1).astype(np.int64)
    return replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Limits that no plan keeps together.

    Attributes
    ----------
    limits
        The conflict, in the order of a message.
    irreducible
        Each of them is needed: without any one, the rest of them can be kept. False if not everything was decided in
        time; the limits conflict all the same.
    smallest
        No conflict of fewer limits exists. Implies `irreducible`; False also where that was not decided in time.
    enough_alone
        Those whose lifting alone gives the whole problem a plan. None if not decided in time.
    """

    limits: tuple[Limit, ...]
    irreducible: bool
    smallest: bool
    enough_alone: tuple[Limit, ...] | None

    def message(self, problem: PlanningProblem, *, cheapest_usd: float | None = None) -> str:
        """What to tell the user.

        Parameters
        ----------
        cheapest_usd
            Rent and storage of one period [USD] of the cheapest fleet known that keeps every limit but the budget. Told
            where the budget has a part in the conflict.
        """
        words = self._words(problem)
        text = f"problem {problem.name} is infeasible: "
        if len(self.limits) > 1:
            text += f"these limits conflict: {'; '.join(words)}."
        else:
            text += (
                f"{words[0]}, but cannot be." if self.limits[0].kind is LimitKind.UNMET else f"{words[0]} is too tight."
            )
        if cheapest_usd is not None and Limit(LimitKind.BUDGET) in self.limits:
            text += f" The cheapest fleet found that keeps every other limit spends {cheapest_usd:.2f} USD."
        if self.enough_alone is not None:
            text += f" {self._way_out(problem, self.enough_alone)}"
        if not self.smallest:
            text += " This may not be the smallest such set: not everything was decided in time."
        return text

    def _words(self, problem: PlanningProblem) -> list[str]:
        """Each limit, or those of a kind together where there are many."""
        words = []
        for kind in LimitKind:
            limits = [limit for limit in self.limits if limit.kind is kind]
            if len(limits) > SHOWN:
                names = ", ".join(limit.query_type or "" for limit in limits)
                words.append(f"the {SEVERAL[kind]} of {len(limits)} query types ({names})")
            else:
                words += [limit.describe(problem) for limit in limits]
        return words

    def _way_out(self, problem: PlanningProblem, enough_alone: tuple[Limit, ...]) -> str:
        """What is true of lifting one limit: other limits may conflict as well."""
        if not enough_alone:
            return "Other limits conflict as well: to lift one of these is not enough."
        if len(enough_alone) < len(self.limits):
            words = " or ".join(limit.describe(problem) for limit in enough_alone)
            return f"Of these, only without {words} does a plan exist: other limits conflict as well."
        return "Without it a plan exists." if len(self.limits) == 1 else "Without any one of them a plan exists."


@dataclass(slots=True)
class _Answers:
    """The oracle, the time it has, and what it has said so far."""

    problem: PlanningProblem
    limits: Limits
    feasible: Feasible
    call_s: float
    deadline: float = 0.0  # of `time.monotonic`
    can_be_kept: list[Limits] = field(default_factory=list)
    conflict: list[Limits] = field(default_factory=list)

    def __call__(self, kept: Limits) -> bool | None:
        """Whether a plan keeps these limits, all others lifted; None if not decided in time."""
        served = {limit.query_type for limit in kept if limit.kind is LimitKind.UNMET}
        kept = frozenset(limit for limit in kept if limit.query_type is None or limit.query_type in served)
        if any(kept <= known for known in self.can_be_kept):
            return True
        if any(kept >= known for known in self.conflict):
            return False
        seconds = min(self.call_s, self.deadline - time.monotonic())
        if seconds <= 0:
            return None
        answer = self.feasible(_without(self.problem, self.limits - kept), seconds)
        if answer is not None:
            # A type that may stay unmet keeps its own limits for nothing.
            idle = {limit for limit in self.limits if limit.query_type is not None and limit.query_type not in served}
            free = frozenset(limit for limit in idle if limit.kind is not LimitKind.UNMET)
            self.can_be_kept += [kept | free] if answer else []
            self.conflict += [kept] if not answer else []
        return answer

    def dropped(self, kept: Limits, groups: Sequence[Limits]) -> Limits:
        """What is left of a conflict when as many groups as possible are dropped, the first ones before the others.

        If every answer came in time, none of the groups that are left can be dropped from it.
        """
        groups = [group for group in groups if group & kept]
        if not groups:
            return kept
        rest = kept.difference(*groups)
        if self(rest) is False:
            return rest
        if len(groups) == 1:
            return kept
        half = len(groups) // 2
        return self.dropped(self.dropped(kept, groups[:half]), groups[half:])

    def added(self, kept: Limits, more: Sequence[Limit]) -> Limits:
        """A set that can be kept, with as many more limits as possible."""
        if not more or self(kept | frozenset(more)) is True:
            return kept | frozenset(more)
        if len(more) == 1:
            return kept
        half = len(more) // 2
        return self.added(self.added(kept, more[:half]), more[half:])


def _without(problem: PlanningProblem, limits: Iterable[Limit]) -> PlanningProblem:
    for limit in limits:
        problem = limit.lifted(problem)
    return problem


def why_no_plan(
    problem: PlanningProblem,
    least_spending_usd: Callable[[PlanningProblem, float], float | None],
    *,
    time_limit_s: float | None,
) -> str:
    """Which limits conflict, and how much money would do, in one sentence.

    Parameters
    ----------
    problem
        Has no plan. This is the caller's finding and not examined again.
    least_spending_usd
        What a plan has to spend if the budget sets no limit, found in so many seconds; None if nothing is found.
    time_limit_s
        What is left of the time for both; None where nobody waits. Without any, the sentence names no limits.
    """
    time_limit_s = EXPLAINING_S if time_limit_s is None else min(time_limit_s, EXPLAINING_S)
    start = time.monotonic()
    # One question costs some hundred greedy moves and a program to state: too much where hardly any time is left.
    if time_limit_s < SHORTEST_S * (1 + problem.delay_s.size / LARGE):
        return f"problem {problem.name} has no plan; with more time it is told which of its limits conflict"
    conflict = smallest_conflict(problem, is_feasible, time_limit_s=time_limit_s)
    left_s = max(time_limit_s - (time.monotonic() - start), 0.0)
    spending = least_spending_usd(problem, left_s) if Limit(LimitKind.BUDGET) in conflict.limits and left_s else None
    return conflict.message(problem, cheapest_usd=spending)


def smallest_conflict(problem: PlanningProblem, feasible: Feasible, *, time_limit_s: float) -> Conflict:
    """Find a smallest set of limits that no plan keeps together.

    A deletion filter drops what it can, whole query types first, so that few types appear, then single limits. What is
    left is irreducible: each limit in it is needed. That much is guaranteed if every answer comes in time. Filters that
    start differently find different such sets, and the shortest is kept. It is then shown to be of least number, or a
    smaller one is found, through hitting sets: a conflict must contain a limit outside of each set that can be kept, so
    a least choice of such limits is a lower bound, and if it conflicts itself it is the answer.

    Parameters
    ----------
    problem
        Has no plan. This is the caller's finding and not examined again.
    feasible
        Whether a problem has a plan, given so many seconds; None if not decided in them: the limit in question is kept.
    time_limit_s
        For everything [s]. How well it is kept depends on how well `feasible` does.
    """
    start = time.monotonic()
    limits = limits_of(problem)
    whole = frozenset(limits)
    ask = _Answers(problem, whole, feasible, call_s=CALL_SHARE * time_limit_s, conflict=[whole])

    ask.deadline = start + SEARCH_SHARE * time_limit_s
    best = min((_filtered(ask, stages) for stages in _orders(problem, limits)), key=len)
    ask.deadline = start + PROOF_SHARE * time_limit_s
    best, smallest = _smallest(ask, limits, best)
    ask.deadline = start + time_limit_s
    alone = {limit: ask(whole - {limit}) for limit in limits if limit in best}
    return Conflict(
        limits=tuple(limit for limit in limits if limit in best),
        irreducible=smallest or all(ask(best - {limit}) is True for limit in best),
        smallest=smallest,
        enough_alone=None if None in alone.values() else tuple(limit for limit, answer in alone.items() if answer),
    )


def _orders(problem: PlanningProblem, limits: tuple[Limit, ...]) -> Iterable[list[list[Limits]]]:
    """Stages of groups of limits, to be dropped in this order: the dearest to keep last.

    A conflict without the budget says more (money would not help), so the first order drops it first, and then all SLOs
    of a kind at once, which is quick where they have no part in it. The other orders find conflicts of few types: they
    drop those with the least and those with the most to compute first.
    """
    must = 1 - problem.unmet_cap
    least_load = np.where(problem.allowed & (must[:, None] > 0), problem.load * must[:, None], np.inf).min(
        axis=1, initial=np.inf
    )
    names = [problem.query_types[i].name for i in np.argsort(least_load, kind="stable")]
    types = [frozenset(limit for limit in limits if limit.query_type == name) for name in names]
    shared = [frozenset({limit}) for limit in limits if limit.query_type is None]
    singles = [frozenset({limit}) for limit in reversed(limits) if limit.query_type is not None]
    slos = [frozenset(limit for limit in limits if limit.kind is kind) for kind in (LimitKind.DELAY, LimitKind.ERROR)]
    yield [shared, slos, types, singles]
    yield [types, singles, shared[::-1]]
    yield [types[::-1], shared[::-1], singles]


def _filtered(ask: _Answers, stages: list[list[Limits]]) -> Limits:
    kept = ask.limits
    for groups in stages:
        kept = ask.dropped(kept, groups)
    return kept


def _smallest(ask: _Answers, limits: tuple[Limit, ...], best: Limits) -> tuple[Limits, bool]:
    """A conflict of least number and True, or `best` and False if time did not do."""
    while True:
        seconds = min(ask.call_s, ask.deadline - time.monotonic())
        hitting = _least_hitting_set(limits, [ask.limits - known for known in ask.can_be_kept], seconds)
        if hitting is None or len(hitting) >= len(best):
            return best, hitting is not None
        answer = ask(hitting)
        if answer is not True:
            return (best, False) if answer is None else (hitting, True)
        ask.added(hitting, [limit for limit in limits if limit not in hitting])
        shortest = min(ask.conflict, key=len)  # to add too much is to find other conflicts
        if len(shortest) < len(best):
            best = ask.dropped(shortest, [frozenset({limit}) for limit in reversed(limits)])


def _least_hitting_set(limits: tuple[Limit, ...], sets: list[Limits], seconds: float) -> Limits | None:
    """Fewest limits with one of each set, and with no SLO of a type that may stay unmet. None if not found in time."""
    column = {limit: n for n, limit in enumerate(limits)}
    program = _Program()
    for _ in limits:
        program.column(1.0, cost=1.0, whole=True)
    for members in sets:
        program.row({column[limit]: 1.0 for limit in members}, at_least=1.0)
    for limit, n in column.items():
        if limit.kind in (LimitKind.DELAY, LimitKind.ERROR):
            program.row({n: 1.0, column[Limit(LimitKind.UNMET, limit.query_type)]: -1.0}, at_most=0.0)
    solver = program.solver(seconds)
    if seconds <= 0 or _run(solver) != highspy.HighsModelStatus.kOptimal:
        return None
    values = solver.getSolution().col_value
    return frozenset(limit for limit, n in column.items() if values[n] > 0.5)


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
    share = np.minimum(
        share_within(problem.delay_slo_s, problem.delay_s), share_within(problem.error_slo, problem.error)
    )
    share = np.where(problem.allowed, np.minimum(share, must[:, None]), 0.0)
    if (share.sum(axis=1) < must * (1 - TOLERANCE)).any():
        return False
    if not len(over_cap(problem, Greedy(problem, m1=True, m2=True, m3=True).build(falling_rate(problem)).unmet)):
        return True
    solver = _feasibility_program(problem, must, share).solver(deadline - time.monotonic())
    solver.setOptionValue("mip_max_improving_sols", 1)  # the first plan is answer enough
    status = _run(solver)
    if solver.getInfo().primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
        return True
    # Every column is bounded, so what is unbounded or infeasible is infeasible.
    no_plan = (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible)
    return False if status in no_plan else None


def _feasibility_program(problem: PlanningProblem, must: FloatArray, share: FloatArray) -> "_Program":
    """Deployed or not, replicas and shares of each configuration. Limits are scaled to one, infinite ones left out.

    Under a budget, spending is minimised because that leads to a plan within it; without one nothing is minimised.
    """
    program = _Program()
    most = np.minimum(_replicas_for(problem, share), problem.max_replicas)
    usable = np.flatnonzero(share.any(axis=0))
    budget_scale, storage_scale = _scale(problem.budget_usd), _scale(problem.storage_capacity_gb)
    budget: dict[int, float] = {}
    storage: dict[int, float] = {}
    deployed: dict[int, int] = {}
    served: list[dict[int, float]] = [{} for _ in must]
    delay: list[dict[int, float]] = [{} for _ in must]
    error: list[dict[int, float]] = [{} for _ in must]
    for a in usable.tolist():
        w = deployed[a] = program.column(1.0, whole=True)
        r = program.column(float(most[a]), whole=True)
        budget[r], budget[w] = problem.rent_usd[a] / budget_scale, problem.model_storage_usd[a] / budget_scale
        storage[w] = problem.model_storage_gb[a] / storage_scale
        program.row({r: 1.0, w: -float(most[a])}, at_most=0.0)
        program.row({w: 1.0, r: -1.0}, at_most=0.0)
        load, kv = {r: -float(problem.cap[a])}, {r: -1.0}
        for i in np.flatnonzero(share[:, a]).tolist():
            x = program.column(float(share[i, a]))
            program.row({x: 1.0, w: -float(share[i, a])}, at_most=0.0)
            served[i][x] = 1.0
            delay[i][x], error[i][x] = float(problem.delay_s[i, a]), float(problem.error[i, a])
            load[x], kv[x] = float(problem.load[i, a]), float(problem.kv[i, a])
            budget[x] = problem.token_storage_usd[i] / budget_scale
            storage[x] = problem.token_storage_gb[i] / storage_scale
        program.row(load, at_most=0.0)
        program.row(kv, at_most=0.0)
    for columns in problem.configurations_of_pair.values():
        program.row({deployed[a]: 1.0 for a in columns.tolist() if a in deployed}, at_most=1.0)
    for i in np.flatnonzero(must > 0).tolist():
        program.row(served[i], at_least=float(must[i]))
        for use, limit in ((delay[i], problem.delay_slo_s[i]), (error[i], problem.error_slo[i])):
            program.row({x: value / _scale(limit) for x, value in use.items()}, at_most=limit / _scale(limit))
    program.row(storage, at_most=problem.storage_capacity_gb / storage_scale)
    program.row(budget, at_most=problem.budget_usd / budget_scale)
    if np.isfinite(problem.budget_usd):
        for n, usd in budget.items():
            program.cost[n] = usd
    return program


def _scale(limit: float) -> float:
    return limit if 0 < limit < np.inf else 1.0


@dataclass(slots=True)
class _Program:
    """A mixed-integer program that is stated column by column and row by row. Columns begin at zero."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    indices: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)

    def column(self, upper: float, *, cost: float = 0.0, whole: bool = False) -> int:
        """Add a column and give its number."""
        self.cost.append(cost)
        self.upper.append(upper)
        self.whole += [len(self.cost) - 1] if whole else []
        return len(self.cost) - 1

    def row(self, use: dict[int, float], *, at_least: float = -np.inf, at_most: float = np.inf) -> None:
        """Bound a sum; without a finite bound there is nothing to do."""
        if np.isfinite(at_least) or np.isfinite(at_most):
            self.indices += use.keys()
            self.values += use.values()
            self.starts.append(len(self.indices))
            self.row_lower.append(at_least)
            self.row_upper.append(at_most)

    def solver(self, seconds: float) -> highspy.Highs:
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = len(self.cost), len(self.row_lower)
        model.col_cost_ = np.array(self.cost)
        model.col_lower_, model.col_upper_ = np.zeros(len(self.cost)), np.array(self.upper)
        model.row_lower_, model.row_upper_ = np.array(self.row_lower), np.array(self.row_upper)
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.array(self.starts)
        model.a_matrix_.index_ = np.array(self.indices)
        model.a_matrix_.value_ = np.array(self.values, dtype=np.float64)
        kinds = [highspy.HighsVarType.kContinuous] * len(self.cost)
        for n in self.whole:
            kinds[n] = highspy.HighsVarType.kInteger
        model.integrality_ = kinds
        solver = new_solver(**SETTINGS, time_limit=max(seconds, 0.0))
        solver.passModel(model)
        return solver


def _run(solver: highspy.Highs) -> highspy.HighsModelStatus:
    if solver.run() == highspy.HighsStatus.kError:
        raise RunError(f"HiGHS failed to explain ({solver.modelStatusToString(solver.getModelStatus())})")
    status: highspy.HighsModelStatus = solver.getModelStatus()
    return status
