"""Conflicts of tiny random problems against the truth: all placements, each routed by an LP of its own."""

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import Phase, assume, event, given, settings
from test_planners_exhaustive import problems, routed_cost_usd

from policies.heuristics.conflict.feasibility import is_feasible
from policies.heuristics.conflict.limits import limits_of
from policies.heuristics.conflict.search import smallest_conflict

SECONDS = 60.0
MOST_PLACEMENTS = 2000
AMPLE = {"budget_usd": 1e5, "storage_capacity_gb": 1e5, "delay_slo_s": 1e3, "error_slo": 1e3}  # in place of infinity


def finite(thing, *names):
    """With ample limits in place of infinite ones, which `linprog` refuses."""
    return replace(thing, **{name: min(getattr(thing, name), AMPLE[name]) for name in names})


def useful_replicas(problem):
    """Per configuration: with so many replicas, one takes the whole demand of all types."""
    load, kv = (np.where(problem.allowed, array, 0.0).sum(axis=0) for array in (problem.load, problem.kv))
    return np.maximum(1, np.ceil(np.maximum(load / problem.cap, kv) - 1e-9)).astype(int)


def has_plan(problem):
    choices = []
    for a, useful in enumerate(useful_replicas(problem)):
        most = min(int(useful), problem.max_replicas)
        if np.isfinite(problem.budget_usd):
            most = min(most, int(problem.budget_usd / problem.rent_usd[a] + 1e-6))
            choices.append(range(most + 1))
        else:
            choices.append((0, most))  # where money plays no part, more replicas never do harm
    assume(np.prod([len(choice) for choice in choices]) <= MOST_PLACEMENTS)
    problem = finite(problem, "budget_usd", "storage_capacity_gb")
    problem = replace(problem, query_types=tuple(finite(q, "delay_slo_s", "error_slo") for q in problem.query_types))
    pairs = [configuration.pair for configuration in problem.configurations]
    for replicas in map(np.array, itertools.product(*choices)):
        deployed = [pair for pair, count in zip(pairs, replicas, strict=True) if count]
        if len(set(deployed)) < len(deployed) or problem.rent_usd @ replicas > problem.budget_usd + 1e-6:
            continue
        if routed_cost_usd(problem, replicas) is not None:
            return True
    return False


def keeping_only(problem, limits):
    for limit in set(limits_of(problem)) - set(limits):
        problem = limit.lifted(problem)
    return problem


@settings(max_examples=60, deadline=None, phases=set(Phase) - {Phase.shrink})  # tiny already, and each takes a while
@given(problem=problems())
def test_a_conflict_conflicts_and_each_of_its_limits_is_needed(problem):
    expected = has_plan(problem)
    assert is_feasible(problem, SECONDS) is expected
    event("a plan" if expected else "no plan")
    if expected:
        return
    conflict = smallest_conflict(problem, is_feasible, time_limit_s=SECONDS)
    event(f"{len(conflict.limits)} limits")
    assert conflict.limits
    assert conflict.irreducible
    assert conflict.smallest
    assert not has_plan(keeping_only(problem, conflict.limits))
    for limit in conflict.limits:
        assert has_plan(keeping_only(problem, set(conflict.limits) - {limit})), limit
        assert has_plan(limit.lifted(problem)) is (limit in conflict.enough_alone), limit
    assert conflict.message(problem).startswith("problem tiny is infeasible: ")
