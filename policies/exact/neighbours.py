"""Fleets near a fleet: sets of deployment options that differ from it in a few.

A fleet is a tuple of options; many are an array (F, K) with `NONE` after the last option of a fleet with fewer than K.
"""

import itertools
import math
from functools import lru_cache

import numpy as np

from policies.heuristics.fleet_bound import NONE
from simulator.planning.problem import BoolArray, IntArray

Fleet = tuple[int, ...]


def neighbours(fleet: Fleet, most: int, others: IntArray, pair: IntArray) -> IntArray:
    """Shape (F, K): up to `most` options out of the fleet and up to `most` of the others into it.

    `pair`, shape (options,), is the number of the (model, tier) of each option: of each at most one is in a fleet.
    """
    others = np.setdiff1d(others, np.array(fleet, dtype=np.int64))
    rows = []
    for out in range(min(most, len(fleet)) + 1):
        for dropped in itertools.combinations(range(len(fleet)), out):
            rest = [option for k, option in enumerate(fleet) if k not in dropped]
            for into in range(most + 1):
                if out < most and into < most and most > 1:
                    continue  # an exchange of fewer, which was tried
                added = others[subsets(len(others), into)]
                row = np.full((len(added), len(fleet) + most), NONE, dtype=np.int64)
                row[:, : len(rest)] = rest
                row[:, len(rest) : len(rest) + into] = added
                rows.append(row)
    fleets = np.concatenate(rows)
    return fleets[one_of_each_pair(fleets, pair)]


def one_of_each_pair(fleets: IntArray, pair: IntArray) -> BoolArray:
    """Shape (F,): whether no (model, tier) is deployed twice."""
    options = np.arange(fleets.shape[1])
    pairs = np.sort(np.where(fleets == NONE, -1 - options, pair[fleets]), axis=1)
    return np.asarray((np.diff(pairs, axis=1) > 0).all(axis=1))


@lru_cache(maxsize=32)
def subsets(count: int, size: int) -> IntArray:
    """Shape (subsets, size): the subsets of this size of the first `count` numbers. Not to be changed."""
    rows = math.comb(count, size)
    flat = itertools.chain.from_iterable(itertools.combinations(range(count), size))
    return np.fromiter(flat, dtype=np.int64, count=rows * size).reshape(rows, size)
