"""`agh+`: anytime, and deterministic by effort."""

import json
from dataclasses import replace

import pytest

from policies.checking.plan import check
from policies.checking.random_problem import random_problem as problem
from policies.registry import make_policy
from simulator.errors import InfeasibleError
from simulator.planning.files import plan_to_dict
from simulator.planning.plan import PlanStatus
from simulator.planning.policy import StoppingRule


def planned(made, *, incumbent=None, **stop):
    plan = make_policy("agh+").plan(made, incumbent=incumbent, stop=StoppingRule(**stop), seed=0)
    assert check(made, plan).accepted
    return plan


def without_time(plan):
    return json.dumps({**plan_to_dict(plan), "seconds": None})


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
