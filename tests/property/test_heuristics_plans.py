"""Any tiny problem: heuristic plans keep every constraint, repeat, change nothing, and never beat the optimum."""

import copy
from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from policies.heuristics.adaptive import Agh
from policies.heuristics.greedy import Gh
from policies.heuristics.placement import Placement
from policies.heuristics.routing import route, route_deployments
from simulator.errors import InfeasibleError
from simulator.planning.plan import plan_arrays, plan_cost_usd
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import CapacityRows
from tests.unit.policies.test_heuristics_bench import broken, query, tiny

CONFIGURATIONS = [("big", "a", 1), ("big", "a", 2), ("small", "a", 1), ("small", "b", 1), ("small", "b", 4)]
STOP = StoppingRule(starts=3, iterations=40)


@st.composite
def problems(draw, *, may_be_dropped=None):
    """Two or three types over five configurations of three pairs, every limit tight now and then.

    `may_be_dropped`: whether all demand may stay unmet; by default either.
    """
    size = (draw(st.integers(2, 3)), len(CONFIGURATIONS))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dropped = draw(st.booleans()) if may_be_dropped is None else may_be_dropped
    types = [
        query(
            f"q{i}",
            arrival_per_h=random.uniform(10, 100),
            delay_slo_s=random.choice([0.4, 0.8, 1.5]),
            error_slo=random.choice([0.05, 0.1, 0.2]),
            unmet_cap=1.0 if dropped else random.choice([0.0, 0.3, 1.0]),
            delay_penalty_usd_per_query_s=random.choice([0.0, 0.1]),
            unmet_penalty_usd_per_query=random.choice([0.0, 0.2, 2.0]),
            token_storage_gb_per_token=random.choice([0.0, 0.1]),
        )
        for i in range(size[0])
    ]
    speed = np.array([1.0, 2.0, 1.0, 1.0, 4.0])
    return tiny(
        CONFIGURATIONS,
        types,
        prices={"a": random.uniform(2, 9), "b": random.uniform(2, 9)},
        delay_s=random.uniform(0.1, 1.6, size) / speed,
        error=random.uniform(0.0, 0.2, size),
        load=random.uniform(0.1, 1.2, size) / speed,
        kv=random.uniform(0.0, 0.8, size),
        allowed=random.random(size) < 0.9,
        cap=random.choice([0.8, 1.0]),
        weights_gb=random.choice([0.0, 5.0]),
        budget_usd=random.choice([10.0, 25.0, 200.0]),
        storage_gb=random.choice([12.0, 500.0]),
        storage_price=random.choice([0.0, 0.1]),
        max_replicas=2,
        rows=random.choice(list(CapacityRows)),
    )


def snapshot(problem):
    return copy.deepcopy({field.name: getattr(problem, field.name) for field in fields(problem)})


def attempt(policy, problem):
    try:
        return policy.plan(problem, incumbent=None, stop=STOP, seed=3)
    except InfeasibleError as error:
        return str(error)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from([Gh(), Agh(), Gh(m1=False), Gh(m2=False, m3=False), Agh(m1=False, local=False)]))
def test_plans_keep_every_constraint_and_repeat(problem, policy):
    before = snapshot(problem)
    first, second = attempt(policy, problem), attempt(policy, problem)
    for name, value in before.items():
        assert np.array_equal(getattr(problem, name), value), name
    if isinstance(first, str):
        assert first == second
        return
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    arrays = plan_arrays(problem, first)
    assert not broken(problem, arrays)
    assert first.cost_usd == pytest.approx(sum(plan_cost_usd(problem, arrays).values()))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_agh_costs_no_more_than_gh(problem):
    gh, agh = attempt(Gh(), problem), attempt(Agh(), problem)
    if not isinstance(gh, str):
        assert agh.cost_usd <= gh.cost_usd + 1e-6


@settings(max_examples=40, deadline=None)
@given(problems(may_be_dropped=True))
def test_there_is_always_a_plan_where_all_demand_may_be_dropped(problem):
    for policy in (Gh(), Agh()):
        assert not isinstance(attempt(policy, problem), str)


@settings(max_examples=12, deadline=None)
@given(problems())
def test_agh_never_beats_the_optimum_over_all_placements(problem):
    costs = []
    for big, small_a, small_b in product(range(5), range(3), range(5)):
        replicas = np.array([big % 3, max(big - 2, 0), small_a, small_b % 3, max(small_b - 2, 0)])
        replicas[[0, 3]] *= np.array([big < 3, small_b < 3])
        arrays = route(problem, replicas)
        if arrays is not None:
            costs.append(sum(plan_cost_usd(problem, arrays).values()))
    agh = attempt(Agh(), problem)
    if isinstance(agh, str):
        return
    assert costs, "agh has a plan where no placement can be routed"
    assert agh.cost_usd >= min(costs) - 1e-6


@settings(max_examples=60, deadline=None)
@given(problems(), st.lists(st.integers(0, 2), min_size=3, max_size=3))
def test_the_cost_floor_is_below_every_routing(problem, replicas):
    one_of_each_pair = np.array([1, 2, 4])
    deployed = one_of_each_pair[np.array(replicas) > 0]
    count = np.array(replicas)[np.array(replicas) > 0]
    routing = route_deployments(problem, deployed, count, excess_usd=0.0)
    if routing is not None:
        floor_usd = Placement.empty(problem).with_fleet(deployed, count, routing.share).cost_floor_usd()
        assert floor_usd <= routing.cost_usd + 1e-6


@settings(max_examples=60, deadline=None)
@given(problems(), st.lists(st.integers(0, 2), min_size=5, max_size=5), st.floats(0.8, 1.5), st.floats(0.8, 1.5))
def test_routing_agrees_with_another_solver(problem, replicas, delay_factor, error_factor):
    replicas = np.array(replicas)
    ours = route(problem, replicas, delay_factor=delay_factor, error_factor=error_factor)
    kv_factor = delay_factor if problem.capacity_rows is CapacityRows.PAPER else 1.0
    theirs = reference(problem, replicas, delay_factor, error_factor, kv_factor)
    if theirs is None:
        assert ours is None
        return
    parts = plan_cost_usd(problem, ours)
    parts["delay_penalty"] *= delay_factor
    assert sum(parts.values()) == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    wide = replace(problem, max_replicas=2)
    complaints = broken(wide, ours, delay_factor=delay_factor, error_factor=error_factor, kv_factor=kv_factor)
    assert [text for text in complaints if "of a pair" not in text] == []


def reference(problem, replicas, delay_factor, error_factor, kv_factor):
    """Least cost of the routing by SciPy, from the constraints one by one; None if there is none."""
    types, configurations = problem.delay_s.shape
    rows, limits = [], []

    def at_most(limit, use):
        row = np.zeros((types, configurations + 1))
        for (i, a), value in use.items():
            row[i, a] = value
        rows.append(row.ravel())
        limits.append(limit)

    every = list(product(range(types), range(configurations)))
    for i in range(types):
        at_most(problem.delay_slo_s[i], {(i, a): delay_factor * problem.delay_s[i, a] for a in range(configurations)})
        at_most(problem.error_slo[i], {(i, a): error_factor * problem.error[i, a] for a in range(configurations)})
    for a in range(configurations):
        at_most(problem.cap[a] * replicas[a], {(i, a): problem.load[i, a] for i in range(types)})
        at_most(replicas[a], {(i, a): kv_factor * problem.kv[i, a] for i in range(types)})
    deployed = replicas > 0
    fixed_usd = problem.rent_usd @ replicas + problem.model_storage_usd @ deployed
    fixed_gb = problem.model_storage_gb @ deployed
    at_most(problem.storage_capacity_gb - fixed_gb, {(i, a): problem.token_storage_gb[i] for i, a in every})
    at_most(problem.budget_usd - fixed_usd, {(i, a): problem.token_storage_usd[i] for i, a in every})
    cost_usd = np.column_stack(
        [delay_factor * problem.delay_penalty_usd + problem.token_storage_usd[:, None], problem.unmet_usd]
    )
    upper = np.column_stack([problem.allowed & deployed, problem.unmet_cap]).ravel()
    demand = np.kron(np.eye(types), np.ones(configurations + 1))
    bounds = list(zip(np.zeros(len(upper)), upper, strict=True))
    result = linprog(cost_usd.ravel(), A_ub=rows, b_ub=limits, A_eq=demand, b_eq=np.ones(types), bounds=bounds)
    return fixed_usd + result.fun if result.status == 0 else None
