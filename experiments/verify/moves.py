"""Smaller fleets than one that is known to hold, each routed so that no deployment is fuller than it has to be."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from policies.routing import route
from simulator.plan import Plan, PlanArrays, PlanStatus, build_plan, plan_arrays
from simulator.problem import IntArray, PlanningProblem

SPREAD = 2.0**0.05  # how close the evenest routing is found: 3.5 % of the load
MOST_STRAIN = 2.0  # times the headroom that was learned: a fleet that needs more is not worth a simulation
SERVED = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A plan with the problem that it is a plan of.

    `strain` is by how much its fullest deployment exceeds the caps that were learned: below one there is room.
    """

    plan: Plan
    problem: PlanningProblem
    strain: float


def with_strain(problem: PlanningProblem, strain: float) -> PlanningProblem:
    """The problem in which every replica may be filled to so many times its cap; at most to its limit."""
    cap = np.minimum(problem.cap * strain, 1.0)
    return replace(problem, cap=cap, kv=problem.kv * (problem.cap / cap))


def even_routing(
    problem: PlanningProblem, replicas: IntArray, *, policy: str, most_strain: float = MOST_STRAIN
) -> Candidate | None:
    """The routing of a fleet that serves all demand with the lowest strain on its caps, and of these the cheapest.

    None if even `most_strain` is not enough. Found by bisection: the more strain is borne, the more routings there are.
    """

    def routed(strain: float) -> tuple[PlanningProblem, PlanArrays] | None:
        bearing = with_strain(problem, strain)
        arrays = route(bearing, replicas)
        return None if arrays is None or arrays.unmet.max(initial=0.0) > SERVED else (bearing, arrays)

    low, high = 0.0, most_strain
    found = routed(high)
    if found is None:
        return None
    trial = 1.0
    while low == 0.0 or high / low > SPREAD:
        better = routed(trial)
        if better is None:
            low = trial
        else:
            found, high = better, trial
            if low == 0.0 and trial < 0.05:
                break
        trial = high / 2 if low == 0.0 else float(np.sqrt(low * high))
    bearing, arrays = found
    plan = build_plan(bearing, arrays, policy=policy, status=PlanStatus.FEASIBLE, seconds=0.0)
    return Candidate(plan=plan, problem=bearing, strain=high)


def smaller_fleets(problem: PlanningProblem, plan: Plan) -> Iterator[IntArray]:
    """Fleets that rent for less: one replica less, or one exchanged for a cheaper one; the largest saving last.

    An exchange may go to any configuration that some type may use, also of another operating point of a deployment.
    """
    have = plan_arrays(problem, plan).replicas
    usable = np.flatnonzero(problem.allowed.any(axis=0))
    deployed = np.flatnonzero(have)
    moves: list[tuple[float, int, int | None]] = []
    for out in deployed.tolist():
        moves.append((float(problem.rent_usd[out]), out, None))
        moves += [
            (float(problem.rent_usd[out] - problem.rent_usd[into]), out, into)
            for into in usable.tolist()
            if problem.rent_usd[into] < problem.rent_usd[out] - 1e-12
        ]
    for _, out, into in sorted(moves, key=lambda move: (move[0], move[1], -1 if move[2] is None else move[2])):
        fleet = have.copy()
        fleet[out] -= 1
        if into is not None:
            fleet[into] += 1
        pairs = problem.pair_index[np.flatnonzero(fleet)]
        if len(np.unique(pairs)) == len(pairs) and fleet.max() <= problem.max_replicas:
            yield fleet


def larger_fleets(problem: PlanningProblem, plan: Plan, first: list[int]) -> Iterator[IntArray]:
    """Fleets with one replica more: of the deployments in `first`, in their order, then of the others."""
    have = plan_arrays(problem, plan).replicas
    others = [a for a in np.flatnonzero(have).tolist() if a not in first]
    for a in [*first, *others]:
        if have[a] < problem.max_replicas:
            fleet = have.copy()
            fleet[a] += 1
            yield fleet
