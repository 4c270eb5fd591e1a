"""No unit matters: in other units a problem has the same fleet, costs and bounds that scale, and the same verdict.

Money counted in billionths, seconds in years, gigabytes in bytes, errors in parts per billion: every number of a
problem then has another size, and what is to be rented has not.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checking.plan import check
from policies.checking.random_problem import random_problem, small_problem, with_types
from policies.registry import make_policy
from simulator.errors import InfeasibleError
from simulator.planning.policy import StoppingRule
from tests.exploring import examples

POLICIES = ("gh", "agh", "agh+", "exact", "milp", "lpr", "dvr", "hf", "headroom[1.3:agh]", "robust[box=1.3:gh]")
STOP = StoppingRule(effort=300, max_nodes=500)
POWERS = st.integers(-9, 9)


def in_units(problem, *, usd=1.0, s=1.0, gb=1.0, error=1.0):
    """The problem with one old unit of money, time, storage and error being so many new ones."""
    types = tuple(
        replace(
            q,
            arrival_per_h=q.arrival_per_h / s,
            delay_slo_s=q.delay_slo_s * s,
            error_slo=q.error_slo * error,
            delay_penalty_usd_per_query_s=q.delay_penalty_usd_per_query_s * usd / s,
            unmet_penalty_usd_per_query=q.unmet_penalty_usd_per_query * usd,
            token_storage_gb_per_token=q.token_storage_gb_per_token * gb * s,
        )
        for q in problem.query_types
    )
    return replace(
        problem,
        query_types=types,
        tiers=tuple(replace(t, price_usd_per_gpu_h=t.price_usd_per_gpu_h * usd / s, memory_gb=t.memory_gb * gb,
                            compute_tflops=t.compute_tflops / s) for t in problem.tiers),
        models=tuple(replace(m, weights_gb=m.weights_gb * gb, kv_mb_per_token=m.kv_mb_per_token * gb)
                     for m in problem.models),
        period_h=problem.period_h * s,
        budget_usd=problem.budget_usd * usd,
        storage_price_usd_per_gb_h=problem.storage_price_usd_per_gb_h * usd / gb / s,
        storage_capacity_gb=problem.storage_capacity_gb * gb,
        delay_s=problem.delay_s * s,
        error=problem.error * error,
    )  # fmt: skip


def outcome(policy, problem):
    """A plan, or the class of what is said instead."""
    try:
        return make_policy(policy).plan(problem, incumbent=None, stop=STOP, seed=0)
    except InfeasibleError:
        return InfeasibleError


def assert_same(policy, problem, **units):
    here, there = outcome(policy, problem), outcome(policy, in_units(problem, **units))
    assert (here is InfeasibleError) == (there is InfeasibleError), policy
    if here is InfeasibleError:
        return
    usd = units.get("usd", 1.0)
    assert there.cost_usd == pytest.approx(here.cost_usd * usd, rel=2e-6, abs=0)
    assert there.deployments == here.deployments or there.cost_usd == pytest.approx(
        here.cost_usd * usd, rel=1e-9, abs=0
    )
    assert (there.bound_usd is None) == (here.bound_usd is None)
    if here.bound_usd is not None:
        assert there.bound_usd == pytest.approx(here.bound_usd * usd, rel=1e-5, abs=0)
    assert check(in_units(problem, **units), there).accepted


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=examples(12), deadline=None)
@given(number=st.integers(0, 200), usd=POWERS, s=POWERS, gb=POWERS, error=POWERS)
def test_every_policy_makes_the_same_plan(policy, number, usd, s, gb, error):
    assert_same(policy, small_problem(3, number), usd=10.0**usd, s=10.0**s, gb=10.0**gb, error=10.0**error)


@pytest.mark.parametrize("policy", ["agh", "agh+", "milp", "exact"])
@pytest.mark.parametrize("units", [{"usd": 1e-9}, {"usd": 1e-6}, {"usd": 1e9}, {"s": 365.0}, {"error": 1e-9}])
def test_a_larger_problem(policy, units):
    assert_same(policy, random_problem(types=4, models=4, tiers=3, seed=5), **units)


@settings(max_examples=examples(40), deadline=None)
@given(
    number=st.integers(0, 200), off=st.sampled_from([0.0, 1e-8, 1e-5, 1e-2]), usd=POWERS, s=POWERS, gb=POWERS, e=POWERS
)
def test_the_checker_gives_the_same_verdict(number, off, usd, s, gb, e):
    """On plans that keep limits which are then made tighter by a little, more or less than the tolerance."""
    problem = small_problem(3, number)
    plan = outcome("gh", problem)
    if plan is InfeasibleError:
        return
    arrays = {(r.query_type, r.model, r.tier): r.share for r in plan.routing}
    column = {d.configuration.pair: problem.configuration_index[d.configuration] for d in plan.deployments}
    errors = [
        sum(problem.error[i, column[m, t]] * share for (name, m, t), share in arrays.items() if name == q.name)
        for i, q in enumerate(problem.query_types)
    ]
    tight = replace(
        problem,
        query_types=tuple(
            replace(q, error_slo=float(e) * (1 - off) if e > 0 else q.error_slo)
            for q, e in zip(problem.query_types, errors, strict=True)
        ),
    )
    units = {"usd": 10.0**usd, "s": 10.0**s, "gb": 10.0**gb, "error": 10.0**e}
    moved = replace(plan, cost_usd=plan.cost_usd * units["usd"])
    here, there = check(tight, plan), check(in_units(tight, **units), moved)
    assert here.accepted == (off < 1e-6 or not any(errors))
    assert [(v.constraint, v.subject) for v in there.violations] == [(v.constraint, v.subject) for v in here.violations]


def test_zero_limits_and_zero_prices_are_units_too():
    free = with_types(random_problem(types=2, models=2, tiers=2, seed=1), unmet_penalty_usd_per_query=0.0)
    assert free.money_unit_usd > 0
    assert np.log2(in_units(free, usd=1e-9).money_unit_usd) % 1 == 0
