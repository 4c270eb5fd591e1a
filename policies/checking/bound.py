"""What the multipliers of one node prove: no solver is called.

Lagrangian bound of a node
--------------------------
Multipliers move demand, delay, error, budget, storage, covers and branching restrictions into the objective. What is
left falls apart into pairs: each deploys the option of least reduced cost `rc_d`, or none. `rc_d` contains a knapsack
with two capacities; with any multipliers `mu, rho >= 0`::

    knapsack_d <= mu cap_a r + rho r + sum_i largest_share_id max(0, reward_id - mu load_ia - rho kv_ia)

so how they are found (`_multipliers`) is a matter of strength and not of truth.

A *cover* of type `i` with weight `w`: option `d` has the value `w delay/delay_slo + (1 - w) error/error_slo`, and is
good if that is at most 1. With no good option open and `t` the least value of the others, `t (1 - u_i) <= w + 1 - w`,
so `sum_good z_d + k u_i >= 1` with `k = t / (t - 1)`. Where all are good, `u_i = 1` without them, so `k = 1`.
"""

from dataclasses import dataclass

import numpy as np

from policies.checking.certificate import Duals
from policies.checking.universe import TOLERANCE, Universe, at_most
from simulator.planning.problem import FloatArray, IntArray

ROUNDING = 1e-13  # relative to the sum of the magnitudes in a sum: several times what double precision can lose
MULTIPLIER_STEPS = 60  # most steps in the search for a multiplier of the KV row


@dataclass(frozen=True, slots=True, eq=False)
class Restriction:
    """One side of a split on the path: `sum count z >= limit` if `above`, else `sum count z <= limit`."""

    count: IntArray
    limit: int
    above: bool


def _times(multipliers: FloatArray, limits: FloatArray) -> float:
    """Their product, where a multiplier of 0 counts nothing even of an infinite limit."""
    used = multipliers != 0
    return float(multipliers[used] @ limits[used])


def node_bound(
    universe: Universe, duals: Duals, path: tuple[Restriction, ...], alive: IntArray
) -> tuple[float, FloatArray]:
    """What the duals prove over the options `alive`.

    Returns
    -------
    bound_usd
        A lower bound on the cost of every plan with these options within these restrictions.
    with_option_usd
        Shape (alive,): the same for the plans that deploy the option.
    """
    problem = universe.problem
    demand, delay, error = (np.array(values, dtype=np.float64) for values in (duals.demand, duals.delay, duals.error))
    # Huge multipliers cancel until nothing but rounding is left. So each sum comes with the sum of its magnitudes, and
    # gives way by that much rounding. What overflows becomes no number, which closes no node and rules out no option.
    with np.errstate(over="ignore", invalid="ignore"):
        limits = [_times(delay, problem.delay_slo_s), _times(error, problem.error_slo)]
        limits.append(_times(np.array([duals.budget]), np.array([problem.budget_usd])))
        limits.append(_times(np.array([duals.storage]), np.array([problem.storage_capacity_gb])))
        bound_usd = float(demand.sum()) - sum(limits)
        magnitude_usd = float(np.abs(demand).sum()) + sum(limits)

        # Unmet shares and reduced costs of deploying, first without what an option serves.
        unmet_usd = problem.unmet_usd - demand
        unmet_magnitude_usd = problem.unmet_usd + np.abs(demand)
        reduced_usd = (1 + duals.budget) * universe.fixed_usd[alive] + duals.storage * universe.storage_gb[alive]
        reduced_magnitude_usd = reduced_usd.copy()
        for i, weight, multiplier in duals.covers:
            good, factor = universe.cover(i, weight)
            bound_usd += multiplier
            unmet_usd[i] -= multiplier * factor
            unmet_magnitude_usd[i] += multiplier * factor
            reduced_usd -= multiplier * good[alive]
            reduced_magnitude_usd += multiplier
            magnitude_usd += multiplier
        for index, multiplier in duals.restrictions:
            restriction = path[index]
            sign = 1 if restriction.above else -1
            counted = multiplier * restriction.count[alive]
            bound_usd += sign * multiplier * restriction.limit
            reduced_usd -= sign * counted
            reduced_magnitude_usd += counted
            magnitude_usd += multiplier * restriction.limit
        left_unmet_usd = float(problem.unmet_cap @ np.minimum(0.0, unmet_usd - ROUNDING * unmet_magnitude_usd))

        # What serving the whole demand of a type brings and costs.
        spent_usd = problem.delay_penalty_usd + ((1 + duals.budget) * problem.token_storage_usd)[:, None]
        spent_usd += (duals.storage * problem.token_storage_gb)[:, None]
        spent_usd += delay[:, None] * universe.delay_s + error[:, None] * universe.error
        served = universe.largest_share > 0
        reward_usd = np.where(served, demand[:, None] - spent_usd, 0.0)
        earns = served & (demand > 0)[:, None]
        largest_usd = np.where(earns, demand[:, None] + spent_usd, 0.0) * universe.largest_share
        reduced_usd -= _knapsacks(universe, reward_usd, alive)
        reduced_magnitude_usd += largest_usd.sum(axis=0)[universe.configuration[alive]]
        reduced_usd -= ROUNDING * reduced_magnitude_usd

        pair = universe.pair[alive]
        best_usd = np.zeros(universe.pairs)  # 0 is to deploy none
        np.minimum.at(best_usd, pair, reduced_usd)
        deployed_usd = float(best_usd.sum())
        bound_usd += left_unmet_usd + deployed_usd
        bound_usd -= ROUNDING * (magnitude_usd - left_unmet_usd - deployed_usd)
        return bound_usd, bound_usd - best_usd[pair] + reduced_usd


def _knapsacks(universe: Universe, reward_usd: FloatArray, alive: IntArray) -> FloatArray:
    """Shape (alive,): no less than what each option can earn within its two capacities."""
    reward = np.ascontiguousarray(reward_usd.T)[universe.configuration[alive]]
    load, kv, share = (array[alive] for array in universe.per_option)
    load_limit, kv_limit = universe.load_limit[alive], universe.replicas[alive].astype(np.float64)
    none = np.zeros(len(alive))

    def value(rows: IntArray | slice, of_load: FloatArray, of_kv: FloatArray) -> FloatArray:
        """The bound with these multipliers: the one line on which all rests."""
        left = reward[rows] - of_load[:, None] * load[rows] - of_kv[:, None] * kv[rows]
        held: FloatArray = of_load * load_limit[rows] + of_kv * kv_limit[rows]
        held += (share[rows] * np.maximum(0.0, left)).sum(axis=1)
        return held

    of_load, taken = _fill(reward, load, share, load_limit)
    keeps_kv = at_most((kv * taken).sum(axis=1), kv_limit)
    earned = value(slice(None), of_load, none)
    rows = np.flatnonzero(~keeps_kv)
    if not len(rows):
        return earned
    of_kv, taken = _fill(reward[rows], kv[rows], share[rows], kv_limit[rows])
    keeps_load = at_most((load[rows] * taken).sum(axis=1), load_limit[rows])
    earned[rows] = np.minimum(earned[rows], value(rows, none[rows], of_kv))
    rows, most = rows[~keeps_load], of_kv[~keeps_load]
    if len(rows):
        of_load, of_kv = _multipliers(
            reward[rows], load[rows], kv[rows], share[rows], load_limit[rows], kv_limit[rows], most
        )
        earned[rows] = np.minimum(earned[rows], value(rows, of_load, of_kv))
    return earned


def _fill(
    profit: FloatArray, weight: FloatArray, share: FloatArray, limit: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fill fractional knapsacks, one per row, in the order of profit per weight.

    Returns
    -------
    multiplier
        Shape (rows,): profit per weight where the knapsack is full, 0 if everything fits.
    taken
        Shape (rows, types): at most `share`.
    """
    wanted = np.where(profit > 0, share, 0.0)
    ratio = np.divide(profit, weight, where=weight > 0, out=np.full_like(profit, np.inf))
    order = np.argsort(np.where(wanted > 0, -ratio, np.inf), axis=1)
    size = np.take_along_axis(weight * wanted, order, axis=1)
    full = np.cumsum(size, axis=1)
    room = limit[:, None] - (full - size)
    part = np.divide(np.clip(room, 0.0, size), size, where=size > 0, out=np.ones_like(size))
    taken = np.empty_like(wanted)
    np.put_along_axis(taken, order, part, axis=1)
    cut = (full > limit[:, None]) & (size > 0)
    first = np.take_along_axis(order, cut.argmax(axis=1)[:, None], axis=1)
    multiplier = np.where(cut.any(axis=1), np.take_along_axis(ratio, first, axis=1)[:, 0], 0.0)
    return np.where(np.isfinite(multiplier), multiplier, 0.0), taken * wanted


def _multipliers(
    reward: FloatArray,
    load: FloatArray,
    kv: FloatArray,
    share: FloatArray,
    load_limit: FloatArray,
    kv_limit: FloatArray,
    most: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Good multipliers of both rows, for knapsacks that neither row alone decides.

    The bound is convex and piecewise linear in the multiplier of the KV row, with its least point between 0 and `most`
    (the multiplier of that row alone). Two tangents, one falling and one rising, cross below the curve; where they
    touch it, it is least.
    """

    def tangent(rows: IntArray, of_kv: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value, slope and the best multiplier of the load."""
        profit = reward[rows] - of_kv[:, None] * kv[rows]
        of_load, taken = _fill(profit, load[rows], share[rows], load_limit[rows])
        slope = kv_limit[rows] - (kv[rows] * taken).sum(axis=1)
        return (profit * taken).sum(axis=1) + of_kv * kv_limit[rows], slope, of_load

    rows = np.arange(len(reward))
    low, high = np.zeros(len(reward)), most.copy()
    low_value, low_slope, low_load = tangent(rows, low)
    high_value, high_slope, high_load = tangent(rows, high)
    best_value = np.minimum(low_value, high_value)
    best_kv = np.where(low_value <= high_value, low, high)
    best_load = np.where(low_value <= high_value, low_load, high_load)
    for _ in range(MULTIPLIER_STEPS):
        rows = rows[(low_slope[rows] < 0) & (high_slope[rows] > 0) & (low[rows] < high[rows])]
        if not len(rows):
            break
        rise = high_value[rows] - low_value[rows] + low_slope[rows] * low[rows] - high_slope[rows] * high[rows]
        trial = np.clip(rise / (low_slope[rows] - high_slope[rows]), low[rows], high[rows])
        crossing = low_value[rows] + low_slope[rows] * (trial - low[rows])
        value, slope, of_load = tangent(rows, trial)
        better = value < best_value[rows]
        best_value[rows[better]], best_kv[rows[better]] = value[better], trial[better]
        best_load[rows[better]] = of_load[better]
        falls, rises = rows[slope < 0], rows[slope >= 0]
        low[falls], low_value[falls], low_slope[falls] = trial[slope < 0], value[slope < 0], slope[slope < 0]
        high[rises], high_value[rises], high_slope[rises] = trial[slope >= 0], value[slope >= 0], slope[slope >= 0]
        rows = rows[value > crossing + TOLERANCE * 1e-3 * np.abs(value)]
    return best_load, best_kv
