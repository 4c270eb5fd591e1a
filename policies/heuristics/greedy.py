"""`gh`: the greedy heuristic of arXiv 2604.07472.

Three mechanisms, each with a switch: M1 selects per type and (model, tier) the cheapest configuration that keeps the
type's limits; M2 ranks candidates by cost per effective coverage; M3 raises the tensor-parallel degree of a deployment
that is there before another one is activated. Phase 1 covers every type with one feasible deployment, phase 2 serves
the types by falling arrival rate.

As published, a type pays the whole rent of what it opens, even where later types fill the rest, and nothing is ever
taken back. That makes GH fast and far from optimal; AGH repairs it.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from policies.heuristics.infeasible import explain, over_cap
from policies.heuristics.moving import Moving, fleet_in_force
from policies.heuristics.placement import NONE, SHARE_TOLERANCE, Moves, Placement, within
from simulator.errors import InfeasibleError
from simulator.planning.plan import Plan, PlanArrays, PlanStatus, build_plan, plan_cost_usd
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import BoolArray, FloatArray, IntArray, PlanningProblem


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
        """Select what fits memory and keeps the type's limits by itself; without M1, the cheapest that fits memory."""
        usable = usable_alone(problem) if m1 else problem.allowed.copy()
        usable &= (problem.cap > 0) | (problem.load <= 0)
        replicas_used = np.maximum(problem.load / np.where(problem.cap > 0, problem.cap, 1.0), problem.kv)
        cheapest = []
        for i, row in enumerate(usable):
            a = np.flatnonzero(row)
            # Equal rents happen (PP in place of TP, another operating point): then the one that the type fills least.
            a = a[np.lexsort((replicas_used[i, a], problem.rent_usd[a], problem.pair_index[a]))]
            _, first = np.unique(problem.pair_index[a], return_index=True)
            cheapest.append(a[first])
        return cls(usable, tuple(cheapest))


def usable_alone(problem: PlanningProblem) -> BoolArray:
    """Shape (types, configurations): what fits memory and keeps the limits of the type by itself.

    Where nothing keeps them but some demand may stay unmet, what keeps them for the share that must be served.
    """
    usable: BoolArray = problem.allowed & _keeps_limits(problem, np.ones_like(problem.unmet_cap))
    stuck = (problem.unmet_cap < 1) & ~usable.any(axis=1)
    usable[stuck] = (problem.allowed & _keeps_limits(problem, 1 - problem.unmet_cap))[stuck]
    return usable


def _keeps_limits(problem: PlanningProblem, share: FloatArray) -> BoolArray:
    """Whether a configuration alone keeps the delay and error SLO when it serves `share` (types,); (types, configs)."""
    fast = within(problem.delay_s * share[:, None], problem.delay_slo_s[:, None])
    return fast & within(problem.error * share[:, None], problem.error_slo[:, None])


class Greedy:
    """Builds placements for one problem by the rules of GH, for any order of the types."""

    def __init__(self, problem: PlanningProblem, moving: Moving | None = None, *, m1: bool, m2: bool, m3: bool) -> None:
        self.problem = problem
        self.nothing = Placement.empty(problem, moving)
        self.candidates = Candidates.of(problem, m1=m1)
        self.per_coverage = m2
        self.upgrade = m3
        self._tensor_parallel = np.array([c.tensor_parallel for c in problem.configurations])
        targets = [np.inf if c.tpot_target_s is None else c.tpot_target_s for c in problem.configurations]
        self._tpot_target_s = np.array(targets)

    def build(self, order: Iterable[int], fleet: IntArray | None = None) -> Placement:
        """Cover, then serve the types in this order [paper: GH, phases 1 and 2].

        It begins with nothing, or with a fleet (configurations,) that is there.
        """
        placement, order = self.placed(fleet), list(order)
        for i in order:
            self.cover(placement, i)
        for i in order:
            self.serve(placement, i)
        placement.release_idle()
        return placement

    def placed(self, fleet: IntArray | None) -> Placement:
        """The placement of a fleet (configurations,) that serves nothing yet."""
        deployed = np.flatnonzero(() if fleet is None else fleet)
        replicas = deployed if fleet is None else fleet[deployed]
        share = np.zeros((len(self.problem.query_types), len(deployed)))
        return self.nothing.with_fleet(deployed, replicas, share)

    def cover(self, placement: Placement, i: int) -> None:
        """Make sure that some deployment can serve type `i`, without giving it a share yet [phase 1]."""
        if self.candidates.usable[i, placement.deployed].any():
            return
        for moves in (*self._upgrades(placement, i), self._additions(placement, i)):
            best = moves.best(per_coverage=self.per_coverage)
            if best is not None:
                placement.deploy(moves, best)
                return

    def serve(self, placement: Placement, i: int) -> None:
        """Serve what is left of type `i`, by existing deployments first, as far as the limits allow [phase 2]."""
        while placement.unmet[i] > SHARE_TOLERANCE:
            for moves in self._by_preference(placement, i):
                best = moves.best(per_coverage=self.per_coverage)
                if best is not None:
                    placement.make(i, moves, best)
                    break
            else:
                return

    def serve_anywhere(self, placement: Placement, i: int, *, avoid: int | None) -> None:
        """Serve what is left of type `i` by whatever costs least next, in any usable configuration but `avoid`.

        The step of AGH's relocation: existing, upgraded and new deployments compete at marginal cost.
        """
        a = np.flatnonzero(self.candidates.usable[i])
        a = a[a != avoid]
        if not self.upgrade:
            now = placement.configuration[self.problem.pair_index[a]]
            a = a[(now == NONE) | (now == a)]
        while placement.unmet[i] > SHARE_TOLERANCE:
            moves = placement.moves(i, a, grow=True)
            best = moves.best(per_coverage=self.per_coverage)
            if best is None:
                return
            placement.make(i, moves, best)

    def _by_preference(self, placement: Placement, i: int) -> Iterator[Moves]:
        yield placement.moves(i, self._usable(placement.deployed, i), grow=False)
        yield from self._upgrades(placement, i)
        yield self._additions(placement, i)

    def _upgrades(self, placement: Placement, i: int) -> Iterator[Moves]:
        """Deployments at a higher tensor-parallel degree, or the same GPUs at a faster operating point [paper: M3]."""
        if not self.upgrade:
            return
        problem = self.problem
        a = np.flatnonzero(self.candidates.usable[i] & (placement.replicas[problem.pair_index] > 0))
        now = placement.configuration[problem.pair_index[a]]
        tensor_parallel, gpus, target_s = self._tensor_parallel, problem.gpus, self._tpot_target_s
        same_gpus = (tensor_parallel[a] == tensor_parallel[now]) & (gpus[a] == gpus[now])
        faster = (tensor_parallel[a] > tensor_parallel[now]) | (same_gpus & (target_s[a] < target_s[now]))
        yield placement.moves(i, a[faster], grow=True)

    def _additions(self, placement: Placement, i: int) -> Moves:
        """More replicas of what is there, or a new deployment at the configuration that M1 selected."""
        cheapest = self.candidates.cheapest[i]
        closed = cheapest[placement.replicas[self.problem.pair_index[cheapest]] == 0]
        return placement.moves(i, np.concatenate([self._usable(placement.deployed, i), closed]), grow=True)

    def _usable(self, configurations: IntArray, i: int) -> IntArray:
        usable: BoolArray = self.candidates.usable[i, configurations]
        return configurations[usable]


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
        return name_with_switches("gh", m1=self.m1, m2=self.m2, m3=self.m3)

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Build one placement; `stop` and `seed` play no part.

        Where leaving the fleet in force has a price, a second one is built from the fleet of `incumbent`, and the
        better of the two is the plan.

        Raises
        ------
        InfeasibleError
            If the greedy construction leaves more of a type unserved than its unmet cap allows.
        """
        started = time.perf_counter()

        def greedy(variant: PlanningProblem, moving: Moving | None = None) -> Greedy:
            return Greedy(variant, moving, m1=self.m1, m2=self.m2, m3=self.m3)

        def plan_of(variant: PlanningProblem) -> PlanArrays:
            return greedy(variant).build(falling_rate(variant)).arrays()

        order, moving = falling_rate(problem), Moving.of(problem, incumbent)
        placement = greedy(problem, moving).build(order)
        if not moving.free:
            stayed = greedy(problem, moving).build(order, fleet_in_force(problem, incumbent))
            placement = min(placement, stayed, key=_with_moving)
        if len(short := over_cap(problem, placement.unmet)):
            raise InfeasibleError(explain(problem, short, self.name, plan_of))
        return build_plan(
            problem,
            placement.arrays(),
            policy=self.name,
            status=PlanStatus.FEASIBLE,
            seconds=time.perf_counter() - started,
        )


def _with_moving(placement: Placement) -> tuple[bool, float]:
    """Order of placements: plans before what is none, then cost and moving together."""
    arrays = placement.arrays()
    cost_usd = math.fsum(plan_cost_usd(placement.problem, arrays).values())
    return bool(len(over_cap(placement.problem, arrays.unmet))), float(cost_usd) + placement.moving_usd()


def name_with_switches(name: str, **switches: bool) -> str:
    """`agh[-m1,-local]`: the name with the mechanisms that are off."""
    off = [f"-{mechanism}" for mechanism, on in switches.items() if not on]
    return f"{name}[{','.join(off)}]" if off else name
