"""Effective coverage: how much of a query type fits into what is left of every limit.

All planners ask it: the heuristics of what is left at the moment (M2 of arXiv 2604.07472 ranks candidates by cost per
effective coverage), the exact ones of what there is in all. In machine code, because AGH asks it of every configuration
for every type that it serves anew: in NumPy that took half of its time.
"""

from dataclasses import dataclass
from math import inf
from typing import Self

import numpy as np
from numba import boolean, float64, int64, types

from policies.heuristics.machine_code import compiled, for_each
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem

ROUNDING = 1e-9  # a limit that is met exactly must not count as broken
LOAD, KV, DELAY, ERROR, PENALTY, ALLOWED = range(6)  # fields of a type on a configuration
CAP, RENT, STORAGE_USD, STORAGE_GB = range(4)  # fields of a configuration
DELAY_SLO, ERROR_SLO, TOKENS_USD, TOKENS_GB = range(4)  # fields of a type

WHOLE, NUMBERS, ROWS, BLOCK = int64[::1], float64[::1], float64[:, ::1], float64[:, :, ::1]


def _fits(left: float, use: float, limit: float) -> float:
    """Share of a type that fits where it would take `use` in whole: the one implementation (module text)."""
    if left < -ROUNDING * limit:
        return 0.0
    if use <= left or use <= 0.0:
        return 1.0
    return max(left / use, 0.0)


_fits_each = for_each(float64(float64, float64, float64))(_fits)
_fits_one = compiled(float64(float64, float64, float64))(_fits)


def share_that_fits(left: FloatArray | float, use: FloatArray | np.float64, limit: FloatArray | float) -> FloatArray:
    """Share of a type that fits into what is left of a limit.

    Parameters
    ----------
    left
        What is left, any shape; nothing fits where it is overdrawn, not even what uses nothing.
    use
        What the whole demand of the type would take, of a shape that broadcasts.
    limit
        What there is in all, alike: what is left may be below zero by the rounding of so much.

    Returns
    -------
    FloatArray
        Between 0 and 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # machine code divides before it knows whether it should
        fits: FloatArray = _fits_each(left, use, limit)
    return fits


def share_within(limit: FloatArray, use: FloatArray) -> FloatArray:
    """Largest share that keeps the limit of its type (types,) by itself; `use` and result (types, configurations)."""
    return share_that_fits(limit[:, None], use, limit[:, None])


def largest_share(problem: PlanningProblem) -> FloatArray:
    """Largest share of a type that keeps its delay and error limits by itself [min(1, Delta_i/D_ia, eps_i/e_ia)].

    Returns
    -------
    FloatArray
        Shape (types, configurations); zero where the route is not allowed.
    """
    share = np.minimum(
        share_within(problem.delay_slo_s, problem.delay_s), share_within(problem.error_slo, problem.error)
    )
    return np.where(problem.allowed, share, 0.0)


@compiled(float64(float64, float64))
def _times(amount: float, each: float) -> float:  # pragma: no cover
    """How often `each` goes into an amount: without end where it takes nothing, and never where there is nothing."""
    if each > 0.0:
        return amount / each
    return inf if amount > 0.0 else 0.0


@compiled(
    types.void(
        int64, WHOLE, boolean, int64, NUMBERS, BLOCK, ROWS, ROWS, WHOLE, WHOLE, WHOLE, ROWS, WHOLE, NUMBERS, NUMBERS
    )
)
def _moves(
    i: int,
    candidates: IntArray,
    grow: bool,
    max_replicas: int,
    money_and_storage: FloatArray,
    use: FloatArray,
    column: FloatArray,
    limit: FloatArray,
    pair_index: IntArray,
    configuration: IntArray,
    replicas: IntArray,
    share: FloatArray,
    replicas_after: IntArray,
    coverage: FloatArray,
    cost_usd: FloatArray,
) -> None:  # pragma: no cover
    count = limit.shape[1]
    spent = np.zeros((2, count))
    served = np.zeros(count)
    money_usd, storage_gb = money_and_storage[0], money_and_storage[1]
    for pair in range(len(replicas)):
        if replicas[pair] > 0:
            now = configuration[pair]
            money_usd -= column[RENT, now] * replicas[pair] + column[STORAGE_USD, now]
            storage_gb -= column[STORAGE_GB, now]
            for t in range(count):
                x = share[t, pair]
                if x > 0.0:
                    spent[0, t] += use[DELAY, t, now] * x
                    spent[1, t] += use[ERROR, t, now] * x
                    served[t] += x
    for t in range(count):
        money_usd -= limit[TOKENS_USD, t] * served[t]
        storage_gb -= limit[TOKENS_GB, t] * served[t]
    unmet = max(1.0 - served[i], 0.0)

    for n in range(len(candidates)):
        a = candidates[n]
        pair = pair_index[a]
        before = replicas[pair]
        coverage[n], cost_usd[n], replicas_after[n] = 0.0, 0.0, before
        if use[ALLOWED, i, a] == 0.0:
            continue
        # What the types that the pair serves already use, once they have moved to this configuration.
        load, kv, penalty_usd, slower_s, worse, possible = 0.0, 0.0, 0.0, 0.0, 0.0, True
        if before > 0:
            now = configuration[pair]
            for t in range(count):
                x = share[t, pair]
                if x <= 0.0:
                    continue
                load += use[LOAD, t, a] * x
                kv += use[KV, t, a] * x
                if a == now:
                    continue
                more_s = x * (use[DELAY, t, a] - use[DELAY, t, now])
                more_error = x * (use[ERROR, t, a] - use[ERROR, t, now])
                if (
                    use[ALLOWED, t, a] == 0.0
                    or spent[0, t] + more_s > limit[DELAY_SLO, t] * (1.0 + ROUNDING)
                    or spent[1, t] + more_error > limit[ERROR_SLO, t] * (1.0 + ROUNDING)
                ):
                    possible = False
                    break
                penalty_usd += x * (use[PENALTY, t, a] - use[PENALTY, t, now])
                if t == i:
                    slower_s, worse = more_s, more_error
            if not possible:
                continue
        delay_slo_s, error_slo = limit[DELAY_SLO, i], limit[ERROR_SLO, i]
        within_delay = _fits_one(delay_slo_s - spent[0, i] - slower_s, use[DELAY, i, a], delay_slo_s)
        within_error = _fits_one(error_slo - spent[1, i] - worse, use[ERROR, i, a], error_slo)
        wish = min(unmet, within_delay, within_error)

        left_usd, left_gb, rent_before_usd, opened_usd = money_usd, storage_gb, 0.0, 0.0
        if before > 0:
            rent_before_usd = column[RENT, configuration[pair]] * before
        else:
            opened_usd = column[STORAGE_USD, a]
            left_gb -= column[STORAGE_GB, a]
        left_usd += rent_before_usd - opened_usd
        many = float(before)
        if grow:
            need = max(_times(load + wish * use[LOAD, i, a], column[CAP, a]), kv + wish * use[KV, i, a])
            least = before if before > 0 and a == configuration[pair] else 1
            affordable = np.floor(_times(max(left_usd, 0.0), column[RENT, a]) * (1.0 + ROUNDING))
            many = min(max(np.ceil(need * (1.0 - ROUNDING)), float(least)), affordable, float(max_replicas))
        replicas_after[n] = int(many)
        if many <= 0.0:
            continue
        rent_usd = column[RENT, a] * many
        reach = min(
            wish,
            _fits_one(column[CAP, a] * many - load, use[LOAD, i, a], column[CAP, a] * many),
            _fits_one(many - kv, use[KV, i, a], many),
            _fits_one(left_usd - rent_usd, limit[TOKENS_USD, i], money_and_storage[0]),
            _fits_one(left_gb, limit[TOKENS_GB, i], money_and_storage[1]),
        )
        coverage[n] = reach
        cost_usd[n] = rent_usd - rent_before_usd + opened_usd + penalty_usd
        cost_usd[n] += reach * (limit[TOKENS_USD, i] + use[PENALTY, i, a])


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the arithmetic needs of a problem, in tables."""

    use: FloatArray  # (fields, types, configurations)
    column: FloatArray  # (fields, configurations)
    limit: FloatArray  # (fields, types)
    pair_index: IntArray  # (configurations,)
    money_and_storage: FloatArray
    max_replicas: int

    @classmethod
    def of(cls, problem: PlanningProblem) -> Self:
        p = problem
        return cls(
            use=_table(p.load, p.kv, p.delay_s, p.error, p.delay_penalty_usd, p.allowed),
            column=_table(p.cap, p.rent_usd, p.model_storage_usd, p.model_storage_gb),
            limit=_table(p.delay_slo_s, p.error_slo, p.token_storage_usd, p.token_storage_gb),
            pair_index=p.pair_index,
            money_and_storage=np.array([p.budget_usd, p.storage_capacity_gb]),
            max_replicas=p.max_replicas,
        )

    def moves(
        self,
        i: int,
        candidates: IntArray,
        *,
        grow: bool,
        configuration: IntArray,
        replicas: IntArray,
        share: FloatArray,
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """What type `i` can get from each candidate configuration, and at what cost.

        Each candidate takes its pair's place, along with the types that the pair serves already, in as many replicas as
        type `i` needs (`grow`) or in those that are there. The effective coverage is the least of the unmet share and
        what the delay budget, the error budget, compute, KV cache, money and storage still allow. The cost is the
        marginal one: the whole rent and storage that the move adds, and the delay penalty.

        Parameters
        ----------
        candidates
            Shape (n,): configurations.
        configuration, replicas, share
            Shapes (pairs,), (pairs,), (types, pairs): what is there. Pairs without replicas serve nothing.

        Returns
        -------
        replicas, coverage, cost_usd
            Shape (n,): of the pair after the move; share of the type that the move really serves; what it adds to the
            cost of the plan, the unmet penalty aside.
        """
        after, coverage, cost_usd = np.empty(len(candidates), np.int64), *np.empty((2, len(candidates)))
        _moves(
            i,
            np.ascontiguousarray(candidates, dtype=np.int64),
            grow,
            self.max_replicas,
            self.money_and_storage,
            self.use,
            self.column,
            self.limit,
            self.pair_index,
            configuration,
            replicas,
            share,
            after,
            coverage,
            cost_usd,
        )
        return after, coverage, cost_usd


def _table(*fields: FloatArray | BoolArray) -> FloatArray:
    return np.ascontiguousarray(np.stack(fields), dtype=np.float64)
