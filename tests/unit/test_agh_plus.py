"""`agh+`: anytime, deterministic by effort, and reluctant to leave the fleet in force."""

import json
from dataclasses import replace

import numpy as np
import pytest

from policies.checker import check
from policies.moving import Moving
from policies.registry import make_policy
from simulator.errors import InfeasibleError
from simulator.files import plan_to_dict
from simulator.plan import PlanStatus
from simulator.policy import StoppingRule
from simulator.problem import MovingTerms
from tests.random_problem import random_problem as problem


def planned(made, *, incumbent=None, **stop):
    plan = make_policy("agh+").plan(made, incumbent=incumbent, stop=StoppingRule(**stop), seed=0)
    assert check(made, plan).accepted
    return plan


def without_time(plan):
    return json.dumps({**plan_to_dict(plan), "seconds": None})


def fleet(plan):
    return {d.configuration.key: d.replicas for d in plan.deployments}


@pytest.fixture(scope="module")
def hard():
    return problem(types=10, models=6, tiers=6, seed=7)


@pytest.fixture(scope="module")
def optimum(hard):
    return make_policy("exact").plan(hard, incumbent=None, stop=StoppingRule(), seed=0).cost_usd


@pytest.mark.parametrize("effort", [1, 30, 300])
def test_effort_decides_and_the_machine_does_not(hard, effort):
    assert without_time(planned(hard, effort=effort)) == without_time(planned(hard, effort=effort))


def test_more_effort_is_never_worse_and_ends_at_the_optimum(hard, optimum):
    costs = [planned(hard, effort=effort).cost_usd for effort in (1, 100, 1000, 5000)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(optimum, rel=2e-6)


def test_it_beats_agh(hard):
    agh = make_policy("agh").plan(hard, incumbent=None, stop=StoppingRule(), seed=0)
    assert planned(hard).cost_usd <= agh.cost_usd * (1 + 1e-9)


def test_it_says_how_far_it_can_be_from_the_best(hard, optimum):
    plan = planned(hard, effort=50)
    assert plan.bound_usd <= optimum * (1 + 1e-6)
    assert plan.status is PlanStatus.FEASIBLE
    assert 0 < plan.gap < 1


def test_no_time_is_enough_for_a_plan(hard):
    plan = planned(hard, time_limit_s=1e-6)
    assert plan.status is PlanStatus.TIME_LIMIT


def test_an_infeasible_problem_is_told():
    made = problem(types=3, models=2, tiers=2)
    capped = replace(made, budget_usd=1.0, query_types=tuple(replace(q, unmet_cap=0.0) for q in made.query_types))
    with pytest.raises(InfeasibleError, match="budget of 1 USD"):
        planned(capped)


# -- moving ---------------------------------------------------------------------------------------------------------


def drifted(made, factor):
    """The same problem with more or less demand."""
    query_types = tuple(replace(q, arrival_per_h=q.arrival_per_h * factor) for q in made.query_types)
    return replace(made, query_types=query_types, load=made.load * factor, kv=made.kv * factor)


def priced(made, share):
    """Moving a replica, up or down, costs a share of its rent."""
    terms = MovingTerms(provisioning_s=share * made.period_h * 3600, load_gb_per_s=np.inf, drain_s=0.0)
    return replace(made, moving=terms)


def test_a_small_change_of_demand_does_not_turn_the_fleet_over(hard):
    first = planned(hard)
    for factor in (0.97, 1.03):
        stays = planned(priced(drifted(hard, factor), 1.0), incumbent=first)
        assert fleet(stays) == fleet(first)
        assert stays.bound_usd is None, "a bound on cost and moving is none on the cost"


def test_a_large_change_moves_it_all_the_same(hard):
    first = planned(hard)
    moved = planned(priced(drifted(hard, 2.5), 0.1), incumbent=first)
    assert fleet(moved) != fleet(first)


def test_what_is_minimised_is_cost_and_moving(hard):
    """Against plans made without a look at the fleet in force: the sum is never higher."""
    first = planned(hard)
    for factor in (0.6, 1.2, 1.5):
        for share in (0.05, 0.5):
            later = priced(drifted(hard, factor), share)
            moving = Moving.of(later, first)

            def total_usd(plan, later=later, moving=moving):
                replicas = np.zeros(len(later.configurations), dtype=np.int64)
                for d in plan.deployments:
                    replicas[later.configuration_index[d.configuration.key]] = d.replicas
                return plan.cost_usd + moving.cost_usd(replicas)

            careful, careless = planned(later, incumbent=first), planned(later)
            assert total_usd(careful) <= total_usd(careless) * (1 + 1e-6)


def test_the_price_of_moving_by_hand(hard):
    """A minute of provisioning, weights at 2 GB/s, half a minute to drain."""
    first = planned(hard)
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
    plan = planned(two)
    moving = Moving.of(two, plan)
    assert moving.in_force[0] == moving.in_force[1] == plan.deployments[0].replicas
    for which in (0, 1):
        replicas = np.zeros(2, dtype=np.int64)
        replicas[which] = plan.deployments[0].replicas
        assert moving.cost_usd(replicas) == pytest.approx(0)
