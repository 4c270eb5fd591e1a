"""Configurations that no plan needs, because another one of the same (model, tier) does as well for no more money.

Configuration `a` is dominated by `b` of the same pair when for every number of replicas `r` of `a` that may be of use
there is a number `s` of `b` such that, over the types `i` that `a` may serve at all (largest share `xm_ia > 0`)::

    rent_b s <= rent_a r
    xm_ib > 0,  D_ib <= D_ia,  e_ib <= e_ia
    load_ib / (cap_b s) <= load_ia / (cap_a r)    for all those i,    or   sum_i load_ib xm_ia <= cap_b s
    kv_ib / s           <= kv_ia / r              for all those i,    or   sum_i kv_ib   xm_ia <= s

Both configurations are never deployed together and store the same weights, so putting `s` of `b` in the place of `r` of
`a`, with the same shares, keeps every constraint and costs no more. The right-hand alternatives say that `b` has room
for whatever `a` could serve.

The conditions get weaker as `s` grows, so only the largest `s` that the rent allows has to be looked at. Configurations
are given up one after the other, the last first and only for one that is still there: no chain of replacements runs in
a circle, and of exact ties (the exact symmetry of the problem) the first in index order stays.
"""

import numpy as np

from policies.heuristics.coverage import largest_share
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem

WHOLE = 1e-9  # what floating point may add to a quotient that is a whole number
EQUAL = 1e-12  # relative: two products of the same numbers in another order


def useful_replicas(problem: PlanningProblem) -> IntArray:
    """Replicas beyond which a configuration serves nothing more, between 1 and `max_replicas`.

    Returns
    -------
    IntArray
        Shape (configurations,); 1 for a configuration without any capacity.
    """
    filled = replicas_filled(problem, largest_share(problem))
    useful: IntArray = np.clip(np.ceil(filled - WHOLE), 1, max(problem.max_replicas, 1)).astype(np.int64)
    return useful


def replicas_filled(problem: PlanningProblem, share: FloatArray) -> FloatArray:
    """Shape (configurations,): replicas, not whole, that each fills if it serves these shares (types, configurations).

    The load of a configuration without capacity does not count: whether it may serve anything is the caller's business.
    """
    load, kv = (np.where(share > 0, use * share, 0.0).sum(axis=0) for use in (problem.load, problem.kv))
    filled: FloatArray = np.maximum(load / np.where(problem.cap > 0, problem.cap, np.inf), kv)
    return filled


def dominated(problem: PlanningProblem) -> BoolArray:
    """Configurations that some optimal plan does without (module text), the useless ones among them.

    Returns
    -------
    BoolArray
        Shape (configurations,).
    """
    left_out: BoolArray = _dominators(problem) != np.arange(len(problem.configurations))
    return left_out


def undominated(problem: PlanningProblem, replicas: IntArray) -> IntArray:
    """Replace the dominated configurations of a fleet by ones that are as good.

    Parameters
    ----------
    problem
        Not changed.
    replicas
        Shape (configurations,): a fleet that keeps the limits of the problem.

    Returns
    -------
    IntArray
        Shape (configurations,): a fleet of the same or a lower rent that can serve the same shares. Useless
        configurations are left out.
    """
    dominators, useful = _dominators(problem), useful_replicas(problem)
    current = np.flatnonzero(replicas)
    count = np.minimum(replicas[current], useful[current])
    while True:  # as often as a dominator is dominated in turn; the rent never rises on the way
        alive = dominators[current] >= 0
        current, count = current[alive], count[alive]
        following = dominators[current]
        if (following == current).all():
            break
        moved = following != current
        count[moved] = _affordable(problem, useful, current[moved], following[moved], count[moved])
        current = following
    fleet = np.zeros_like(replicas)
    fleet[current] = count
    return fleet


def _affordable(problem: PlanningProblem, useful: IntArray, a: IntArray, b: IntArray, r: IntArray) -> IntArray:
    """Most useful replicas of `b` for the rent of `r` replicas of `a`, 0 if there are none (arrays that broadcast)."""
    rent_usd = problem.rent_usd[a] * r * (1 + EQUAL)
    price_usd = problem.rent_usd[b]
    count = np.floor(np.divide(rent_usd, price_usd, out=np.full(rent_usd.shape, np.inf), where=price_usd > 0))
    result: IntArray = np.minimum(count, useful[b]).astype(np.int64)
    return result


def _useless(problem: PlanningProblem, share: FloatArray) -> BoolArray:
    """Shape (configurations,): no capacity, no type to serve, or one replica alone breaks the budget or the storage."""
    spent_usd = problem.rent_usd + problem.model_storage_usd
    too_dear = spent_usd > problem.budget_usd * (1 + WHOLE)
    too_large = problem.model_storage_gb > problem.storage_capacity_gb * (1 + WHOLE)
    none_allowed = np.full(len(problem.cap), problem.max_replicas < 1)
    useless: BoolArray = (problem.cap <= 0) | ~(share > 0).any(axis=0) | too_dear | too_large | none_allowed
    return useless


def _dominators(problem: PlanningProblem) -> IntArray:
    """Shape (configurations,): who takes the place of each; itself if it stays, -1 if it is useless."""
    share, useful = largest_share(problem), useful_replicas(problem)
    useless = _useless(problem, share)
    dominators = np.where(useless, -1, np.arange(len(useless)))
    old, new = _pairs_of_a_kind(problem, ~useless)
    better = np.ones(len(old), dtype=np.bool_)
    for values in (-(share > 0).astype(np.float64), problem.delay_s, problem.error):
        better &= ((values[:, new] <= values[:, old]) | (share[:, old] <= 0)).all(axis=0)
    old, new = old[better], new[better]
    cap = np.where(useless, 1.0, problem.cap)  # no useless one is among the old and the new
    per_load = _replicas_for_one(problem.load / cap, share, old, new)
    per_kv = _replicas_for_one(problem.kv, share, old, new)
    room_load = (problem.load[:, new] * share[:, old]).sum(axis=0) / problem.cap[new]
    room_kv = (problem.kv[:, new] * share[:, old]).sum(axis=0)
    better = np.ones(len(old), dtype=np.bool_)
    for r in range(1, int(useful[old].max(initial=0)) + 1):
        s = _affordable(problem, useful, old, new, np.array(r, dtype=np.int64))
        fits = (s >= 1) & _enough(s, r * per_load, room_load) & _enough(s, r * per_kv, room_kv)
        better &= fits | (r > useful[old])
    gone = np.zeros(len(useless), dtype=np.bool_)
    replaceable = zip(old[better].tolist(), new[better].tolist(), strict=True)
    for a, b in sorted(replaceable, key=lambda pair: (-pair[0], pair[1])):
        if not gone[a] and not gone[b]:
            gone[a], dominators[a] = True, b
    return dominators


def _pairs_of_a_kind(problem: PlanningProblem, kept: BoolArray) -> tuple[IntArray, IntArray]:
    """All (old, new) of the same model and tier, old != new, both `kept`."""
    old: list[IntArray] = [np.zeros(0, dtype=np.int64)]
    new = list(old)
    for columns in problem.configurations_of_pair.values():
        alive = columns[kept[columns]]
        left, right = np.meshgrid(alive, alive, indexing="ij")
        different = left != right
        old.append(left[different])
        new.append(right[different])
    return np.concatenate(old), np.concatenate(new)


def _replicas_for_one(use: FloatArray, share: FloatArray, old: IntArray, new: IntArray) -> FloatArray:
    """Replicas of `new` that use as little for every type as one of `old`: the largest ratio over the served types."""
    before, after = use[:, old], use[:, new]
    ratio = np.divide(after, before, out=np.where(after > 0, np.inf, 0.0), where=before > 0)
    result: FloatArray = np.where(share[:, old] > 0, ratio, 0.0).max(axis=0, initial=0.0)
    return result


def _enough(s: IntArray, as_lean: FloatArray, room: FloatArray) -> BoolArray:
    return s * (1 + EQUAL) >= np.minimum(as_lean, room)
