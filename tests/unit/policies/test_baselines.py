"""The baselines on problems small enough to know by hand what each of them rents."""

from dataclasses import replace

import numpy as np
import pytest

from policies.checking.plan import check
from policies.checking.random_problem import random_problem
from policies.heuristics.dvr import Dvr
from policies.heuristics.hf import Hf
from policies.heuristics.lpr import Lpr
from simulator.errors import InfeasibleError
from simulator.planning.plan import PlanStatus
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import CapacityRows
from tests.unit.policies.test_heuristics_bench import fleet_of, query, tiny

BASELINES = [Lpr(), Dvr(), Hf()]
names = pytest.mark.parametrize("policy", BASELINES, ids=[policy.name for policy in BASELINES])


def plan_of(policy, problem, incumbent=None, **stop):
    plan = policy.plan(problem, incumbent=incumbent, stop=StoppingRule(**stop), seed=0)
    # `tiny` states its capacity rows itself, which the checker reads as they are in problems of this kind alone.
    report = check(replace(problem, capacity_rows=CapacityRows.BATCHING), plan)
    assert report.accepted, report.violations
    return plan


@names
def test_one_type_on_one_configuration(policy):
    problem = tiny([("m", "a", 1)], [query("q")], prices={"a": 2.0}, delay_s=0.5, load=2.5)
    plan = plan_of(policy, problem)
    assert fleet_of(problem, plan) == {("m", "a", 1): 3}
    assert plan.cost_usd == pytest.approx(6.0)
    assert (plan.policy, plan.status, plan.bound_usd) == (policy.name, PlanStatus.FEASIBLE, None)
    assert plan.seconds >= 0


@names
def test_what_is_dearer_than_its_penalty_stays_unmet_unless_the_vms_are_chosen_blindly(policy):
    problem = tiny([("m", "a", 1)], [query("q")], prices={"a": 150.0}, delay_s=0.5, load=0.5)
    plan = plan_of(policy, problem)
    if policy.name == "dvr":
        assert fleet_of(problem, plan) == {("m", "a", 1): 1}
    else:
        assert fleet_of(problem, plan) == {}
        assert plan.unmet == (("q", 1.0),)


@names
@pytest.mark.parametrize(
    "changes",
    [
        {"budget_usd": 0.5},
        {"max_replicas": 0},
        {"allowed": False},
        {"delay_s": 2e9},  # a billionth of the demand could be served: not worth a GPU
        {"weights_gb": 5.0, "storage_gb": 4.0},
    ],
    ids=str,
)
def test_where_nothing_can_be_served_nothing_is(policy, changes):
    shape = {"prices": {"a": 1.0}, "delay_s": 0.5, "load": 0.5, **changes}
    problem = tiny([("m", "a", 1)], [query("q")], **shape)
    plan = plan_of(policy, problem)
    assert plan.cost_usd == pytest.approx(100.0)
    assert plan.deployments == ()


@pytest.mark.parametrize("policy", [Lpr(), Dvr()], ids=["lpr", "dvr"])
def test_without_capacity_nothing_is_served(policy):
    problem = tiny([("m", "a", 1)], [query("q")], prices={"a": 1.0}, delay_s=0.5, load=0.5, cap=0.0)
    assert plan_of(policy, problem).deployments == ()


@names
def test_a_problem_without_configurations(policy):
    full = tiny([("m", "a", 1)], [query("q")], prices={"a": 1.0}, delay_s=0.5, load=0.5)
    none = np.zeros((1, 0))
    empty = replace(
        full,
        configurations=(),
        delay_s=none,
        error=none.copy(),
        load=none.copy(),
        kv=none.copy(),
        cap=np.zeros(0),
        allowed=none.astype(bool),
    )
    assert plan_of(policy, empty).cost_usd == 100.0


# -- lpr ---------------------------------------------------------------------------------------------------------------


def test_lpr_does_not_rent_fractions_for_a_whole_type():
    # A quarter of the big GPU would cost 2, but the linking rows ask for w = r = 1 to serve all of a type: 8, not 3.
    problem = tiny(
        [("big", "a", 1), ("small", "b", 1)],
        [query("q")],
        prices={"a": 8.0, "b": 3.0},
        delay_s=0.5,
        load=[[0.25, 1.0]],
    )
    assert fleet_of(problem, plan_of(Lpr(), problem)) == {("small", "b", 1): 1}


def test_lpr_rents_a_whole_one_for_every_fraction():
    # The small GPU is too slow for all of the demand, the big one too wrong: the relaxation mixes them half and half,
    # which needs w = 1/2 of each (x <= s w with s = 1) and is rounded to one of each.
    problem = tiny(
        [("fast", "a", 1), ("good", "b", 1)],
        [query("q", delay_slo_s=1.0, error_slo=0.1)],
        prices={"a": 10.0, "b": 10.0},
        delay_s=[[0.5, 1.5]],
        error=[[0.15, 0.05]],
        load=[[0.1, 0.1]],
    )
    plan = plan_of(Lpr(), problem)
    assert fleet_of(problem, plan) == {("fast", "a", 1): 1, ("good", "b", 1): 1}
    assert plan.unmet == ()


def test_lpr_drops_the_smallest_fraction_when_the_budget_is_short():
    # 2.2 replicas of `m` and 1.1 of `n` are within 36 USD, 3 and 2 of them are not.
    problem = tiny(
        [("m", "a", 1), ("n", "b", 1)],
        [query("p"), query("q", arrival_per_h=60.0)],
        prices={"a": 11.0, "b": 9.0},
        delay_s=0.5,
        load=[[2.2, 0.0], [0.0, 1.1]],
        allowed=[[True, False], [False, True]],
        budget_usd=36.0,
    )
    plan = plan_of(Lpr(), problem)
    assert fleet_of(problem, plan) == {("m", "a", 1): 3}
    assert plan.cost_usd == pytest.approx(33.0 + 60.0)


def test_lpr_keeps_one_configuration_of_a_model_on_a_tier():
    problem = tiny(
        [("m", "a", 1), ("m", "a", 2)],
        [query("slow", delay_slo_s=2.0), query("fast", delay_slo_s=0.5)],
        prices={"a": 4.0},
        delay_s=[[1.0, 0.5], [1.0, 0.5]],
        load=[[0.9, 0.4], [0.9, 0.4]],
    )
    assert fleet_of(problem, plan_of(Lpr(), problem)) == {("m", "a", 2): 1}


def test_lpr_solves_the_same_relaxation_whatever_enters_first(monkeypatch):
    problem = random_problem(types=6, seed=3)
    few = plan_of_paper(Lpr(), problem)
    monkeypatch.setattr("policies.heuristics.lpr.ENTERING", 10**6)
    everything = plan_of_paper(Lpr(), problem)
    assert few.cost_usd == pytest.approx(everything.cost_usd)


def test_lpr_says_that_the_relaxation_has_no_solution():
    problem = tiny([("m", "a", 1)], [query("q", unmet_cap=0.2)], prices={"a": 1.0}, delay_s=2.0, load=0.5)
    with pytest.raises(InfeasibleError, match="problem tiny: lpr finds no plan: not even the linear relaxation"):
        plan_of(Lpr(), problem)


def test_lpr_says_that_no_rounding_keeps_the_caps():
    # One and a half replicas are within the budget, two are not; dropped, nothing serves at all.
    problem = tiny(
        [("m", "a", 1)], [query("q", unmet_cap=0.0)], prices={"a": 10.0}, delay_s=0.5, load=1.5, budget_usd=18.0
    )
    with pytest.raises(InfeasibleError, match=r"problem tiny: lpr finds no plan: .* no rounding"):
        plan_of(Lpr(), problem)


def test_lpr_without_time_serves_nothing_or_says_so():
    problem = random_problem()
    plan = plan_of_paper(Lpr(), problem, time_limit_s=0.0)
    assert plan.status is PlanStatus.TIME_LIMIT
    assert plan.deployments == ()
    strict = tuple(replace(q, unmet_cap=0.5) for q in problem.query_types)
    with pytest.raises(InfeasibleError, match=r"could not solve the linear relaxation in 0\.0 s"):
        plan_of_paper(Lpr(), replace(problem, query_types=strict), time_limit_s=0.0)


# -- dvr ---------------------------------------------------------------------------------------------------------------


def test_dvr_lets_each_type_choose_alone():
    # Alone, each type rents a GPU of its own for 3; both would fit on one for 5.
    problem = tiny(
        [("m", "a", 1), ("n", "b", 1), ("both", "c", 1)],
        [query("p"), query("q")],
        prices={"a": 3.0, "b": 3.0, "c": 5.0},
        delay_s=0.5,
        load=0.5,
        allowed=[[True, False, True], [False, True, True]],
    )
    plan = plan_of(Dvr(), problem)
    assert fleet_of(problem, plan) == {("m", "a", 1): 1, ("n", "b", 1): 1}
    assert fleet_of(problem, plan_of(Lpr(), problem)) == {("both", "c", 1): 1}


def test_dvr_merges_by_votes_and_sums_the_load():
    # Two of three types want TP2, and the third, which wanted TP1, has its load counted there as well.
    problem = tiny(
        [("m", "a", 1), ("m", "a", 2)],
        [query("fast", delay_slo_s=0.5), query("faster", delay_slo_s=0.4), query("slow", delay_slo_s=2.0)],
        prices={"a": 1.0},
        delay_s=[[1.0, 0.4]],
        load=[[0.8, 0.4]],
    )
    assert fleet_of(problem, plan_of(Dvr(), problem)) == {("m", "a", 2): 2}


def test_dvr_rents_by_falling_penalty_what_the_budget_pays():
    # 3 replicas of `m` for the dear type, then 2 of the 4 that the cheap type asks for.
    problem = tiny(
        [("n", "b", 1), ("m", "a", 1)],
        [query("cheap", arrival_per_h=50.0), query("dear")],
        prices={"a": 10.0, "b": 5.0},
        delay_s=0.5,
        load=[[4.0, 0.0], [0.0, 3.0]],
        allowed=[[True, False], [False, True]],
        budget_usd=41.0,
    )
    plan = plan_of(Dvr(), problem)
    assert fleet_of(problem, plan) == {("m", "a", 1): 3, ("n", "b", 1): 2}
    assert plan.cost_usd == pytest.approx(30.0 + 10.0 + 50.0 * 0.5)


def test_dvr_leaves_the_money_for_the_tokens():
    # Tokens take 20 of 41 USD, so two of the three replicas can be paid; with three there would be no room for tokens.
    problem = tiny(
        [("m", "a", 1)],
        [query("q", token_storage_gb_per_token=0.05)],
        prices={"a": 10.0},
        delay_s=0.5,
        load=3.0,
        storage_price=2.0,
        budget_usd=41.0,
    )
    plan = plan_of(Dvr(), problem)
    assert fleet_of(problem, plan) == {("m", "a", 1): 2}
    assert dict(plan.unmet) == pytest.approx({"q": 1 / 3})


def test_dvr_divides_by_what_max_replicas_can_serve():
    # Two of `m` serve half of the demand for 4, so all of it would cost 8; two of `n` serve it all for 6.
    problem = tiny(
        [("m", "a", 1), ("n", "b", 1)],
        [query("q")],
        prices={"a": 2.0, "b": 3.0},
        delay_s=0.5,
        load=[[4.0, 2.0]],
        max_replicas=2,
    )
    assert fleet_of(problem, plan_of(Dvr(), problem)) == {("n", "b", 1): 2}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"budget_usd": 15.0}, "the budget of 15 USD per 1 h is too small"),
        ({"max_replicas": 1}, "max_replicas = 1 per deployment is too few"),
        ({"delay_s": 2.0}, "query type q cannot be served: nothing keeps its delay SLO"),
    ],
    ids=["budget", "replicas", "delay"],
)
def test_dvr_says_which_limit_its_fleet_breaks(changes, reason):
    shape = {"prices": {"a": 10.0}, "delay_s": 0.5, "load": 1.5, **changes}
    problem = tiny([("m", "a", 1)], [query("q", unmet_cap=0.0)], **shape)
    with pytest.raises(InfeasibleError, match=f"problem tiny: .*{reason}"):
        plan_of(Dvr(), problem)


# -- hf ----------------------------------------------------------------------------------------------------------------


def two_tiers(**limits):
    """Each type has a cheap tier of its own, and there is a dearer one for both."""
    return tiny(
        [("m", "a", 1), ("m", "b", 1), ("m", "c", 1)],
        [query("p", **limits), query("q", **limits)],
        prices={"a": 3.0, "b": 3.0, "c": 9.0},
        delay_s=[[0.5, 2e9, 0.5], [2e9, 0.5, 0.5]],
        load=0.5,
    )


def test_hf_rents_one_tier():
    problem = two_tiers()
    assert fleet_of(problem, plan_of(Hf(), problem)) == {("m", "c", 1): 1}
    assert fleet_of(problem, plan_of(Lpr(), problem)) == {("m", "a", 1): 1, ("m", "b", 1): 1}


def test_hf_leaves_a_type_unmet_where_no_tier_serves_all():
    problem = tiny(
        [("m", "a", 1), ("m", "b", 1)],
        [query("p"), query("q", arrival_per_h=50.0)],
        prices={"a": 3.0, "b": 3.0},
        delay_s=0.5,
        load=0.5,
        allowed=[[True, False], [False, True]],
    )
    plan = plan_of(Hf(), problem)
    assert fleet_of(problem, plan) == {("m", "a", 1): 1}
    assert plan.unmet == (("q", 1.0),)
    strict = replace(problem, query_types=tuple(replace(q, unmet_cap=0.5) for q in problem.query_types))
    with pytest.raises(InfeasibleError) as caught:
        plan_of(Hf(), strict)
    assert caught.value.problems == (
        "problem tiny: hf found no plan that keeps the unmet caps with a single GPU tier",
        "a leaves too much unmet of q",
        "b leaves too much unmet of p",
    )


def test_hf_tells_of_the_first_tiers_only():
    problem = tiny(
        [("m", tier, 1) for tier in "abcde"],
        [query("q", unmet_cap=0.0)],
        prices=dict.fromkeys("abcde", 10.0),
        delay_s=0.5,
        load=1.5,
        budget_usd=15.0,
    )
    with pytest.raises(InfeasibleError) as caught:
        plan_of(Hf(), problem)
    headline, *reasons = caught.value.problems
    assert headline.startswith("problem tiny: hf found no plan")
    assert reasons == [*(f"{tier} leaves too much unmet of q" for tier in "abc"), "and so on for 2 more tiers"]


def test_hf_out_of_time_keeps_the_best_so_far():
    problem = two_tiers()
    plan = plan_of(Hf(), problem, time_limit_s=0.0)
    assert plan.status is PlanStatus.TIME_LIMIT
    assert plan.cost_usd == 200.0
    strict = two_tiers(unmet_cap=0.0)
    assert fleet_of(strict, plan_of(Hf(), strict)) == {("m", "c", 1): 1}
    with pytest.raises(InfeasibleError, match=r"with a single GPU tier in 0\.0 s"):
        plan_of(Hf(), strict, time_limit_s=0.0)


# -- all ---------------------------------------------------------------------------------------------------------------


def plan_of_paper(policy, problem, **stop):
    plan = policy.plan(problem, incumbent=None, stop=StoppingRule(**stop), seed=0)
    report = check(problem, plan)
    assert report.accepted, report.violations
    return plan


@names
def test_an_incumbent_and_the_seed_change_nothing(policy):
    problem = random_problem(types=5, models=3, tiers=3)
    first = plan_of_paper(policy, problem)
    again = policy.plan(problem, incumbent=first, stop=StoppingRule(), seed=7)
    assert replace(again, seconds=None) == replace(first, seconds=None)
