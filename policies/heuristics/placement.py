"""The state of a heuristic while it builds a plan: what is deployed, what is served, what is left of every limit.

At most one configuration per (model, tier) pair is deployed, so the state is indexed by pair. A *move* puts one pair at
some configuration in some replicas and lets one query type use it: using, growing and opening a deployment or changing
its parallel degrees are the same move with different arguments, and one function does the arithmetic of all of them.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from policies.heuristics.coverage import ROUNDING, Coverage
from policies.heuristics.moving import Moving
from simulator.planning.plan import PlanArrays
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem

SHARE_TOLERANCE = 1e-9  # a type whose unmet share is below this is served
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
        serves = (self.coverage > SHARE_TOLERANCE).nonzero()[0]
        if len(serves) == 0:
            return None
        rank = self.cost_usd[serves] / self.coverage[serves] if per_coverage else self.cost_usd[serves]
        return int(serves[np.argmin(rank)])


@dataclass(slots=True)
class Placement:
    """Deployments and shares by (model, tier) pair. Mutable: `copy` before trying something.

    Attributes
    ----------
    moving
        What leaving the fleet in force costs.
    coverage
        The problem in tables.
    configuration
        Shape (pairs,): configuration of each pair, `NONE` where nothing is deployed.
    replicas
        Shape (pairs,).
    share
        Shape (types, pairs): share of each type that each pair serves.
    """

    problem: PlanningProblem
    moving: Moving
    coverage: Coverage
    configuration: IntArray
    replicas: IntArray
    share: FloatArray

    @classmethod
    def empty(cls, problem: PlanningProblem, moving: Moving | None = None) -> Self:
        pairs = len(problem.configurations_of_pair)
        return cls(
            problem,
            Moving.none(problem) if moving is None else moving,
            Coverage.of(problem),
            np.full(pairs, NONE, dtype=np.int64),
            np.zeros(pairs, dtype=np.int64),
            np.zeros((len(problem.query_types), pairs)),
        )

    def with_fleet(self, deployed: IntArray, replicas: IntArray, share: FloatArray) -> "Placement":
        """Another state of the same problem, with D deployments; `deployed`, `replicas` (D,), `share` (types, D)."""
        placement = self.copy()
        placement.configuration[:], placement.replicas[:], placement.share[:] = NONE, 0, 0.0
        pair = self.problem.pair_index[deployed]
        placement.configuration[pair] = deployed
        placement.replicas[pair] = replicas
        placement.share[:, pair] = share
        return placement

    def copy(self) -> "Placement":
        return Placement(
            self.problem, self.moving, self.coverage, self.configuration.copy(), self.replicas.copy(), self.share.copy()
        )

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
        return self.replicas.nonzero()[0]

    @property
    def deployed(self) -> IntArray:
        """Configurations of the active pairs."""
        return self.configuration[self.active]

    @property
    def unmet(self) -> FloatArray:
        """Shape (types,)."""
        unmet: FloatArray = np.clip(1.0 - self.share[:, self.active].sum(axis=1), 0.0, 1.0)
        return unmet

    def replicas_used(self) -> FloatArray:
        """Replicas that the shares fill, by compute or KV cache, whichever is more; shape (active pairs,)."""
        problem, a, share = self.problem, self.deployed, self.share[:, self.active]
        cap = np.where(problem.cap[a] > 0, problem.cap[a], np.inf)  # without capacity only what loads nothing is served
        load = (problem.load[:, a] * share).sum(axis=0) / cap
        used: FloatArray = np.maximum(load, (problem.kv[:, a] * share).sum(axis=0))
        return used

    def by_load(self) -> IntArray:
        """Active pairs by rising use of their replicas."""
        pair = self.active
        return pair[np.argsort(self.replicas_used() / self.replicas[pair], kind="stable")]

    def cost_floor_usd(self) -> float:
        """A lower bound on the cost of these deployments however they are routed, every limit ignored."""
        problem, a = self.problem, self.deployed
        serve_usd = problem.delay_penalty_usd[:, a].min(axis=1, initial=np.inf) + problem.token_storage_usd
        return float(self.fixed_usd().sum() + np.minimum(serve_usd, problem.unmet_usd).sum())

    def fixed_usd(self) -> FloatArray:
        """Shape (active pairs,): rent and weights storage."""
        problem, a = self.problem, self.deployed
        fixed_usd: FloatArray = problem.rent_usd[a] * self.replicas[self.active] + problem.model_storage_usd[a]
        return fixed_usd

    def moving_usd(self) -> float:
        """What it costs to move here from the fleet in force."""
        if self.moving.free:
            return 0.0
        option_usd = self.moving.option_usd(self.deployed, self.replicas[self.active])
        return self.moving.leaving_usd + float(option_usd.sum())

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

        The arithmetic is that of `coverage.py`; here comes what the move costs or spares of leaving the fleet in force.
        """
        a = configurations
        replicas, coverage, cost_usd = self.coverage.moves(
            i, a, grow=grow, configuration=self.configuration, replicas=self.replicas, share=self.share
        )
        if not self.moving.free:
            pair = self.problem.pair_index[a]
            now = np.where(self.replicas[pair] > 0, self.configuration[pair], a)
            cost_usd += self.moving.option_usd(a, replicas) - self.moving.option_usd(now, self.replicas[pair])
        return Moves(a, replicas, coverage, cost_usd)


def within(used: FloatArray, limit: FloatArray | np.float64) -> BoolArray:
    """Whether a limit is kept, up to rounding."""
    kept: BoolArray = used <= limit * (1 + ROUNDING)
    return kept
