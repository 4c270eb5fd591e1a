"""The search for the smallest set of limits that no plan keeps together."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np

from policies.heuristics.conflict.feasibility import is_feasible, prepared, run
from policies.heuristics.conflict.limits import Conflict, Limit, LimitKind, limits_of
from policies.highs import LinearProgram
from simulator.planning.problem import PlanningProblem

Limits = frozenset[Limit]
Feasible = Callable[[PlanningProblem, float], bool | None]

EXPLAINING_S = 30.0  # at most, to find out why there is no plan
SHORTEST_S, LARGE = 0.2, 5000  # time to explain a problem that is small; types x configurations of one that is not

# Shares of the time: by then the search for a set, and the search for a smaller one, must be over.
SEARCH_SHARE, PROOF_SHARE = 0.6, 0.9
CALL_SHARE = 0.15  # of the time for one question: a hard one shall not take it all


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
    program, one = LinearProgram(), np.ones(1)
    program.columns(np.ones(len(limits)), np.ones(len(limits)), whole=True)
    for members in sets:
        program.rows((0, np.array([column[limit] for limit in members], dtype=np.int64), 1.0), at_least=one)
    for limit, n in column.items():
        if limit.kind in (LimitKind.DELAY, LimitKind.ERROR):
            needed = np.array([n, column[Limit(LimitKind.UNMET, limit.query_type)]])
            program.rows((0, needed, np.array([1.0, -1.0])), at_most=0.0 * one)
    solver = prepared(program, seconds)
    if seconds <= 0 or run(solver) != highspy.HighsModelStatus.kOptimal:
        return None
    values = solver.getSolution().col_value
    return frozenset(limit for limit, n in column.items() if values[n] > 0.5)
