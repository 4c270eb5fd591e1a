"""What a deployment is worth at given prices: a fractional knapsack per option, all at once.

With prices on demand, delay, error, budget and storage (the multipliers of the relaxed constraints) a deployment earns
`reward[i, d]` for each unit of the share of type i that it serves. Its best use

    max  sum_i reward[i, d] x_i   subject to  0 <= x_i <= largest_share,  sum_i load x_i <= 1,  sum_i kv x_i <= 1

takes the types in falling order of reward per load. Where that breaks the KV row as well, a price on the KV row is
found by bisection: every such price gives an upper bound on the worth, so the bound of the plan stays valid.
"""

import numpy as np

from policies.exact.knapsack import TINY, knapsack
from policies.exact.options import Options
from simulator.planning.problem import FloatArray

BISECTIONS = 40


def best_use(options: Options, reward: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Worth and shares of each option.

    Parameters
    ----------
    reward
        Shape (types, O): USD per unit of share; below zero where serving does not pay.

    Returns
    -------
    worth
        Shape (O,): an upper bound on the reward, exact but for rounding.
    shares
        Shape (types, O): a use that keeps both rows.
    """
    worth, shares = knapsack(reward, options.load, options.largest_share)
    over = np.flatnonzero((options.kv * shares).sum(axis=0) > 1 + 1e-9)
    if not len(over):
        return worth, shares
    kv, load, largest = options.kv[:, over], options.load[:, over], options.largest_share[:, over]
    by_kv, kv_shares = knapsack(reward[:, over], kv, largest)
    both = (load * kv_shares).sum(axis=0) > 1 + 1e-9
    worth[over], shares[:, over] = by_kv, kv_shares
    if both.any():
        worth[over[both]], shares[:, over[both]] = _both_rows(
            reward[:, over[both]], load[:, both], kv[:, both], largest[:, both]
        )
    return worth, shares


def _both_rows(
    reward: FloatArray, load: FloatArray, kv: FloatArray, largest: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Both rows bind: the KV row is priced, and the shares mix the uses on either side of the right price."""
    low = np.zeros(reward.shape[1])
    high = np.divide(np.maximum(reward, 0), kv, out=np.zeros_like(kv), where=kv > TINY).max(axis=0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        _, shares = knapsack(reward - middle * kv, load, largest)
        full = (kv * shares).sum(axis=0) > 1
        low, high = np.where(full, middle, low), np.where(full, high, middle)
    worth_low, more = knapsack(reward - low * kv, load, largest)
    worth_high, less = knapsack(reward - high * kv, load, largest)
    kv_more, kv_less = (kv * more).sum(axis=0), (kv * less).sum(axis=0)
    room = np.divide(1 - kv_less, kv_more - kv_less, out=np.zeros_like(low), where=kv_more > kv_less)
    return np.minimum(worth_low + low, worth_high + high), less + (more - less) * np.clip(room, 0.0, 1.0)
