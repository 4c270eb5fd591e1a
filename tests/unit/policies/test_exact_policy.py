"""The `exact` policy as its callers see it: stopping, reporting, repeating, and what its proofs say."""

import itertools
import json
from dataclasses import replace

import pytest

from policies.checking.certificate import certificate_to_dict, read_certificate, write_certificate
from policies.checking.plan import check
from policies.checking.proof import Prover
from policies.checking.random_problem import random_problem as problem
from policies.checking.verify import verify
from policies.exact.clock import Clock
from policies.exact.master import Program
from policies.registry import make_policy
from simulator.errors import InfeasibleError, RunError
from simulator.planning.files import plan_to_dict
from simulator.planning.plan import PlanStatus
from simulator.planning.policy import StoppingRule


def prove(made, **stop):
    return make_policy("exact").prove(made, incumbent=None, stop=StoppingRule(**stop), seed=0)


@pytest.fixture(scope="module")
def hard():
    """A problem that takes some branching."""
    return problem(types=10, models=6, tiers=6, seed=7)


@pytest.fixture(scope="module")
def proven(hard):
    return prove(hard)


def without_time(proof):
    plan = {**plan_to_dict(proof.plan), "seconds": None}
    return json.dumps([plan, certificate_to_dict(proof.certificate)])


def test_the_tree_has_work_to_do_and_ends_with_a_proof(hard, proven):
    assert proven.effort.nodes > 3
    assert proven.plan.status is PlanStatus.OPTIMAL
    assert proven.plan.gap <= 1e-6 * (1 + 1e-9)
    assert proven.effort.root_bound_usd < proven.plan.bound_usd
    assert check(hard, proven.plan).accepted
    assert verify(hard, proven.certificate).accepted


@pytest.mark.parametrize("seed", range(4))
def test_milp_agrees(seed):
    made = problem(types=4, models=3, tiers=3, seed=seed)
    plan = make_policy("milp").plan(made, incumbent=None, stop=StoppingRule(), seed=0)
    assert prove(made).plan.cost_usd == pytest.approx(plan.cost_usd, rel=3e-6)


def test_the_same_arguments_give_the_same_proof(hard, proven):
    assert without_time(prove(hard)) == without_time(proven)


def test_to_stop_early_leaves_a_plan_and_a_bound_that_can_be_checked(hard, proven):
    """By nodes: the result does not depend on the machine. The bound is one of all plans, so the optimum keeps it."""
    for nodes in (0, 1, 3):
        early = prove(hard, max_nodes=nodes)
        assert early.plan.status is PlanStatus.FEASIBLE
        assert early.effort.nodes <= nodes
        assert check(hard, early.plan).accepted
        assert early.plan.bound_usd <= proven.plan.cost_usd <= early.plan.cost_usd * (1 + 1e-9)
        verdict = verify(hard, early.certificate)
        assert verdict.accepted, verdict.reason
        assert verdict.bound_usd == early.plan.bound_usd


def test_no_time_at_all_still_gives_a_plan(hard):
    hurried = prove(hard, time_limit_s=1e-3)
    assert hurried.plan.status is PlanStatus.TIME_LIMIT
    assert hurried.plan.bound_usd <= hurried.plan.cost_usd
    assert check(hard, hurried.plan).accepted
    assert verify(hard, hurried.certificate).accepted


def test_a_wide_gap_is_enough_where_it_is_asked_for(hard, proven):
    loose = prove(hard, relative_gap=0.05)
    assert loose.plan.status is PlanStatus.OPTIMAL
    assert loose.plan.gap <= 0.05 * (1 + 1e-9)
    assert loose.effort.nodes <= proven.effort.nodes
    assert verify(hard, loose.certificate).accepted


def test_progress_is_told_and_only_gets_better(hard, proven):
    told = []
    again = prove(hard, report=told.append)
    assert without_time(again) == without_time(proven), "to be watched changes nothing"
    assert len(told) > 2
    costs, bounds = [p.cost_usd for p in told], [p.bound_usd for p in told]
    assert costs == sorted(costs, reverse=True)
    assert bounds == sorted(bounds)
    assert (costs[-1], bounds[-1]) == (pytest.approx(proven.plan.cost_usd), pytest.approx(proven.plan.bound_usd))
    assert all(later.seconds >= earlier.seconds for earlier, later in itertools.pairwise(told))


def test_a_plan_in_force_that_is_optimal_is_found_again(hard, proven):
    again = make_policy("exact").plan(hard, incumbent=proven.plan, stop=StoppingRule(max_nodes=0), seed=0)
    assert again.cost_usd == pytest.approx(proven.plan.cost_usd)


def test_a_plan_in_force_for_other_hardware_does_no_harm(hard, proven):
    other = problem(types=4, models=3, tiers=3)
    plan = make_policy("exact").plan(other, incumbent=proven.plan, stop=StoppingRule(), seed=0)
    assert check(other, plan).accepted


def test_a_plan_in_force_of_too_many_replicas_is_not_kept():
    many = problem(types=4, models=2, tiers=2, seed=1)
    first = prove(many).plan
    large = replace(first, deployments=tuple(replace(d, replicas=5) for d in first.deployments))
    few = replace(many, max_replicas=1)
    plan = make_policy("exact").plan(few, incumbent=large, stop=StoppingRule(), seed=0)
    assert check(few, plan).accepted


def test_the_bound_holds_for_the_replicas_that_the_problem_allows():
    """One replica at most instead of many: the optimum can only rise, and each is proven for its own limit."""
    many = problem(types=4, models=2, tiers=2, seed=1)
    few = replace(many, max_replicas=1)
    wide, narrow = prove(many), prove(few)
    assert wide.plan.cost_usd <= narrow.plan.cost_usd * (1 + 1e-6)
    assert verify(many, wide.certificate).accepted
    assert verify(few, narrow.certificate).accepted
    if wide.plan.cost_usd < narrow.plan.bound_usd:
        assert not verify(many, narrow.certificate).accepted, "the bound of the tighter problem is false for the looser"


def test_a_certificate_survives_the_file(hard, proven, tmp_path):
    for name in ("proof.json", "proof.json.gz"):
        write_certificate(tmp_path / name, proven.certificate)
        assert read_certificate(tmp_path / name) == proven.certificate


def test_an_infeasible_problem_is_explained():
    made = problem(types=3, models=2, tiers=2)
    capped = replace(made, budget_usd=1.0, query_types=tuple(replace(q, unmet_cap=0.0) for q in made.query_types))
    with pytest.raises(InfeasibleError, match="budget of 1 USD"):
        prove(capped)


@pytest.mark.parametrize("first", [1, 2, 10, 40])
def test_a_solver_that_fails_leaves_the_best_plan_and_a_true_bound(hard, proven, first, monkeypatch):
    """From its `first` master program on, HiGHS fails now and then; what is proven stands, and can be checked."""
    solve, calls = Program.solve, []

    def failing(program):
        calls.append(1)
        if len(calls) >= first and len(calls) % 3 != 1:
            raise RunError("HiGHS failed")
        return solve(program)

    monkeypatch.setattr(Program, "solve", failing)
    broken = prove(hard, max_nodes=10)
    assert check(hard, broken.plan).accepted
    assert broken.plan.bound_usd <= proven.plan.cost_usd <= broken.plan.cost_usd * (1 + 1e-9)
    verdict = verify(hard, broken.certificate)
    assert verdict.accepted, verdict.reason


@pytest.mark.parametrize("stop", range(0, 60, 6))
def test_the_certificate_holds_wherever_the_time_runs_out(hard, proven, stop, monkeypatch):
    """In the middle of a node as well: the clock is asked a certain number of times before it says stop."""
    asked = []

    def up(clock):
        asked.append(1)
        return len(asked) > 3 * stop

    monkeypatch.setattr(Clock, "up", up)
    cut = prove(hard)
    assert check(hard, cut.plan).accepted
    assert cut.plan.bound_usd <= proven.plan.cost_usd <= cut.plan.cost_usd * (1 + 1e-9)
    verdict = verify(hard, cut.certificate)
    assert verdict.accepted, verdict.reason


def test_exact_is_a_prover_and_others_are_not():
    assert isinstance(make_policy("exact"), Prover)
    assert not isinstance(make_policy("agh"), Prover)
