"""Re-planning: what it costs to leave the fleet in force, and policies that heed it."""

from dataclasses import replace

import numpy as np
import pytest

from policies.checking.plan import check
from policies.checking.random_problem import random_problem as problem
from policies.heuristics.moving import Moving
from policies.registry import make_policy
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import MovingTerms

every = pytest.mark.parametrize("policy", ["gh", "agh", "agh+"])


@pytest.fixture(scope="module")
def hard():
    return problem(types=10, models=6, tiers=6, seed=7)


def planned(made, policy, *, incumbent=None):
    plan = make_policy(policy).plan(made, incumbent=incumbent, stop=StoppingRule(), seed=0)
    assert check(made, plan).accepted
    return plan


def fleet(plan):
    return {d.configuration: d.replicas for d in plan.deployments}


def drifted(made, factor):
    """The same problem with more or less demand."""
    query_types = tuple(replace(q, arrival_per_h=q.arrival_per_h * factor) for q in made.query_types)
    return replace(made, query_types=query_types, load=made.load * factor, kv=made.kv * factor)


def priced(made, share):
    """Moving a replica, up or down, costs a share of its rent."""
    terms = MovingTerms(provisioning_s=share * made.period_h * 3600, load_gb_per_s=np.inf, drain_s=0.0)
    return replace(made, moving=terms)


@every
def test_a_small_change_of_demand_does_not_turn_the_fleet_over(hard, policy):
    first = planned(hard, policy)
    for factor in (0.97, 1.03):
        stays = planned(priced(drifted(hard, factor), 1.0), policy, incumbent=first)
        assert fleet(stays) == fleet(first)
        assert stays.bound_usd is None, "a bound on cost and moving is none on the cost"


@every
def test_a_large_change_moves_it_all_the_same(hard, policy):
    first = planned(hard, policy)
    moved = planned(priced(drifted(hard, 4.0), 0.1), policy, incumbent=first)
    assert fleet(moved) != fleet(first)


@every
def test_a_price_of_nothing_changes_nothing(hard, policy):
    first = planned(hard, policy)
    later = drifted(hard, 0.7)
    terms = MovingTerms(provisioning_s=600.0, load_gb_per_s=1.0, drain_s=60.0, weight=0.0)
    careless = planned(replace(later, moving=terms), policy, incumbent=first)
    assert careless.cost_usd <= planned(later, policy).cost_usd * (1 + 1e-9)


@every
def test_a_fleet_of_another_catalog_is_left_behind(hard, policy):
    first = planned(hard, policy)
    strange = [replace(d, configuration=replace(d.configuration, model="unheard-of")) for d in first.deployments]
    plan = planned(priced(hard, 0.1), policy, incumbent=replace(first, deployments=tuple(strange)))
    assert plan.cost_usd == pytest.approx(first.cost_usd, rel=0.3)


@every
def test_what_is_minimised_is_cost_and_moving(hard, policy):
    """Against plans made without a look at the fleet in force: the sum is hardly ever higher, and lower on the whole.

    (A greedy order may take a turn for the worse; a local search only from another start.)
    """
    first, sums = planned(hard, policy), []
    for factor in (0.6, 1.2, 1.5):
        for share in (0.05, 0.5):
            later = priced(drifted(hard, factor), share)
            moving = Moving.of(later, first)

            def total_usd(plan, later=later, moving=moving):
                replicas = np.zeros(len(later.configurations), dtype=np.int64)
                for d in plan.deployments:
                    replicas[later.configuration_index[d.configuration]] = d.replicas
                return plan.cost_usd + moving.cost_usd(replicas)

            careful, careless = planned(later, policy, incumbent=first), planned(later, policy)
            sums.append((total_usd(careful), total_usd(careless)))
            assert policy != "agh+" or sums[-1][0] <= sums[-1][1] * (1 + 1e-6)
    assert sum(careful for careful, _ in sums) <= sum(careless for _, careless in sums)


def test_the_price_of_moving_by_hand(hard):
    """A minute of provisioning, weights at 2 GB/s, half a minute to drain."""
    first = planned(hard, "agh")
    priced_problem = replace(hard, moving=MovingTerms(provisioning_s=60.0, load_gb_per_s=2.0, drain_s=30.0))
    moving = Moving.of(priced_problem, first)
    same = moving.in_force
    assert moving.cost_usd(same) == pytest.approx(0)
    a = int(np.flatnonzero(same)[0])
    startup_s = 60.0 + hard.model_storage_gb[a] / 2.0
    usd_per_s = hard.rent_usd[a] / 24 / 3600
    more, fewer = same.copy(), same.copy()
    more[a] += 2
    fewer[a] -= 1
    assert moving.cost_usd(more) == pytest.approx(2 * usd_per_s * startup_s)
    assert moving.cost_usd(fewer) == pytest.approx(usd_per_s * (startup_s + 30.0))
    assert moving.cost_usd(np.zeros_like(same)) == pytest.approx(moving.leaving_usd)
    assert Moving.of(priced_problem, None).cost_usd(more) == 0, "a first plan moves from nowhere"
    assert Moving.of(hard, first).free


def test_another_operating_point_of_the_same_hardware_is_no_move():
    base = problem(types=3, models=1, tiers=1)
    points = [replace(base.configurations[0], tpot_target_s=target_s) for target_s in (0.02, 0.05)]
    two = replace(
        base,
        configurations=tuple(points),
        **{name: getattr(base, name)[..., [0, 0]] for name in ("delay_s", "error", "load", "kv", "cap", "allowed")},
        moving=MovingTerms(provisioning_s=60.0, load_gb_per_s=2.0, drain_s=30.0),
    )
    plan = planned(two, "agh+")
    moving = Moving.of(two, plan)
    assert moving.in_force[0] == moving.in_force[1] == plan.deployments[0].replicas
    for which in (0, 1):
        replicas = np.zeros(2, dtype=np.int64)
        replicas[which] = plan.deployments[0].replicas
        assert moving.cost_usd(replicas) == pytest.approx(0)
