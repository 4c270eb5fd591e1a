"""The options of a problem that a certificate bounds (module text of `certificate.py`).

Options that are left out
-------------------------
The universe of options leaves out what no plan needs:

- replicas beyond those that carry the largest shares of all types together: they cost rent and carry nothing;
- options whose own rent and storage exceed the budget, or whose weights exceed the storage;
- options dominated by another of their pair, which costs no more, serves each type that they serve with no more delay
  and error, and on which each type takes no larger part of the capacity (or on which everything fits anyway). A plan
  deploys at most one of the two, so it can deploy the other instead and keep its shares: the largest shares are no
  smaller, every constraint is kept (the weights of a pair are the same), and it costs no more. So some optimal plan
  uses the universe only, and this replacement is made once, before any branching.
"""

import math
from functools import cached_property
from typing import Any

import numpy as np

from policies.checking.certificate import Group
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem

TOLERANCE = 1e-9  # relative: of the comparisons between options, and between a node's bound and the stated one


def at_most(value: Any, limit: Any) -> Any:
    """Whether `value <= limit` up to the tolerance; both at least 0."""
    return value <= limit + TOLERANCE * np.abs(limit)


class Universe:
    """The options of a problem, and what the bounds need of them.

    Attributes
    ----------
    largest_share
        Shape (types, configurations): what limits of delay and error leave of a type's demand.
    delay_s, error, load, kv
        Shape (types, configurations): as in the problem, but 0 where the largest share is.
    configuration, replicas, pair
        Shape (options,).
    fixed_usd, storage_gb
        Shape (options,): rent and storage of the weights.
    """

    def __init__(self, problem: PlanningProblem) -> None:
        self.problem = problem
        self.largest_share = largest_share(problem)
        used = self.largest_share > 0
        self.delay_s = np.where(used, problem.delay_s, 0.0)
        self.error = np.where(used, problem.error, 0.0)
        self.load = np.where(used, problem.load, 0.0)
        self.kv = np.where(used, problem.kv, 0.0)
        self.load_of_all = (self.load * self.largest_share).sum(axis=0)
        self.kv_of_all = (self.kv * self.largest_share).sum(axis=0)

        configuration, replicas = self._useful()
        fixed_usd = problem.rent_usd[configuration] * replicas + problem.model_storage_usd[configuration]
        possible = at_most(fixed_usd, problem.budget_usd)
        possible &= at_most(problem.model_storage_gb[configuration], problem.storage_capacity_gb)
        self._keep(configuration[possible], replicas[possible], fixed_usd[possible])
        needed = np.ones(len(self.configuration), dtype=np.bool_)
        for members in _groups(self.pair):
            needed[members] = ~self._dominated(members)
        self._keep(self.configuration[needed], self.replicas[needed], self.fixed_usd[needed])

        self.storage_gb = problem.model_storage_gb[self.configuration]
        self.gpus = problem.gpus[self.configuration] * self.replicas
        self.load_limit = problem.cap[self.configuration] * self.replicas
        self.pairs = int(self.pair.max()) + 1 if len(self.pair) else 0
        self._counts: dict[Group, IntArray] = {}
        self._covers: dict[tuple[int, float], tuple[BoolArray, float]] = {}

    def _useful(self) -> tuple[IntArray, IntArray]:
        """Configuration and replicas of every option with no more replicas than can be filled."""
        a = np.flatnonzero(self.largest_share.any(axis=0))
        # Without capacity (cap 0) only types without load have a share, so there is no load to divide.
        cap = np.where(self.problem.cap[a] > 0, self.problem.cap[a], 1.0)
        filled = np.ceil(np.maximum(self.load_of_all[a] / cap, self.kv_of_all[a]) - TOLERANCE)
        most = np.clip(filled, 1, self.problem.max_replicas).astype(np.int64)
        configuration = np.repeat(a, most)
        replicas = np.arange(1, len(configuration) + 1) - np.repeat(np.cumsum(most) - most, most)
        return configuration, replicas

    def _keep(self, configuration: IntArray, replicas: IntArray, fixed_usd: FloatArray) -> None:
        self.configuration, self.replicas, self.fixed_usd = configuration, replicas, fixed_usd
        self.pair = self.problem.pair_index[configuration]

    def _dominated(self, members: IntArray) -> BoolArray:
        """Which options of a pair some other option of it can always stand in for."""
        a = self.configuration[members]
        limit = self.problem.cap[a] * self.replicas[members]
        served = self.largest_share[:, a] > 0
        load = np.divide(self.load[:, a], limit, where=limit > 0, out=np.zeros(served.shape))  # no capacity, no load
        kv = self.kv[:, a] / self.replicas[members]

        # Axes: types, the option that may stand in, the option that is left out.
        def no_more(values: FloatArray) -> BoolArray:
            fine: BoolArray = at_most(values[:, :, None], values[:, None, :]) | ~served[:, None, :]
            return fine

        quality = (no_more(self.problem.delay_s[:, a]) & no_more(self.problem.error[:, a])).all(axis=0)
        serves = (served[:, :, None] | ~served[:, None, :]).all(axis=0)  # every type that the other one serves
        fits_load = at_most(self.load_of_all[a], limit)[:, None]
        fits_kv = at_most(self.kv_of_all[a], self.replicas[members])[:, None]
        better = serves & quality
        better &= (fits_load | no_more(load).all(axis=0)) & (fits_kv | no_more(kv).all(axis=0))
        better &= at_most(self.fixed_usd[members][:, None], self.fixed_usd[members][None, :])
        first = np.arange(len(members))
        better &= ~better.T | (first[:, None] < first[None, :])  # of equals the first stays; none beats itself

        # Up to a tolerance, options can beat each other in a circle: what none that stays stands in for comes back.
        stays = ~better.any(axis=0)
        reached = stays
        while (more := reached | better[reached].any(axis=0)).sum() > reached.sum():
            reached = more
        dominated: BoolArray = ~stays & reached
        return dominated

    def count(self, group: Group) -> IntArray:
        """Shape (options,): how much each option counts in a group."""
        if group not in self._counts:
            configurations = self.problem.configurations
            match = np.ones(len(configurations), dtype=np.bool_)
            if group.models is not None:
                match &= np.array([c.model in group.models for c in configurations], dtype=np.bool_)
            if group.tiers is not None:
                match &= np.array([c.tier in group.tiers for c in configurations], dtype=np.bool_)
            if group.configuration is not None:
                *shape, _ = group.configuration
                shapes = [[c.tensor_parallel, c.pipeline_parallel, c.tpot_target_s] for c in configurations]
                match &= np.array([item == shape for item in shapes], dtype=np.bool_)
            counted = match[self.configuration]
            if group.configuration is not None:
                counted &= self.replicas == group.configuration[3]
            if group.gpus is not None:
                counted &= np.isin(self.gpus, group.gpus)
            self._counts[group] = np.where(counted, self.gpus if group.count == "gpus" else 1, 0)
        return self._counts[group]

    def cover(self, i: int, weight: float) -> tuple[BoolArray, float]:
        """Good options of a cover, shape (options,), and the factor `k` of the unmet share (module text)."""
        if (i, weight) not in self._covers:
            delay = self.delay_s[i, self.configuration] / self.problem.delay_slo_s[i]
            error = self.error[i, self.configuration] / self.problem.error_slo[i]
            value = weight * delay + (1 - weight) * error
            serves = self.largest_share[i, self.configuration] > 0
            good = serves & (value <= 1 + TOLERANCE)
            least = float(value[serves & ~good].min(initial=math.inf))
            self._covers[i, weight] = good, least / (least - 1) if math.isfinite(least) else 1.0
        return self._covers[i, weight]

    @cached_property
    def per_option(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Load, KV and largest share with shape (options, types)."""
        columns = self.configuration
        return (
            np.ascontiguousarray(self.load[:, columns].T),
            np.ascontiguousarray(self.kv[:, columns].T),
            np.ascontiguousarray(self.largest_share[:, columns].T),
        )


def largest_share(problem: PlanningProblem) -> FloatArray:
    """Shape (types, configurations): the most of a type's demand that its limits let a configuration serve."""
    usable = problem.allowed & ((problem.cap > 0) | (problem.load == 0))
    share = np.where(usable, 1.0, 0.0)
    for values, limits in ((problem.delay_s, problem.delay_slo_s), (problem.error, problem.error_slo)):
        limited = usable & (values > 0)
        most = np.divide(np.broadcast_to(limits[:, None], share.shape), values, where=limited, out=np.ones_like(share))
        share = np.minimum(share, most)
    return share


def _groups(labels: IntArray) -> list[IntArray]:
    """Positions of equal labels, in their order."""
    if not len(labels):
        return []
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
