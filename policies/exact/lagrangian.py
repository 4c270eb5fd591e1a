"""The bound: what every plan costs at least, at any prices on the relaxed constraints.

Relax demand, delay, error, budget, storage, cover inequalities and the restrictions of a tree node with multipliers.
What is left falls apart into the (model, tier) pairs, each of which opens its best option or none::

    L = sum_i pi_i - sum_i alpha_i Delta_i - sum_i gamma_i eps_i - beta budget - sigma storage
        + sum_c y_c + sum_above omega (V + 1) - sum_below omega V
        + sum_i zeta_i min(0, unmet_usd_i - pi_i - sum_c y_c k_c)  + sum_P min(0, min_{d in P} rc_d)

    rc_d = (1 + beta) fixed_usd_d + sigma fixed_gb_d - sum_c y_c [d good for c] -+ sum omega n_d - worth_d

`worth_d` is the fractional knapsack of `pricing.py` with reward pi_i - serve_usd - beta token_storage_usd - sigma
token_storage_gb - alpha_i D - gamma_i e. A plan that opens d costs at least L - min(0, best of its pair) + rc_d: where
that is not below the cost of the best plan known, d is out of the search (Lagrangian fixing).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from policies.exact.options import Options
from policies.exact.pricing import best_use
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem

GOOD = 1e-9


@dataclass(frozen=True, slots=True)
class Cover:
    """Some good option must be open: sum of z over `good` + `unmet_factor` u_i >= 1 (docs/planning.md).

    A convex combination of the delay and the error limit of type i says that `value`, summed over the served shares, is
    at most one. If every open option is worse than that by the factor t, the unmet share is at least 1 - 1/t.
    """

    query_type: int
    weight: float  # of the delay limit; the rest is that of the error limit
    unmet_factor: float
    good: BoolArray  # (O,)

    def take(self, options: IntArray) -> "Cover":
        return Cover(self.query_type, self.weight, self.unmet_factor, self.good[options])


@dataclass(frozen=True, slots=True, kw_only=True)
class RestrictionRows:
    """The K restrictions of a tree node: `sides` +1 where the sum of counts is at least the limit, -1 where at most."""

    counts: FloatArray  # (K, O)
    sides: FloatArray  # (K,)
    limits: FloatArray  # (K,)

    def __len__(self) -> int:
        return len(self.limits)

    def take(self, options: IntArray) -> "RestrictionRows":
        return RestrictionRows(counts=self.counts[:, options], sides=self.sides, limits=self.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duals:
    """Multipliers: any values prove a bound, good ones a good bound.

    `demand` (types,) of any sign, all others at least zero; `delay` in USD/s; `covers` and `restrictions` in the order
    of the node's lists.
    """

    demand: FloatArray
    delay: FloatArray
    error: FloatArray
    budget: float
    storage: float
    covers: FloatArray
    restrictions: FloatArray

    @classmethod
    def none(cls, types: int) -> "Duals":
        """Prices of zero, which prove next to nothing and need no solver."""
        zero, empty = np.zeros(types), np.zeros(0)
        return cls(demand=zero, delay=zero, error=zero, budget=0.0, storage=0.0, covers=empty, restrictions=empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """The relaxed problem at some duals."""

    bound_usd: float
    reduced_usd: FloatArray  # (O,) reduced cost of each option
    forced_usd: FloatArray  # (O,) bound on the plans that open the option
    shares: FloatArray  # (types, O) best use of each option
    duals: Duals = field(repr=False)


def covers_of(problem: PlanningProblem, options: Options, weights: tuple[float, ...]) -> list[Cover]:
    """The cover inequalities of every type, without those that are always true."""
    found: list[Cover] = []
    for i in range(len(problem.query_types)):
        limits = float(problem.delay_slo_s[i]), float(problem.error_slo[i])
        usable = options.largest_share[i] > 0
        if not usable.any() or min(limits) <= 0:
            continue
        seen: set[bytes] = set()
        for weight in weights:
            value = weight * options.delay_s[i] / limits[0] + (1 - weight) * options.error[i] / limits[1]
            good = usable & (value <= 1 + GOOD)
            bad = usable & ~good
            if good.tobytes() in seen:
                continue
            seen.add(good.tobytes())
            worst = float(value[bad].min()) if bad.any() else np.inf
            factor = worst / (worst - 1) if np.isfinite(worst) else 1.0
            found.append(Cover(i, weight, factor, good))
    return found


def relax(
    problem: PlanningProblem, options: Options, duals: Duals, covers: Sequence[Cover], restrictions: RestrictionRows
) -> Relaxed:
    """Solve the relaxed problem over the options that may be open.

    `covers` are those that `duals.covers` prices, and like `restrictions` they speak of these options.
    """
    paid = 1.0 + duals.budget
    per_type = duals.demand - duals.budget * problem.token_storage_usd - duals.storage * problem.token_storage_gb
    reward = per_type[:, None] - options.serve_usd
    reward -= duals.delay[:, None] * options.delay_s
    reward -= duals.error[:, None] * options.error
    worth, shares = best_use(options, reward)
    reduced = paid * options.fixed_usd + options.move_usd + duals.storage * options.fixed_gb - worth
    for cover, price in zip(covers, duals.covers, strict=True):
        if price > 0:
            reduced -= price * cover.good
    signed = duals.restrictions * restrictions.sides
    reduced -= signed @ restrictions.counts
    unmet = problem.unmet_usd - duals.demand
    for cover, price in zip(covers, duals.covers, strict=True):
        unmet[cover.query_type] -= price * cover.unmet_factor
    constant = duals.demand.sum() + duals.covers.sum() + float(signed @ restrictions.limits)
    constant -= _priced(duals.delay, problem.delay_slo_s) + _priced(duals.error, problem.error_slo)
    constant -= _priced(np.array([duals.budget]), np.array([problem.budget_usd]))
    constant -= _priced(np.array([duals.storage]), np.array([problem.storage_capacity_gb]))
    constant += float((np.minimum(unmet, 0.0) * problem.unmet_cap).sum())
    best = np.zeros(int(options.pair.max(initial=0)) + 1)
    np.minimum.at(best, options.pair, reduced)
    bound = float(constant + best.sum())
    return Relaxed(
        bound_usd=bound,
        reduced_usd=reduced,
        forced_usd=bound - best[options.pair] + reduced,
        shares=shares,
        duals=duals,
    )


def _priced(price: FloatArray, limit: FloatArray) -> float:
    """Sum of price x limit, where an infinite limit has price zero."""
    return float((price * np.where(price > 0, limit, 0.0)).sum())
