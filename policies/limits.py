"""Rows of a routing program: limits on the shares, as they are or in the worst of a budget of bad cases."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from simulator.planning.problem import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Protection:
    """Of each type's deployments any `gamma` may be worse by `factor` (Bertsimas and Sim, 2004, "The Price of
    Robustness", doi:10.1287/opre.1030.0065).

    Attributes
    ----------
    gamma
        Of the deployments that serve a type, how many may be worse at once; of one of them a part, if it is no whole
        number.
    factor
        Shape (types,): on delay and error of those, at least one.
    """

    gamma: float
    factor: FloatArray


@dataclass(frozen=True, slots=True)
class Limits:
    """Rows `sum of use * share[column] <= limit`: `column` and `use` (rows, entries), `limit` (rows,)."""

    column: IntArray
    use: FloatArray
    limit: FloatArray

    @classmethod
    def per_type(cls, column: IntArray, use: FloatArray, limit: FloatArray) -> Self:
        """A limit of each type on the sum over its deployments."""
        return cls(column, use, limit)._that_can_bind(use.max(axis=1, initial=0.0))

    @classmethod
    def per_deployment(cls, column: IntArray, use: FloatArray, limit: FloatArray) -> Self:
        """A limit of each deployment on the sum over the types."""
        return cls(column.T, use.T, limit)._that_can_bind(use.sum(axis=0))

    @classmethod
    def of_all_served(cls, column: IntArray, use: FloatArray, limit: float) -> Self:
        """One limit on what all served demand uses, `use` (types,) wherever it is served."""
        row = np.repeat(use, column.shape[1])
        return cls(column.reshape(1, -1), row[None], np.array([max(limit, 0.0)]))._that_can_bind(use.sum()[None])

    def _that_can_bind(self, most: FloatArray) -> Self:
        """Without the rows that no routing can break, `most` being the largest use. Most rows are of that kind."""
        kept = most > self.limit
        return type(self)(self.column[kept], self.use[kept], self.limit[kept])


def protected(
    column: IntArray, use: FloatArray, limit: FloatArray, protection: Protection, first: int
) -> tuple[list[Limits], FloatArray]:
    """A limit of each type that holds in the worst case of the protection.

    The worst case of a row, a maximum over the deployments that are worse, is by LP duality the least value of
    `gamma z + sum_a p_a` with `p_a >= (factor - 1) use_a share_a - z` and z, p >= 0, which the program may choose::

        sum_a use_a share_a + gamma z + sum_a p_a <= limit
        (factor - 1) use_a share_a - z - p_a <= 0            for every a

    Parameters
    ----------
    column, use, limit
        As of `Limits.per_type`: shapes (types, D), (types, D), (types,).
    protection
        What may be worse.
    first
        The first of the columns z and p, type by type: z, then p of each deployment.

    Returns
    -------
    rows, weight
        The rows; and what z and each p count in the worst case, shape (types, 1 + D), in the order of the columns.
    """
    types, deployments = use.shape
    added = first + np.arange(types * (1 + deployments)).reshape(types, 1 + deployments)
    weight = np.hstack([np.full((types, 1), protection.gamma), np.ones((types, deployments))])
    more = (protection.factor - 1)[:, None] * use
    z = np.repeat(added[:, :1], deployments, axis=1)
    each = Limits(
        np.stack([column, z, added[:, 1:]], axis=2).reshape(-1, 3),
        np.stack([more, -np.ones_like(more), -np.ones_like(more)], axis=2).reshape(-1, 3),
        np.zeros(types * deployments),
    )
    return [Limits(np.hstack([column, added]), np.hstack([use, weight]), limit), each], weight
