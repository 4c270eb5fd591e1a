"""Any problem: the baselines keep every constraint, repeat, change nothing, and never beat the optimum."""

import copy
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checking.plan import check
from policies.checking.random_problem import random_problem as made_problem
from policies.heuristics.dvr import Dvr
from policies.heuristics.hf import Hf
from policies.heuristics.lpr import Lpr, _relaxation
from policies.registry import make_policy
from simulator.errors import InfeasibleError
from simulator.planning.policy import StoppingRule
from tests.property.test_planners_exhaustive import problems as tiny_problems

BASELINES = (Lpr(), Dvr(), Hf())
STOP = StoppingRule(starts=2, iterations=40)


@st.composite
def random_problems(draw):
    """Up to 6 types over some twenty configurations, the shared limits tight now and then."""
    made = made_problem(
        types=draw(st.integers(2, 6)),
        models=draw(st.integers(2, 4)),
        tiers=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 10**6)),
        budget_usd=draw(st.sampled_from([20.0, 60.0, 1000.0])),
        storage_capacity_gb=draw(st.sampled_from([20.0, 2000.0])),
        max_replicas=draw(st.sampled_from([1, 6])),
    )
    caps = draw(st.sampled_from([(1.0,), (1.0, 0.3), (0.1,), (0.0,)]))
    types = [replace(q, unmet_cap=caps[i % len(caps)]) for i, q in enumerate(made.query_types)]
    return replace(made, query_types=tuple(types))


def attempt(policy, problem):
    try:
        return policy.plan(problem, incumbent=None, stop=STOP, seed=3)
    except InfeasibleError as error:
        return error.problems


def judge(problem):
    snapshot = {field.name: copy.deepcopy(getattr(problem, field.name)) for field in fields(problem)}
    plans = []
    for policy in BASELINES:
        plan = attempt(policy, problem)
        if isinstance(plan, tuple):
            assert min(q.unmet_cap for q in problem.query_types) < 1, "with caps of one, to serve nothing is a plan"
            assert problem.name in plan[0]
            assert attempt(policy, problem) == plan
            continue
        report = check(problem, plan)
        assert report.accepted, (policy.name, report.violations)
        assert replace(attempt(policy, problem), seconds=None) == replace(plan, seconds=None)
        plans.append(plan)
    for name, value in snapshot.items():
        assert np.array_equal(getattr(problem, name), value), name
    if plans:
        optimum_usd = make_policy("exact").plan(problem, incumbent=None, stop=StoppingRule(), seed=0).cost_usd
        for plan in plans:
            assert plan.cost_usd >= optimum_usd * (1 - 2e-6) - 1e-6, plan.policy


@settings(max_examples=40, deadline=None)
@given(random_problems())
def test_plans_of_random_problems_keep_every_constraint(problem):
    judge(problem)


@settings(max_examples=40, deadline=None)
@given(tiny_problems())
def test_plans_of_tiny_problems_keep_every_constraint(problem):
    judge(problem)


@settings(max_examples=40, deadline=None)
@given(random_problems(), st.integers(1, 3))
def test_the_relaxation_does_not_depend_on_how_many_configurations_enter_at_a_time(problem, entering):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policies.heuristics.lpr.ENTERING", entering)
        few = relaxed_usd(problem)
        patch.setattr("policies.heuristics.lpr.ENTERING", 10**6)
        patch.setattr("policies.heuristics.lpr.GAIN", -np.inf)
        assert few == pytest.approx(relaxed_usd(problem), rel=1e-6, abs=1e-6)


def relaxed_usd(problem):
    """Optimal value of the relaxation, infinite if there is none."""
    try:
        relaxed = _relaxation(problem, None)
    except InfeasibleError:
        return np.inf
    return relaxed.cost_usd
