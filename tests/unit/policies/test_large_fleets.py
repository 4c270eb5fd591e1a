"""Fleets of many replicas: rounded from the relaxation, and no policy ends above one that it contains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.checking.plan import check
from policies.checking.random_problem import random_problem, with_demand
from policies.heuristics.adaptive import _steps_down
from policies.registry import make_policy
from simulator.planning.files import read_problem
from simulator.planning.policy import StoppingRule

FIELD = Path(__file__).parents[2] / "data" / "field"


def cost_usd(policy, problem, **stop):
    plan = make_policy(policy).plan(problem, incumbent=None, stop=StoppingRule(**stop), seed=0)
    assert check(problem, plan).accepted
    return plan.cost_usd


@pytest.mark.parametrize(("name", "optimum_usd"), [("fleet_x30_0", 1408.79), ("fleet_x1000_0", 46154.0)])
def test_agh_is_within_five_percent_and_agh_plus_within_half_a_percent(name, optimum_usd):
    problem = read_problem(FIELD / f"{name}.json")
    assert cost_usd("agh", problem) <= 1.05 * optimum_usd
    assert cost_usd("agh+", problem, effort=50) <= 1.005 * optimum_usd


@pytest.mark.parametrize(("seed", "factor"), [(1, 300), (2, 300), (3, 300)])
def test_none_ends_above_one_that_it_contains(seed, factor):
    few = random_problem(
        types=3, models=3, tiers=3, seed=seed, max_replicas=300, budget_usd=1e7, storage_capacity_gb=1e6
    )
    problem = with_demand(few, np.full(3, float(factor)))
    bound_usd = make_policy("milp").plan(problem, incumbent=None, stop=StoppingRule(max_nodes=500), seed=0).bound_usd
    agh_usd = cost_usd("agh", problem)
    assert agh_usd <= 1.05 * bound_usd
    assert cost_usd("agh+", problem, effort=50) <= agh_usd * (1 + 1e-9)
    assert agh_usd <= cost_usd("agh", replace(problem), starts=1) * (1 + 1e-9), "more starts are never worse"


def test_large_deployments_shrink_in_steps_of_any_size():
    assert [_steps_down(count) for count in (1, 2, 7, 8, 16, 100)] == [[], [1], [1], [1], [2, 1], [8, 4, 2, 1]]
