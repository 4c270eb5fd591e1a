"""The state of a heuristic while it builds a plan: what is deployed, what is served, what is left of every limit.

At most one configuration per (model, tier) pair is deployed, so the state is indexed by pair. A *move* puts one pair at
some configuration in some replicas and lets one query type use it: using, growing and opening a deployment or changing
its parallel degrees are the same move with different arguments, and one function does the arithmetic of all of them.
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
class Placement:
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
        placement = cls.empty(problem)
        pair = problem.pair_index[deployed]
        placement.configuration[pair] = deployed
        placement.replicas[pair] = replicas
        placement.share[:, pair] = share
        return placement

    def copy(self) -> "Placement":
        return Placement(self.problem, self.configuration.copy(), self.replicas.copy(), self.share.copy())

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
        unmet: FloatArray = np.clip(1.0 - self.share[:, self.active].sum(axis=1), 0.0, 1.0)
        return unmet

    def money_and_storage_left(self) -> tuple[float, float]:
        """USD of the budget and GB of the storage capacity."""
        problem, a = self.problem, self.deployed
        served = self.share[:, self.active].sum(axis=1)
        rent_usd = problem.rent_usd[a] @ self.replicas[self.active]
        money_usd = (
            problem.budget_usd - rent_usd - problem.model_storage_usd[a].sum() - problem.token_storage_usd @ served
        )
        storage_gb = problem.storage_capacity_gb - problem.model_storage_gb[a].sum() - problem.token_storage_gb @ served
        return float(money_usd), float(storage_gb)

    def spent(self, use: FloatArray) -> FloatArray:
        """Sum over deployments of `use[i, a] x[i, a]`, for the delay and error budgets of each type; shape (types,)."""
        total: FloatArray = (use[:, self.deployed] * self.share[:, self.active]).sum(axis=1)
        return total

    def replicas_used(self) -> FloatArray:
        """Replicas that the shares fill, by compute or KV cache, whichever is more; shape (active pairs,)."""
        problem, a, share = self.problem, self.deployed, self.share[:, self.active]
        load = (problem.load[:, a] * share).sum(axis=0) / problem.cap[a]
        used: FloatArray = np.maximum(load, (problem.kv[:, a] * share).sum(axis=0))
        return used

    def by_load(self) -> IntArray:
        """Active pairs by rising use of their replicas."""
        pair = self.active
        return pair[np.argsort(self.replicas_used() / self.replicas[pair], kind="stable")]

    def cost_floor_usd(self) -> float:
        """A lower bound on the cost of these deployments however they are routed, every limit ignored."""
        problem, a = self.problem, self.deployed
        fixed_usd = problem.rent_usd[a] @ self.replicas[self.active] + problem.model_storage_usd[a].sum()
        serve_usd = problem.delay_penalty_usd[:, a].min(axis=1, initial=np.inf) + problem.token_storage_usd
        return float(fixed_usd + np.minimum(serve_usd, problem.unmet_usd).sum())

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
        pair = self.active
        need = np.maximum(np.ceil(self.replicas_used() * (1 - ROUNDING)), self.share[:, pair].any(axis=0))
        self.replicas[pair] = np.minimum(self.replicas[pair], need.astype(np.int64))
        self.configuration[self.replicas == 0] = NONE

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
        money_left_usd, storage_left_gb = self.money_and_storage_left()
        money_usd = money_left_usd + rent_before_usd - opened * problem.model_storage_usd[a]

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
        storage_gb = storage_left_gb - opened * problem.model_storage_gb[a]
        coverage = np.minimum.reduce(
            [
                wish,
                _share(problem.cap[a] * replicas - offer.load, load),
                _share(replicas - offer.kv, kv),
                _share(money_usd - rent_usd, problem.token_storage_usd[i]),
                _share(storage_gb, problem.token_storage_gb[i]),
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
        keeps_slo = within(delay_s[:, None] + slower_s, problem.delay_slo_s[:, None])
        keeps_slo &= within(error[:, None] + worse, problem.error_slo[:, None])
        offer.possible[changed] = (keeps_slo & (problem.allowed[:, after] | (carried == 0))).all(axis=0)
        offer.delay_left_s[changed] -= slower_s[i]
        offer.error_left[changed] -= worse[i]
        more_usd = problem.delay_penalty_usd[:, after] - problem.delay_penalty_usd[:, before]
        offer.penalty_usd[changed] = (carried * more_usd).sum(axis=0)
        return offer


def _share(left: FloatArray, use: FloatArray | np.float64) -> FloatArray:
    """Share of a type that fits into what is left, where the whole type would take `use`; negative if overdrawn."""
    fits = np.where(left < -ROUNDING, -np.inf, np.inf)
    np.divide(left, use, out=fits, where=use > 0)
    return fits


def within(used: FloatArray, limit: FloatArray | np.float64) -> BoolArray:
    """Whether a limit is kept, up to rounding."""
    kept: BoolArray = used <= limit * (1 + ROUNDING)
    return kept
