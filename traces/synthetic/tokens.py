"""The tokens of requests as a profile has them: quantiles, rank correlation, and how often ranks go together."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]

_PERCENT = tuple(round(0.01 * k, 2) for k in range(1, 100))
QUANTILE_LEVELS = (0.0, 0.001, 0.005, *_PERCENT, 0.9925, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 1.0)
"""Fine at the upper end, where the mean and more so the variance of the tokens are made."""

RANKS = 10
"""Rows and columns of the table of joint ranks: with ten the mean of input times output is off by 1 %."""

PART_ROWS = 2**18
"""Requests that are looked at together."""


class TokenCounts:
    """Tokens of many requests by their values, of which there are few: nothing here has to be sorted."""

    def __init__(self, tokens: npt.NDArray[np.int32]) -> None:
        self.tokens = tokens
        self.counts = counts = np.bincount(tokens)
        self.values = np.flatnonzero(counts)
        self.up_to = np.cumsum(counts[self.values])
        self.below = self.up_to - counts[self.values]
        self._number = np.cumsum(counts > 0, dtype=np.int32) - 1

    def parts(self) -> Iterator[npt.NDArray[np.int32]]:
        """Indices into `values` of successive requests."""
        for first in range(0, len(self.tokens), PART_ROWS):
            yield self._number[self.tokens[first : first + PART_ROWS]]

    def middle_ranks(self) -> _Floats:
        """Mean rank of each value, about the mean of all."""
        middle: _Floats = (self.below + self.up_to - len(self.tokens)) / 2
        return middle

    def shares(self, ranks: int) -> _Floats:
        """Shape (values, ranks): how much of the requests of each value is in each rank."""
        total = len(self.tokens)
        first, last = self.below[:, None] / total, self.up_to[:, None] / total
        edges = np.linspace(0, 1, ranks + 1)
        shares: _Floats = np.clip(np.minimum(last, edges[1:]) - np.maximum(first, edges[:-1]), 0, None) / (last - first)
        return shares


def joint_ranks(inputs: TokenCounts, outputs: TokenCounts, ranks: int = RANKS) -> tuple[tuple[float, ...], ...]:
    """Requests by the rank of their input (rows) and of their output (columns), `ranks` of equal shares each.

    Requests of equal tokens share their ranks: each counts in every cell by as much of their ranks as lies in it.
    """
    rows, columns = inputs.shares(ranks), outputs.shares(ranks)
    table = np.zeros((ranks, ranks))
    for i, o in zip(inputs.parts(), outputs.parts(), strict=True):
        table += rows[i].T @ columns[o]
    return tuple(tuple(row) for row in table.tolist())


def spearman(inputs: TokenCounts, outputs: TokenCounts) -> float:
    """Rank correlation, zero if all values are equal."""
    ranks = inputs.middle_ranks(), outputs.middle_ranks()
    squares = [float(((c.up_to - c.below) * r**2).sum()) for c, r in zip((inputs, outputs), ranks, strict=True)]
    if not all(squares):
        return 0.0
    product = math.fsum(float(ranks[0][i] @ ranks[1][o]) for i, o in zip(inputs.parts(), outputs.parts(), strict=True))
    return product / math.sqrt(squares[0] * squares[1])
