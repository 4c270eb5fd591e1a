"""`gh`: the greedy heuristic of arXiv 2604.07472.

Three mechanisms, each with a switch: M1 selects per type and (model, tier) the cheapest configuration that keeps the
type's limits; M2 ranks candidates by cost per effective coverage; M3 raises the tensor-parallel degree of a deployment
that is there before another one is activated. Phase 1 covers every type with one feasible deployment, phase 2 serves the
types by falling arrival rate. As published, a type pays the whole rent of what it opens, even where later types fill the
rest; that is what makes GH fast and far from optimal, and what AGH repairs.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from policies.fleet import NONE, SHARE_TOLERANCE, Fleet, Moves
from policies.infeasible import explain, over_cap
from simulator.errors import InfeasibleError
from simulator.plan import Plan, PlanStatus, build_plan
from simulator.policy import StoppingRule
from simulator.problem import BoolArray, IntArray, PlanningProblem


@dataclass(frozen=True, slots=True)
class Candidates:
    """Which configurations each type may use [paper: M1, TP-aware feasibility selection].

    Attributes
    ----------
    usable
        Shape (types, configurations).
    cheapest
        For each type, the usable configuration of lowest rent of every (model, tier) pair that has one.
    """

    usable: BoolArray
    cheapest: tuple[IntArray, ...]

    @classmethod
    def of(cls, problem: PlanningProblem, *, m1: bool) -> "Candidates":
        """Select what fits memory and the limits of the type by itself; without M1, the cheapest whatever its limits."""
        usable = problem.allowed.copy()
        if m1:
            usable &= problem.delay_s <= problem.delay_slo_s[:, None]
            usable &= problem.error <= problem.error_slo[:, None]
        by_rent = np.lexsort((problem.rent_usd, problem.pair_index))
        cheapest = []
        for row in usable:
            left = by_rent[row[by_rent]]
            _, first = np.unique(problem.pair_index[left], return_index=True)
            cheapest.append(left[first])
        return cls(usable, tuple(cheapest))


class Greedy:
    """Builds fleets for one problem by the rules of GH, for any order of the types."""

    def __init__(self, problem: PlanningProblem, *, m1: bool, m2: bool, m3: bool) -> None:
        self.problem = problem
        self.candidates = Candidates.of(problem, m1=m1)
        self.per_coverage = m2
        self.upgrade = m3
        self._tensor_parallel = np.array([c.tensor_parallel for c in problem.configurations])

    def build(self, order: Iterable[int]) -> Fleet:
        """Cover, then serve the types in this order [paper: GH, phases 1 and 2]."""
        fleet, order = Fleet.empty(self.problem), list(order)
        for i in order:
            self.cover(fleet, i)
        for i in order:
            self.serve(fleet, i)
        fleet.release_idle()
        return fleet

    def cover(self, fleet: Fleet, i: int) -> None:
        """Make sure that some deployment can serve type `i`, without giving it a share yet [phase 1]."""
        if self.candidates.usable[i, fleet.deployed].any():
            return
        for moves in (*self._upgrades(fleet, i), self._additions(fleet, i)):
            best = moves.best(per_coverage=self.per_coverage)
            if best is not None:
                fleet.deploy(moves, best)
                return

    def serve(self, fleet: Fleet, i: int) -> None:
        """Serve what is left of type `i`, by existing deployments first, as far as the limits allow [phase 2]."""
        while fleet.unmet[i] > SHARE_TOLERANCE:
            for moves in self._by_preference(fleet, i):
                best = moves.best(per_coverage=self.per_coverage)
                if best is not None:
                    fleet.make(i, moves, best)
                    break
            else:
                return

    def serve_anywhere(self, fleet: Fleet, i: int, *, avoid: int | None) -> None:
        """Serve what is left of type `i` by whatever costs least next, in any usable configuration but `avoid`.

        The step of AGH's relocation: existing, upgraded and new deployments compete at marginal cost.
        """
        a = np.flatnonzero(self.candidates.usable[i])
        a = a[a != avoid]
        if not self.upgrade:
            now = fleet.configuration[self.problem.pair_index[a]]
            a = a[(now == NONE) | (now == a)]
        while fleet.unmet[i] > SHARE_TOLERANCE:
            moves = fleet.moves(i, a, grow=True)
            best = moves.best(per_coverage=self.per_coverage)
            if best is None:
                return
            fleet.make(i, moves, best)

    def _by_preference(self, fleet: Fleet, i: int) -> Iterator[Moves]:
        yield fleet.moves(i, self._usable(fleet.deployed, i), grow=False)
        yield from self._upgrades(fleet, i)
        yield self._additions(fleet, i)

    def _upgrades(self, fleet: Fleet, i: int) -> Iterator[Moves]:
        """Deployments at a higher tensor-parallel degree [paper: M3]."""
        if self.upgrade:
            a = np.flatnonzero(self.candidates.usable[i] & (fleet.replicas[self.problem.pair_index] > 0))
            now = fleet.configuration[self.problem.pair_index[a]]
            yield fleet.moves(i, a[self._tensor_parallel[a] > self._tensor_parallel[now]], grow=True)

    def _additions(self, fleet: Fleet, i: int) -> Moves:
        """More replicas of what is there, or a new deployment at the configuration that M1 selected."""
        cheapest = self.candidates.cheapest[i]
        closed = cheapest[fleet.replicas[self.problem.pair_index[cheapest]] == 0]
        return fleet.moves(i, np.concatenate([self._usable(fleet.deployed, i), closed]), grow=True)

    def _usable(self, configurations: IntArray, i: int) -> IntArray:
        return configurations[self.candidates.usable[i, configurations]]


def falling_rate(problem: PlanningProblem) -> IntArray:
    """Types by falling arrival rate, the order of GH."""
    return np.argsort(-problem.arrival_per_h, kind="stable")


@dataclass(frozen=True, slots=True)
class Gh:
    """Greedy heuristic. The switches leave out a mechanism, for the ablation study."""

    m1: bool = True
    m2: bool = True
    m3: bool = True

    @property
    def name(self) -> str:
        return name_with_switches("gh", self)

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Build one fleet; `incumbent`, `stop` and `seed` play no part.

        Raises
        ------
        InfeasibleError
            If the greedy construction leaves more of a type unserved than its unmet cap allows.
        """
        started = time.perf_counter()

        def build(variant: PlanningProblem) -> Fleet:
            return Greedy(variant, m1=self.m1, m2=self.m2, m3=self.m3).build(falling_rate(variant))

        fleet = build(problem)
        if len(short := over_cap(problem, fleet.unmet)):
            raise InfeasibleError(explain(problem, short, self.name, lambda variant: build(variant).arrays()))
        return build_plan(
            problem,
            fleet.arrays(),
            policy=self.name,
            status=PlanStatus.FEASIBLE,
            seconds=time.perf_counter() - started,
        )


def name_with_switches(name: str, policy: object) -> str:
    """`agh[-m1,-local]`: the name with the mechanisms that are off."""
    off = [f"-{field.name}" for field in fields(policy) if getattr(policy, field.name) is False]
    return f"{name}[{','.join(off)}]" if off else name
