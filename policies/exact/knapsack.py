"""The fractional knapsack of all deployment options at once, in machine code.

A profile says why: every round of column generation prices some thousands of options. NumPy, which has to sort all
types of all options, spent half of the time of the root on that; a loop sorts only the few types that pay.
"""

import numpy as np
from numba import float64, void

from policies.heuristics.machine_code import compiled
from simulator.planning.problem import FloatArray

TINY = 1e-300


TABLE = float64[:, ::1]


@compiled(void(TABLE, TABLE, TABLE, float64[::1], TABLE))
def _fill(
    reward: FloatArray, use: FloatArray, largest: FloatArray, worth: FloatArray, shares: FloatArray
) -> None:  # pragma: no cover
    types, options = reward.shape
    order = np.empty(types, dtype=np.int64)
    ratio = np.empty(types)
    for d in range(options):
        paying = 0
        for i in range(types):
            if reward[i, d] > 0.0 and largest[i, d] > 0.0:
                key = reward[i, d] / max(use[i, d], TINY)
                at = paying
                while at > 0 and ratio[at - 1] < key:
                    ratio[at], order[at] = ratio[at - 1], order[at - 1]
                    at -= 1
                ratio[at], order[at] = key, i
                paying += 1
        room, total = 1.0, 0.0
        for n in range(paying):
            i = order[n]
            needed = use[i, d] * largest[i, d]
            share = largest[i, d]
            if needed > room:
                share *= room / needed
                needed = room
            room -= needed
            shares[i, d] = share
            total += reward[i, d] * share
            if room <= 0.0:
                break
        worth[d] = total


def knapsack(reward: FloatArray, use: FloatArray, largest: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The best use of each option under one row.

    Parameters
    ----------
    reward, use, largest
        Shape (types, O): USD per unit of share, which pays where above zero; what a unit takes of the row, whose sum is
        at most one; the most that a share may be.

    Returns
    -------
    worth
        Shape (O,): the reward [USD] of the best use.
    shares
        Shape (types, O).
    """
    worth, shares = np.zeros(reward.shape[1]), np.zeros(reward.shape)
    _fill(*(np.ascontiguousarray(table) for table in (reward, use, largest)), worth, shares)
    return worth, shares
