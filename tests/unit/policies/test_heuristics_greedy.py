"""GH and its mechanisms on problems small enough to solve by hand."""

import numpy as np
import pytest

from policies.heuristics.greedy import Candidates, Gh, Greedy, falling_rate
from policies.heuristics.placement import Placement
from simulator.errors import InfeasibleError
from simulator.planning.plan import PlanStatus, plan_arrays
from simulator.planning.policy import StoppingRule
from tests.unit.policies.test_heuristics_bench import broken, fleet_of, query, tiny

STOP = StoppingRule()


def plan_of(problem, policy=None):
    plan = (policy or Gh()).plan(problem, incumbent=None, stop=STOP, seed=0)
    assert not broken(problem, plan_arrays(problem, plan))
    return plan


# -- effective coverage ------------------------------------------------------------------------------------------------

LIMITS = {
    "unmet share": ({}, {}, 1.0),
    "delay": ({"delay_slo_s": 0.2}, {}, 0.4),
    "error": ({"error_slo": 0.03}, {}, 0.3),
    "compute": ({}, {"load": 4.0, "cap": 0.8, "max_replicas": 1}, 0.2),
    "KV cache": ({}, {"kv": 8.0, "max_replicas": 1}, 0.125),
    "replicas": ({}, {"load": 4.0, "max_replicas": 3}, 0.75),
    "money for rent": ({}, {"load": 4.0, "budget_usd": 2.5}, 0.5),
    "money for rent, to the cent": ({}, {"load": 3.0, "prices": {"a": 0.1}, "budget_usd": 0.3}, 1.0),
    "money for tokens": ({"token_storage_gb_per_token": 0.05}, {"storage_price": 1.0, "budget_usd": 7.0}, 0.5),
    "storage": ({"token_storage_gb_per_token": 0.05}, {"weights_gb": 1.0, "storage_gb": 7.0}, 0.6),
    "ruled out": ({}, {"allowed": False}, 0.0),
}


@pytest.mark.parametrize(("limits", "changes", "coverage"), LIMITS.values(), ids=LIMITS)
def test_effective_coverage_is_the_tightest_limit(limits, changes, coverage):
    values = {"prices": {"a": 1.0}, "delay_s": 0.5, "error": 0.1, "load": 0.5, **changes}
    if "token_storage_gb_per_token" in limits and "storage_price" in changes:
        values["weights_gb"] = 1.0  # 7 USD less 1 of rent and 1 of weights are half of the 10 USD of its tokens
    problem = tiny([("m", "a", 1)], [query("q", **limits)], **values)
    moves = Placement.empty(problem).moves(0, np.array([0]), grow=True)
    assert moves.coverage == pytest.approx(np.array([coverage]))


def test_coverage_and_cost_are_marginal():
    types = [query("p", delay_penalty_usd_per_query_s=0.1), query("q", delay_penalty_usd_per_query_s=0.1)]
    problem = tiny(
        [("m", "a", 1), ("m", "a", 2)],
        types,
        prices={"a": 1.0},
        delay_s=[[0.8, 0.4]],
        load=[[0.6, 0.3]],
        weights_gb=2.0,
        storage_price=1.0,
    )
    placement = Placement.empty(problem)
    opened = placement.moves(0, np.array([0]), grow=True)
    assert opened.cost_usd == pytest.approx(np.array([1.0 + 2.0 + 100 * 0.1 * 0.8]))
    placement.make(0, opened, 0)

    as_it_is = placement.moves(1, np.array([0]), grow=False)
    assert as_it_is.coverage == pytest.approx(np.array([0.4 / 0.6]))
    assert as_it_is.cost_usd == pytest.approx(as_it_is.coverage * 8.0)
    grown, upgraded = np.arange(2)
    moves = placement.moves(1, np.array([0, 1]), grow=True)
    assert moves.replicas.tolist() == [2, 1]
    assert moves.coverage == pytest.approx(np.array([1.0, 1.0]))
    assert moves.cost_usd[grown] == pytest.approx(1.0 + 8.0)
    # Twice the GPUs, no second copy of the weights, and the type that is there is served faster as well.
    assert moves.cost_usd[upgraded] == pytest.approx(1.0 - 4.0 + 4.0)


def test_a_change_that_breaks_a_type_already_served_covers_nothing():
    problem = tiny(
        [("m", "a", 2), ("m", "a", 1)],
        [query("fast", delay_slo_s=0.5), query("slow", delay_slo_s=2.0)],
        prices={"a": 1.0},
        delay_s=[[0.4, 0.8]],
        load=0.1,
    )
    placement = Placement.empty(problem)
    placement.make(0, placement.moves(0, np.array([0]), grow=True), 0)
    assert placement.moves(1, np.array([0, 1]), grow=True).coverage.tolist() == [1.0, 0.0]


def test_a_change_moves_the_share_that_the_type_has_there():
    problem = tiny(
        [("m", "a", 1), ("m", "a", 2)],
        [query("q", delay_slo_s=0.7, error_slo=0.14)],
        prices={"a": 1.0},
        delay_s=[1.2, 0.6],
        error=[0.24, 0.12],
        load=0.1,
    )
    placement = Placement.empty(problem).with_fleet(np.array([0]), np.array([1]), np.array([[0.5]]))
    moves = placement.moves(0, np.array([0, 1]), grow=True)
    # As it is, 0.1 s and 0.02 of error are left to 1.2 s and 0.24; upgraded, 0.4 s and 0.08 to 0.6 s and 0.12.
    assert moves.coverage == pytest.approx(np.array([1 / 12, 0.5]))


def test_idle_replicas_are_released():
    problem = tiny([("m", "a", 1), ("m", "b", 1)], [query("q")], prices={"a": 1.0, "b": 1.0}, delay_s=0.1, load=2.0)
    placement = Placement.empty(problem).with_fleet(np.array([0, 1]), np.array([3, 1]), np.array([[0.75, 0.0]]))
    placement.release_idle()
    assert placement.arrays().replicas.tolist() == [2, 0]


# -- M1, M2, M3 --------------------------------------------------------------------------------------------------------


def test_m1_keeps_the_cheapest_configuration_within_the_limits():
    problem = tiny(
        [("m", "a", 4), ("m", "a", 1), ("m", "a", 2), ("m", "b", 1), ("m", "c", 1)],
        [query("q", error_slo=0.1), query("nothing", delay_slo_s=0.01), query("ruled out")],
        prices={"a": 1.0, "b": 1.0, "c": 1.0},
        delay_s=[0.5, 2.0, 1.0, 3.0, 0.5],
        error=[0.1, 0.1, 0.1, 0.1, 0.2],
        load=0.1,
        allowed=[[True], [True], [False]],
    )
    cheapest = Candidates.of(problem, m1=True).cheapest
    assert [list(a) for a in cheapest] == [[2], [], []]
    assert [list(a) for a in Candidates.of(problem, m1=False).cheapest] == [[1, 3, 4], [1, 3, 4], []]


def test_m1_takes_a_limit_that_is_met_exactly_for_met():
    problem = tiny([("m", "a", 1)], [query("q", error_slo=0.3)], prices={"a": 1.0}, delay_s=1, error=0.1 * 3, load=0.1)
    assert problem.error[0, 0] > problem.error_slo[0]  # by rounding only
    assert not plan_of(problem).unmet


def test_m1_prefers_room_at_equal_rent():
    configurations = [("m", "a", 1, 0.01), ("m", "a", 1, 0.02)]
    problem = tiny(configurations, [query("q")], prices={"a": 1.0}, delay_s=[0.4, 0.8], load=[0.5, 0.25])
    assert list(Candidates.of(problem, m1=True).cheapest[0]) == [1]


def test_m1_lets_a_type_in_as_far_as_its_unmet_cap_demands():
    problem = tiny([("m", "a", 1)], [query("q", unmet_cap=0.5)], prices={"a": 1.0}, delay_s=1.5, load=0.1)
    assert dict(plan_of(problem).unmet)["q"] == pytest.approx(1 / 3)


def test_m2_ranks_by_cost_per_coverage():
    problem = tiny(
        [("m", "small", 1), ("m", "large", 1)],
        [query("q")],
        prices={"small": 10.0, "large": 20.0},
        delay_s=0.1,
        load=[4.0, 1.0],
        max_replicas=1,
    )
    assert fleet_of(problem, plan_of(problem)) == {("m", "large", 1): 1}
    assert fleet_of(problem, plan_of(problem, Gh(m2=False))) == {("m", "small", 1): 1, ("m", "large", 1): 1}


def test_m3_upgrades_before_it_activates():
    problem = tiny(
        [("m", "a", 1), ("m", "a", 2), ("m", "b", 1)],
        [query("many", arrival_per_h=200.0, delay_slo_s=1.0), query("few", delay_slo_s=0.5)],
        prices={"a": 2.0, "b": 4.5},
        delay_s=[1.0, 0.5, 0.5],
        load=[0.4, 0.2, 0.4],
    )
    assert fleet_of(problem, plan_of(problem)) == {("m", "a", 2): 1}
    assert fleet_of(problem, plan_of(problem, Gh(m3=False))) == {("m", "a", 1): 1, ("m", "b", 1): 1}


def test_m3_upgrades_a_full_deployment_before_it_activates():
    problem = tiny(
        [("m", "a", 1), ("m", "a", 4), ("m", "b", 1)],
        [query("q")],
        prices={"a": 1.0, "b": 2.0},
        delay_s=0.5,
        load=[2.0, 0.5, 2.0],
        max_replicas=1,
    )
    assert fleet_of(problem, plan_of(problem)) == {("m", "a", 4): 1}
    assert fleet_of(problem, plan_of(problem, Gh(m3=False))) == {("m", "a", 1): 1, ("m", "b", 1): 1}


def test_m3_includes_a_faster_operating_point_of_the_same_gpus():
    problem = tiny(
        [("m", "a", 1, 0.02), ("m", "a", 1, 0.01), ("m", "b", 1, 0.01)],
        [query("many", arrival_per_h=200.0), query("few", delay_slo_s=0.5)],
        prices={"a": 2.0, "b": 1.0},
        delay_s=[[1.0, 0.5, 2.0], [1.0, 0.5, 0.5]],
        load=0.1,
    )
    plan = plan_of(problem)
    assert [(d.configuration.tier, d.configuration.tpot_target_s) for d in plan.deployments] == [("a", 0.01)]


# -- phases and order --------------------------------------------------------------------------------------------------


def test_phase_1_opens_one_deployment_for_all_types_that_it_suits():
    problem = tiny(
        [("m", "a", 1), ("m", "b", 1)],
        [query("p"), query("q")],
        prices={"a": 2.0, "b": 1.0},
        delay_s=[[0.5, 2.0], [0.5, 0.5]],
        load=0.1,
    )
    placement = Placement.empty(problem)
    greedy = Greedy(problem, m1=True, m2=True, m3=True)
    for i in (0, 1):
        greedy.cover(placement, i)
    assert placement.arrays().replicas.tolist() == [1, 0]  # though b alone would be cheaper for q
    assert not placement.share.any()


def test_phase_1_comes_before_phase_2():
    """The deployment that q needs is there before p is served, and p is better off in it."""
    problem = tiny(
        [("m", "a", 1), ("m", "b", 1)],
        [query("p", arrival_per_h=200.0, delay_penalty_usd_per_query_s=0.01), query("q")],
        prices={"a": 2.0, "b": 3.0},
        delay_s=[[0.5, 0.4], [2.0, 0.4]],
        load=0.1,
    )
    assert fleet_of(problem, plan_of(problem)) == {("m", "b", 1): 1}


def test_phase_2_serves_by_falling_rate():
    problem = tiny(
        [("m", "a", 1)],
        [query("few", arrival_per_h=10.0), query("many", arrival_per_h=20.0)],
        prices={"a": 1.0},
        delay_s=0.1,
        load=1.0,
        max_replicas=1,
    )
    assert list(falling_rate(problem)) == [1, 0]
    assert plan_of(problem).unmet == (("few", 1.0),)


def test_the_type_that_opens_pays_the_whole_rent():
    """What makes GH far from optimal: `p` opens what is cheapest for `p` alone, and `q` must open again."""
    problem = tiny(
        [("m", "shared", 1), ("m", "own-p", 1), ("m", "own-q", 1)],
        [query("p", arrival_per_h=200.0), query("q")],
        prices={"shared": 3.0, "own-p": 2.0, "own-q": 2.0},
        delay_s=[[0.5, 0.5, 2.0], [0.5, 2.0, 0.5]],
        load=0.4,
    )
    assert fleet_of(problem, plan_of(problem)) == {("m", "own-p", 1): 1, ("m", "own-q", 1): 1}


def test_plan_says_what_it_is():
    problem = tiny([("m", "a", 1)], [query("q")], prices={"a": 1.0}, delay_s=0.1, load=1.0)
    plan = plan_of(problem)
    assert (plan.policy, plan.status, plan.bound_usd, plan.cost_usd) == ("gh", PlanStatus.FEASIBLE, None, 1.0)
    assert Gh(m1=False, m3=False).name == "gh[-m1,-m3]"


# -- what cannot be served ---------------------------------------------------------------------------------------------

REASONS = {
    "delay": ({"delay_slo_s": 0.1}, {}, r"q cannot be served: nothing keeps its delay SLO of 0.1 s; .* takes 0.5 s"),
    "error": ({"error_slo": 0.01}, {}, r"q cannot be served: nothing keeps its error SLO of 0.01; .* is 0.1"),
    "both": (
        {"delay_slo_s": 0.3, "error_slo": 0.05},
        {"delay_s": [0.5, 0.2], "error": [0.0, 0.1]},
        "no single configuration keeps both its delay SLO of 0.3 s and its error SLO of 0.05",
    ),
    "ruled out": ({}, {"allowed": False}, "q cannot be served: no configuration may serve it"),
    "budget": (
        {},
        {"budget_usd": 3.5, "load": 4.0},
        "the budget of 3.5 USD per 1 h is too small to keep .* would spend 8.00",
    ),
    "storage": ({}, {"weights_gb": 2.0, "storage_gb": 1.0}, "the storage of 1 GB is too small"),
    "replicas": ({}, {"load": 9.0, "max_replicas": 2}, "max_replicas = 2 per deployment is too few"),
    "together": ({}, {"load": 9.0, "max_replicas": 2, "budget_usd": 3.0}, "a budget of 3 USD, 1000 GB .* 2 replicas"),
}


@pytest.mark.parametrize(("limits", "changes", "message"), REASONS.values(), ids=REASONS)
def test_the_reason_is_named(limits, changes, message):
    values = {"prices": {"a": 1.0}, "delay_s": 0.5, "error": 0.1, "load": 0.1, **changes}
    problem = tiny(
        [("m", "a", 1), ("n", "a", 1)],
        [query("q", unmet_cap=0.0, **limits), query("other")],
        **values,
    )
    with pytest.raises(InfeasibleError, match=message) as caught:
        plan_of(problem)
    assert "q" in str(caught.value)
    assert "other" not in str(caught.value)


def test_all_reasons_are_reported_together():
    types = [query("slow", unmet_cap=0.0, delay_slo_s=0.1), query("wrong", unmet_cap=0.25, error_slo=0.01)]
    problem = tiny([("m", "a", 1)], types, prices={"a": 1.0}, delay_s=0.5, error=0.1, load=0.1)
    with pytest.raises(InfeasibleError) as caught:
        plan_of(problem)
    assert len(caught.value.problems) == 2
    assert "at least 0.75 of query type wrong must be served" in caught.value.problems[1]
