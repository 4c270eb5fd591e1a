"""The state of a heuristic while it builds a plan: what is deployed, what is served, what is left of every limit.

At most one configuration per (model, tier) pair is deployed, so the state is indexed by pair. A *move* puts one pair at
some configuration in some replicas and lets one query type use it: using, growing, opening a deployment and changing its
parallel degrees are the same move with different arguments, and one function does the arithmetic of all of them.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from simulator.plan import PlanArrays
from simulator.problem import BoolArray, FloatArray, IntArray, PlanningProblem

SHARE_TOLERANCE = 1e-9  # a type whose unmet share is below this is served
ROUNDING = 1e-9  # relative; a limit that is met exactly must not count as broken
NONE = -1


@dataclass(frozen=True, slots=True)
class Moves:
    """Candidate moves for one query type, arrays of shape (moves,)."""

    configuration: IntArray
    replicas: IntArray
    coverage: FloatArray  # share of the type that the move really serves
    cost_usd: FloatArray  # what the objective grows by, the unmet penalty aside

    def best(self, *, per_coverage: bool) -> int | None:
        """Position of the cheapest move that serves something, the first among equals; None if none does.

        With `per_coverage`, cheapest per unit of share served [paper: M2], else cheapest in total.
        """
        serves = np.flatnonzero(self.coverage > SHARE_TOLERANCE)
        if len(serves) == 0:
            return None
        rank = self.cost_usd[serves] / self.coverage[serves] if per_coverage else self.cost_usd[serves]
        return int(serves[np.argmin(rank)])


@dataclass(frozen=True, slots=True)
class _Offer:
    """What each move finds before its type comes: arrays of shape (moves,)."""

    possible: BoolArray  # the types that the pair serves already may stay, at the configuration of the move
    load: FloatArray  # replicas that those types use, compute
    kv: FloatArray  # replicas that those types use, KV cache
    delay_left_s: FloatArray  # of the mean delay of the coming type
    error_left: FloatArray
    penalty_usd: FloatArray  # what their delay penalty grows by


@dataclass(slots=True)
class Fleet:
    """Deployments and shares by (model, tier) pair. Mutable: `copy` before trying something.

    Attributes
    ----------
    configuration
        Shape (pairs,): configuration of each pair, `NONE` where nothing is deployed.
    replicas
        Shape (pairs,).
    share
        Shape (types, pairs): share of each type that each pair serves.
    """

    problem: PlanningProblem
    configuration: IntArray
    replicas: IntArray
    share: FloatArray

    @classmethod
    def empty(cls, problem: PlanningProblem) -> Self:
        pairs = len(problem.configurations_of_pair)
        return cls(
            problem,
            np.full(pairs, NONE, dtype=np.int64),
            np.zeros(pairs, dtype=np.int64),
            np.zeros((len(problem.query_types), pairs)),
        )

    @classmethod
    def of(cls, problem: PlanningProblem, deployed: IntArray, replicas: IntArray, share: FloatArray) -> Self:
        """The state with D deployments; `deployed` and `replicas` (D,), `share` (types, D)."""
        fleet = cls.empty(problem)
        pair = problem.pair_index[deployed]
        fleet.configuration[pair] = deployed
        fleet.replicas[pair] = replicas
        fleet.share[:, pair] = share
        return fleet

    def copy(self) -> "Fleet":
        return Fleet(self.problem, self.configuration.copy(), self.replicas.copy(), self.share.copy())

    def arrays(self) -> PlanArrays:
        replicas = np.zeros(len(self.problem.configurations), dtype=np.int64)
        share = np.zeros(self.problem.delay_s.shape)
        replicas[self.deployed] = self.replicas[self.active]
        share[:, self.deployed] = self.share[:, self.active]
        return PlanArrays(replicas, share, self.unmet)

    # -- what is there and what is left -------------------------------------------------------------------------------

    @property
    def active(self) -> IntArray:
        """Pairs with a deployment."""
        return np.flatnonzero(self.replicas)

    @property
    def deployed(self) -> IntArray:
        """Configurations of the active pairs."""
        return self.configuration[self.active]

    @property
    def unmet(self) -> FloatArray:
        """Shape (types,)."""
        return np.clip(1.0 - self.share.sum(axis=1), 0.0, 1.0)

    def money_left_usd(self) -> float:
        problem, a = self.problem, self.deployed
        fixed = problem.rent_usd[a] @ self.replicas[self.active] + problem.model_storage_usd[a].sum()
        return float(problem.budget_usd - fixed - problem.token_storage_usd @ self.share.sum(axis=1))

    def storage_left_gb(self) -> float:
        problem = self.problem
        fixed = problem.model_storage_gb[self.deployed].sum()
        return float(problem.storage_capacity_gb - fixed - problem.token_storage_gb @ self.share.sum(axis=1))

    def spent(self, use: FloatArray) -> FloatArray:
        """Sum over deployments of `use[i, a] x[i, a]`, for the delay and error budgets of each type; shape (types,)."""
        return (use[:, self.deployed] * self.share[:, self.active]).sum(axis=1)

    def replicas_needed(self, pair: int) -> int:
        """Fewest replicas that carry what the pair serves now."""
        problem, a, share = self.problem, self.configuration[pair], self.share[:, pair]
        if not share.any():
            return 0
        need = max(problem.load[:, a] @ share / problem.cap[a], problem.kv[:, a] @ share)
        return max(1, int(np.ceil(need * (1 - ROUNDING))))

    # -- changes ------------------------------------------------------------------------------------------------------

    def deploy(self, moves: Moves, chosen: int) -> int:
        """Put the pair of a move at its configuration and replicas, and return the pair."""
        pair = int(self.problem.pair_index[moves.configuration[chosen]])
        self.configuration[pair] = moves.configuration[chosen]
        self.replicas[pair] = moves.replicas[chosen]
        return pair

    def make(self, i: int, moves: Moves, chosen: int) -> None:
        """Carry out one of the moves of type `i`."""
        self.share[i, self.deploy(moves, chosen)] += moves.coverage[chosen]

    def close(self, pair: int) -> None:
        self.configuration[pair] = NONE
        self.replicas[pair] = 0
        self.share[:, pair] = 0.0

    def release_idle(self) -> None:
        """Give back every replica that what is served now does not need."""
        for pair in self.active:
            self.replicas[pair] = min(self.replicas[pair], self.replicas_needed(pair))
            if self.replicas[pair] == 0:
                self.close(pair)

    # -- effective coverage -------------------------------------------------------------------------------------------

    def moves(self, i: int, configurations: IntArray, *, grow: bool) -> Moves:
        """What type `i` can get from each of `configurations`, and at what cost [paper: effective coverage of M2].

        Each configuration takes its pair's place, along with the types that the pair serves already, in as many
        replicas as type `i` needs (`grow`) or in those that are there. The effective coverage is the least of the unmet
        share and what the delay budget, the error budget, compute, KV cache, money and storage still allow. The cost is
        the marginal one: the whole rent and storage that the move adds, and the delay penalty.
        """
        problem, a = self.problem, configurations
        pair = problem.pair_index[a]
        offer = self._offer(i, a)
        load, kv = problem.load[i, a], problem.kv[i, a]

        before = self.replicas[pair]
        rent_before_usd = problem.rent_usd[self.configuration[pair]] * before  # zero where nothing is deployed
        opened = before == 0
        money_usd = self.money_left_usd() + rent_before_usd - opened * problem.model_storage_usd[a]

        within_delay = _share(offer.delay_left_s, problem.delay_s[i, a])
        within_error = _share(offer.error_left, problem.error[i, a])
        wish = np.clip(np.minimum(within_delay, within_error), 0.0, self.unmet[i])
        replicas = before
        if grow:
            need = np.maximum((offer.load + wish * load) / problem.cap[a], offer.kv + wish * kv)
            need = np.maximum(np.ceil(need * (1 - ROUNDING)), np.where(a == self.configuration[pair], before, 1))
            affordable = np.floor(np.maximum(_share(money_usd, problem.rent_usd[a]), 0.0) * (1 + ROUNDING))
            replicas = np.minimum(np.minimum(need, affordable), problem.max_replicas).astype(np.int64)

        rent_usd = problem.rent_usd[a] * replicas
        storage_gb = self.storage_left_gb() - opened * problem.model_storage_gb[a]
        coverage = np.minimum.reduce(
            [
                wish,
                _share(problem.cap[a] * replicas - offer.load, load),
                _share(replicas - offer.kv, kv),
                _share(money_usd - rent_usd, np.broadcast_to(problem.token_storage_usd[i], a.shape)),
                _share(storage_gb, np.broadcast_to(problem.token_storage_gb[i], a.shape)),
            ]
        )
        coverage = np.where(offer.possible & problem.allowed[i, a] & (replicas > 0), np.maximum(coverage, 0.0), 0.0)
        cost_usd = rent_usd - rent_before_usd + opened * problem.model_storage_usd[a] + offer.penalty_usd
        cost_usd += coverage * (problem.token_storage_usd[i] + problem.delay_penalty_usd[i, a])
        return Moves(a, replicas, coverage, cost_usd)

    def _offer(self, i: int, a: IntArray) -> _Offer:
        """What configurations `a` have left for type `i`, once the types that their pairs serve have moved to them."""
        problem = self.problem
        delay_s, error = self.spent(problem.delay_s), self.spent(problem.error)
        offer = _Offer(
            possible=np.ones(len(a), dtype=np.bool_),
            load=np.zeros(len(a)),
            kv=np.zeros(len(a)),
            delay_left_s=np.full(len(a), problem.delay_slo_s[i] - delay_s[i]),
            error_left=np.full(len(a), problem.error_slo[i] - error[i]),
            penalty_usd=np.zeros(len(a)),
        )
        pair = problem.pair_index[a]
        there = np.flatnonzero(self.replicas[pair])  # most candidates are closed pairs, which carry nothing
        carried = self.share[:, pair[there]]
        offer.load[there] = (problem.load[:, a[there]] * carried).sum(axis=0)
        offer.kv[there] = (problem.kv[:, a[there]] * carried).sum(axis=0)

        changed = there[a[there] != self.configuration[pair[there]]]
        if len(changed) == 0:
            return offer
        after, before = a[changed], self.configuration[pair[changed]]
        carried = self.share[:, pair[changed]]
        slower_s = carried * (problem.delay_s[:, after] - problem.delay_s[:, before])
        worse = carried * (problem.error[:, after] - problem.error[:, before])
        keeps_slo = _within(delay_s[:, None] + slower_s, problem.delay_slo_s[:, None])
        keeps_slo &= _within(error[:, None] + worse, problem.error_slo[:, None])
        offer.possible[changed] = (keeps_slo & (problem.allowed[:, after] | (carried == 0))).all(axis=0)
        offer.delay_left_s[changed] -= slower_s[i]
        offer.error_left[changed] -= worse[i]
        more_usd = problem.delay_penalty_usd[:, after] - problem.delay_penalty_usd[:, before]
        offer.penalty_usd[changed] = (carried * more_usd).sum(axis=0)
        return offer


def _share(left: FloatArray, use: FloatArray) -> FloatArray:
    """Share of a type that fits into what is left, where the whole type would take `use`; negative if overdrawn."""
    fits = np.where(left < -ROUNDING, -np.inf, np.inf)
    np.divide(left, use, out=fits, where=use > 0)
    return fits


def _within(used: FloatArray, limit: FloatArray) -> BoolArray:
    return used <= limit * (1 + ROUNDING)
