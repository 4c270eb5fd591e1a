"""`headroom`: planned for worse, routed as it is."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.replay.controller import nominal_problem
from experiments.replay.stress import rerouted
from experiments.scenario.scenario import load_scenario
from policies.checking.plan import check
from policies.checking.random_problem import small_problem
from policies.registry import make_policy
from policies.robust.inflation import inflated
from simulator.errors import InputError
from simulator.planning.plan import plan_arrays
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import CapacityRows


@pytest.fixture(scope="module")
def base():
    return nominal_problem(load_scenario("paper-base"), period_h=24.0)


def planned(name, problem):
    return make_policy(name).plan(problem, incumbent=None, stop=StoppingRule(), seed=0)


def test_it_pays_for_less_under_stress(base):
    """Dearer at nominal than the optimum, with nothing dropped there, and far cheaper at its factor."""
    best, ahead = planned("exact", base), planned("headroom[1.3:exact]", base)
    assert check(base, ahead).accepted
    assert ahead.cost_usd > best.cost_usd
    assert ahead.unmet == ()
    stressed = {p.policy: rerouted(base, plan_arrays(base, p), 1.3, 1.3) for p in (best, ahead)}
    assert stressed["headroom[1.3:exact]"]["cost_usd"] < 0.5 * stressed["exact"]["cost_usd"]
    assert stressed["headroom[1.3:exact]"]["unmet_share"] < 0.001


def test_a_factor_of_one_is_the_policy_itself(base):
    assert planned("headroom[1:exact]", base).cost_usd == pytest.approx(planned("exact", base).cost_usd)


@pytest.mark.parametrize("number", range(9))
def test_inflation_is_the_factor_or_what_a_type_can_bear(number):
    problem = small_problem(3, number)
    worse = inflated(problem, 1.4)
    of_type = (worse.delay_s / problem.delay_s)[:, 0]
    assert worse.delay_s == pytest.approx(problem.delay_s * of_type[:, None])
    assert worse.error == pytest.approx(problem.error * of_type[:, None])
    assert ((of_type >= 1) & (of_type <= 1.4 + 1e-12)).all()
    fits = (worse.delay_s <= problem.delay_slo_s[:, None] * (1 + 1e-9)) & (
        worse.error <= problem.error_slo[:, None] * (1 + 1e-9)
    )
    could = (problem.delay_s <= problem.delay_slo_s[:, None]) & (problem.error <= problem.error_slo[:, None])
    could &= problem.allowed
    assert (fits & problem.allowed).any(axis=1)[could.any(axis=1)].all(), "what could be served still can"
    kv = problem.kv * of_type[:, None] if problem.capacity_rows is CapacityRows.PAPER else problem.kv
    assert worse.kv == pytest.approx(kv)
    assert np.array_equal(problem.delay_s, small_problem(3, number).delay_s), "the problem is not changed"


def test_it_keeps_the_incumbent_that_the_policy_inside_keeps(base):
    policy = make_policy("headroom[1.2:static[gh]]")
    first = policy.plan(base, incumbent=None, stop=StoppingRule(), seed=0)
    assert policy.plan(base, incumbent=first, stop=StoppingRule(), seed=0) is first
    assert policy.name == "headroom[1.2:static[gh]]"
    assert replace(first, policy="x").deployments == first.deployments


@pytest.mark.parametrize("options", ["", "1.3", "x:gh", "0.9:gh", "inf:gh", "1.3:nonsense"])
def test_options_that_are_none(options):
    with pytest.raises(InputError, match=r"headroom|nonsense"):
        make_policy(f"headroom[{options}]")
