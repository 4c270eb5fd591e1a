"""The limits of a planning problem, one by one, and a conflict of some of them in the problem's own words."""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from policies.heuristics.dominance import replicas_filled
from simulator.planning.problem import PlanningProblem, QueryType


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
    filled = replicas_filled(problem, problem.allowed.astype(np.float64))
    return int(np.ceil(np.maximum(filled, 1.0)).max(initial=0.0)) + 1


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
