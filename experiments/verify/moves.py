"""Smaller fleets than one that is known to hold, each routed so that no deployment is fuller than it has to be."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np

from policies.heuristics.routing import route
from simulator.catalog.configuration import DeploymentKey
from simulator.planning.plan import Plan, PlanArrays, PlanStatus, build_plan, plan_arrays
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

SPREAD = 2.0**0.05  # how close the evenest routing is found: 3.5 % of the load
MOST_CAP_RATIO = 2.0  # times the headroom that was learned: a fleet that needs more is not worth a simulation
SERVED = 1e-7
SHORTLIST = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A plan with the problem that it is a plan of.

    `cap_ratio` is the load of its fullest deployment over the cap that was learned: below one there is room.
    """

    plan: Plan
    problem: PlanningProblem
    cap_ratio: float


def with_cap_ratio(problem: PlanningProblem, cap_ratio: float) -> PlanningProblem:
    """The problem in which every replica may be filled to so many times its cap; at most to its limit."""
    cap = np.minimum(problem.cap * cap_ratio, 1.0)
    return replace(problem, cap=cap, kv=problem.kv * (problem.cap / cap))


def even_routing(
    problem: PlanningProblem, replicas: IntArray, *, policy: str, most_cap_ratio: float = MOST_CAP_RATIO
) -> Candidate | None:
    """The routing of a fleet that serves all demand whose fullest deployment is the least full for its cap, the
    cheapest of these.

    None if even `most_cap_ratio` is not enough. Found by bisection: the fuller replicas may be, the more
    routings there are.
    """

    def routed(cap_ratio: float) -> tuple[PlanningProblem, PlanArrays] | None:
        bearing = with_cap_ratio(problem, cap_ratio)
        arrays = route(bearing, replicas)
        return None if arrays is None or arrays.unmet.max(initial=0.0) > SERVED else (bearing, arrays)

    low, high = 0.0, most_cap_ratio
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
    return Candidate(plan=plan, problem=bearing, cap_ratio=high)


def smaller_fleets(problem: PlanningProblem, plan: Plan) -> Iterator[IntArray]:
    """Fleets that rent for less: one replica less, or one exchanged for one to three others that rent for less.

    One may be exchanged for any configuration that some type may use, also of another TP of its deployment; several
    come from the few that do the work of the replica that goes for the least rent.
    """
    arrays = plan_arrays(problem, plan)
    have, seen = arrays.replicas, set()
    usable = np.flatnonzero(problem.allowed.any(axis=0)).tolist()
    for out in np.flatnonzero(have).tolist():
        cheap = _cheapest_for(problem, arrays.share[:, out])
        several = (c for size in (2, 3) for c in combinations_with_replacement(cheap, size))
        for into in ((), *((a,) for a in usable), *several):
            if math.fsum(problem.rent_usd[a] for a in into) >= problem.rent_usd[out] * (1 - 1e-12):
                continue
            fleet = have.copy()
            fleet[out] -= 1
            for a in into:
                fleet[a] += 1
            pairs = problem.pair_index[np.flatnonzero(fleet)]
            if (
                len(np.unique(pairs)) == len(pairs)
                and fleet.max() <= problem.max_replicas
                and fleet.tobytes() not in seen
            ):
                seen.add(fleet.tobytes())
                yield fleet


def _cheapest_for(problem: PlanningProblem, share: FloatArray) -> list[int]:
    """The configurations that could serve most of these shares, by what they would rent for while they do."""
    wanted = share > SERVED
    serves = problem.allowed[wanted]
    load = (problem.load[wanted] * share[wanted, None] * serves).sum(axis=0) / problem.cap
    served = (share[wanted, None] * serves).sum(axis=0)
    rent = np.divide(load * problem.rent_usd, served, out=np.full(len(load), np.inf), where=served > 0)
    return [int(a) for a in np.argsort(rent, kind="stable")[:SHORTLIST]]


def larger_fleets(problem: PlanningProblem, plan: Plan, first: list[int]) -> Iterator[IntArray]:
    """Fleets with one replica more: of the deployments in `first`, in their order, then of the others, then new ones.

    New ones come by rising rent.
    """
    have = plan_arrays(problem, plan).replicas
    deployed = np.flatnonzero(have).tolist()
    usable = np.flatnonzero(problem.allowed.any(axis=0))
    new = usable[np.argsort(problem.rent_usd[usable], kind="stable")].tolist()
    for a in dict.fromkeys([*first, *deployed, *new]):
        pairs = problem.pair_index[[b for b in deployed if b != a]]
        if have[a] < problem.max_replicas and problem.pair_index[a] not in pairs:
            fleet = have.copy()
            fleet[a] += 1
            yield fleet


def shares_by_key(problem: PlanningProblem, plan: Plan) -> dict[DeploymentKey, FloatArray]:
    """Share of each type's demand that goes to each deployment, shape (types,)."""
    arrays = plan_arrays(problem, plan)
    return {
        problem.configurations[a].deployment_key: arrays.share[:, a] for a in np.flatnonzero(arrays.replicas).tolist()
    }


def fullness_by_key(problem: PlanningProblem, plan: Plan) -> dict[DeploymentKey, float]:
    """Planned load of each deployment over what its cap allows: 1 where it is as full as the headroom lets it be."""
    arrays = plan_arrays(problem, plan)
    load = (problem.load * arrays.share).sum(axis=0)
    return {
        problem.configurations[a].deployment_key: float(load[a] / problem.cap[a] / arrays.replicas[a])
        for a in np.flatnonzero(arrays.replicas).tolist()
    }
