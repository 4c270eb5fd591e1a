"""The bound on a fleet never exceeds what its best routing costs, and comes close where capacity is all that binds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checking.random_problem import random_problem
from policies.heuristics.fleet_bound import NONE, FleetBound, as_table
from policies.heuristics.routing import route_deployments
from tests.property.test_planners_exhaustive import problems

FAR_USD = 1e6


def bound_of(problem, deployed, replicas, **options):
    fixed_usd = problem.rent_usd[deployed] * replicas + problem.model_storage_usd[deployed]
    fleet = as_table([range(len(deployed))])
    return float(FleetBound(problem)(fleet, deployed, replicas, fixed_usd, **{"cutoff_usd": FAR_USD} | options)[0])


@settings(max_examples=150, deadline=None)
@given(problem=problems(), data=st.data())
def test_no_routing_costs_less(problem, data):
    """On tiny problems that meet limits exactly, with any fleet and towards any cutoff."""
    every = range(len(problem.configurations))
    deployed = np.array(data.draw(st.lists(st.sampled_from(every), unique=True, max_size=3)), dtype=np.int64)
    replicas = np.array(data.draw(st.lists(st.integers(1, 2), min_size=len(deployed), max_size=len(deployed))))
    routing = route_deployments(problem, deployed, replicas.astype(np.int64))
    for cutoff_usd in (0.1, 10.0, FAR_USD):
        for steps in (1, 12, 60):
            bound_usd = bound_of(problem, deployed, replicas, cutoff_usd=cutoff_usd, steps=steps)
            assert not np.isnan(bound_usd)
            if routing is not None:
                assert bound_usd <= routing.cost_usd * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_it_is_close_where_capacity_is_all_that_binds(seed):
    """Generous delay and error limits leave the capacities, which the multipliers price."""
    problem = random_problem(types=8, models=4, tiers=4, seed=seed)
    free = [replace(q, delay_slo_s=1e3, error_slo=1.0) for q in problem.query_types]
    problem = replace(problem, query_types=tuple(free), budget_usd=np.inf, storage_capacity_gb=np.inf)
    draw = np.random.default_rng(seed)
    gaps = []
    for _ in range(40):
        pairs = draw.choice(problem.pair_index.max() + 1, size=3, replace=False)
        deployed = np.array([draw.choice(np.flatnonzero(problem.pair_index == pair)) for pair in pairs])
        replicas = draw.integers(1, 3, size=3)
        cost_usd = route_deployments(problem, deployed, replicas).cost_usd
        bound_usd = bound_of(problem, deployed, replicas, cutoff_usd=1.2 * cost_usd, steps=300)
        assert bound_usd <= cost_usd * (1 + 1e-9)
        gaps.append(1 - bound_usd / cost_usd)
    assert np.median(gaps) < 0.01
    assert bound_of(problem, deployed, replicas, cutoff_usd=1.2 * cost_usd, steps=1) <= cost_usd * (1 + 1e-9)


def test_a_mixture_is_priced_exactly():
    """One type on two deployments, one too slow: the most that keeps the mean delay goes to the cheap slow one."""
    problem = random_problem(types=1, models=2, tiers=1, seed=0)
    size = problem.delay_s.shape
    problem = replace(
        problem,
        delay_s=np.broadcast_to(np.where(problem.pair_index == 0, 1.0, 5.0), size),
        error=np.zeros(size),
        load=np.zeros(size),
        kv=np.zeros(size),
        query_types=tuple(
            replace(q, delay_slo_s=2.0, delay_penalty_usd_per_query_s=0.0, token_storage_gb_per_token=0.0)
            for q in problem.query_types
        ),
    )
    deployed = np.array([np.flatnonzero(problem.pair_index == pair)[0] for pair in (0, 1)])
    one = np.ones(2, dtype=np.int64)
    assert bound_of(problem, deployed, one) == pytest.approx(route_deployments(problem, deployed, one).cost_usd)
    slow = bound_of(problem, deployed[1:], one[1:])
    assert slow == pytest.approx(route_deployments(problem, deployed[1:], one[1:]).cost_usd)
    assert slow > bound_of(problem, deployed[1:], one[1:], steps=1) - 1e-9


def test_fleets_of_different_sizes_share_a_table():
    problem = random_problem(types=4, models=3, tiers=3, seed=3)
    deployed, replicas = np.arange(4), np.array([1, 2, 1, 3])
    fixed_usd = problem.rent_usd[deployed] * replicas
    fleets = [(), (2,), (0, 3), (1, 2, 3)]
    table = as_table(fleets)
    assert table.shape == (4, 3)
    assert (table[0] == NONE).all()
    bound = FleetBound(problem)
    together = bound(table, deployed, replicas, fixed_usd, cutoff_usd=FAR_USD)
    alone = [bound(as_table([f]), deployed, replicas, fixed_usd, cutoff_usd=FAR_USD)[0] for f in fleets]
    assert together == pytest.approx(alone)
    assert together[0] == pytest.approx(problem.unmet_usd.sum())
    assert as_table([]).shape == (0, 0)
    assert len(bound(as_table([]), deployed, replicas, fixed_usd, cutoff_usd=FAR_USD)) == 0
