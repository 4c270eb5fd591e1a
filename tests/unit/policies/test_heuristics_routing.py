"""The routing linear program on problems whose best routing is known."""

import threading

import numpy as np
import pytest

from policies.checking.random_problem import random_problem
from policies.heuristics import routing
from policies.heuristics.routing import route, route_deployments
from simulator.errors import RunError
from simulator.planning.plan import plan_cost_usd
from simulator.planning.problem import CapacityRows
from tests.unit.policies.test_heuristics_bench import broken, query, tiny

TWO = [("big", "a", 1), ("small", "a", 1)]


def two(types, **changes):
    """A big model (slow, exact) and a small one (fast, error-prone), with room for everything."""
    values = {"prices": {"a": 1.0}, "delay_s": [0.8, 0.2], "error": [0.0, 0.2], "load": 0.1}
    return tiny(TWO, types, **{**values, **changes})


def test_error_budget_decides_the_mix():
    problem = two([query("q", error_slo=0.05, delay_penalty_usd_per_query_s=0.1)])
    arrays = route(problem, np.array([1, 1]))
    assert arrays.share == pytest.approx(np.array([[0.75, 0.25]]))
    assert sum(plan_cost_usd(problem, arrays).values()) == pytest.approx(2.0 + 100 * 0.1 * (0.75 * 0.8 + 0.25 * 0.2))


def test_delay_budget_decides_the_mix():
    problem = two([query("q", delay_slo_s=0.5, error_slo=0.1)])
    assert route(problem, np.array([1, 1])).share == pytest.approx(np.array([[0.5, 0.5]]))


@pytest.mark.parametrize(("row", "limit"), [("load", {"cap": 0.9}), ("kv", {})])
def test_what_exceeds_capacity_is_unmet(row, limit):
    problem = two([query("q")], **{row: 4.0, **limit})
    arrays = route(problem, np.array([1, 1]))
    assert arrays.unmet == pytest.approx(1 - 2 * limit.get("cap", 1.0) / 4)
    assert not broken(problem, arrays)


def test_dear_penalty_goes_first():
    types = [query("cheap", unmet_penalty_usd_per_query=1.0), query("dear", unmet_penalty_usd_per_query=2.0)]
    arrays = route(two(types, load=1.5), np.array([1, 0]))
    assert arrays.unmet == pytest.approx(np.array([1.0, 1 / 3]))


def test_a_penalty_below_the_cost_of_serving_is_paid():
    problem = two([query("q", unmet_penalty_usd_per_query=0.01, delay_penalty_usd_per_query_s=0.1)])
    assert route(problem, np.array([1, 1])).unmet == pytest.approx(np.array([1.0]))


def test_budget_and_storage_leave_what_the_fleet_does_not_take():
    stored = query("q", token_storage_gb_per_token=0.5)  # 100 GB if all is served
    by_storage = route(two([stored], weights_gb=20.0, storage_gb=70.0), np.array([1, 0]))
    assert by_storage.share[0, 0] == pytest.approx(0.5)
    by_money = route(two([stored], storage_price=0.1, weights_gb=10.0, budget_usd=8.0), np.array([1, 0]))
    assert by_money.share[0, 0] == pytest.approx(0.6)  # rent 1, weights 1, then 6 of 10 USD of token storage


def test_none_where_no_routing_exists():
    assert route(two([query("q")], budget_usd=1.5), np.array([1, 1])) is None
    assert route(two([query("q")], weights_gb=10.0, storage_gb=15.0), np.array([1, 1])) is None
    assert route(two([query("q", unmet_cap=0.4)], load=2.0), np.array([1, 0])) is None
    assert route(two([query("q", unmet_cap=0.5)], load=2.0), np.array([1, 0])) is not None


def test_zero_limits_hold():
    problem = two([query("q", error_slo=0.0)])
    assert route(problem, np.array([1, 1])).share == pytest.approx(np.array([[1.0, 0.0]]))
    problem = two([query("q", token_storage_gb_per_token=1.0)], storage_gb=0.0)
    assert route(problem, np.array([1, 1])).unmet == pytest.approx(np.array([1.0]))


def test_ruled_out_routes_are_not_used():
    problem = two([query("p"), query("q")], allowed=[[True, False], [False, False]])
    arrays = route(problem, np.array([1, 1]))
    assert arrays.share == pytest.approx(np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_empty_fleet_serves_nothing():
    assert route(two([query("q")]), np.array([0, 0])).unmet == pytest.approx(np.array([1.0]))


def test_factors_inflate_the_rows_and_the_penalty():
    problem = two([query("q", delay_slo_s=0.9, error_slo=0.1, delay_penalty_usd_per_query_s=0.1)])
    slow = route(problem, np.array([1, 0]), delay_factor=1.5)
    assert slow.share[0, 0] == pytest.approx(0.75)
    wrong = route(problem, np.array([0, 1]), error_factor=2.0)
    assert wrong.share[0, 1] == pytest.approx(0.25)
    # Serving costs 0.08 USD a query at nominal, 0.12 in truth: only the true delay makes the penalty of 0.1 cheaper.
    cheap = two([query("q", delay_slo_s=9.0, unmet_penalty_usd_per_query=0.1, delay_penalty_usd_per_query_s=0.1)])
    assert route(cheap, np.array([1, 0])).unmet == pytest.approx(np.array([0.0]))
    assert route(cheap, np.array([1, 0]), delay_factor=1.5).unmet == pytest.approx(np.array([1.0]))


@pytest.mark.parametrize(("rows", "served"), [(CapacityRows.PAPER, 1 / 1.2), (CapacityRows.BATCHING, 1.0)])
def test_delay_factor_fills_the_kv_cache_of_paper_rows_only(rows, served):
    problem = two([query("q", delay_slo_s=9.0)], kv=0.8, rows=rows)
    assert route(problem, np.array([1, 0]), delay_factor=1.5).share[0, 0] == pytest.approx(served)


def test_elastic_caps_tell_how_far_off_a_fleet_is():
    problem = two([query("q", unmet_cap=0.2)], load=2.0)
    routed = route_deployments(problem, np.array([0]), np.array([1]), excess_usd=1e4)
    assert routed.excess == pytest.approx(0.3)
    assert routed.unmet == pytest.approx(np.array([0.5]))
    assert routed.cost_usd == pytest.approx(1.0 + 50.0)


def test_a_bound_on_the_cost_spares_no_routing_below_it():
    problem = two([query(f"q{i}", error_slo=0.02 * i, unmet_cap=0.9) for i in range(6)], load=0.7, kv=0.4)
    cost_usd = route_deployments(problem, np.arange(2), np.array([1, 2])).cost_usd
    above = route_deployments(problem, np.arange(2), np.array([1, 2]), below_usd=cost_usd + 1e-6)
    assert above.cost_usd == pytest.approx(cost_usd)
    below = route_deployments(problem, np.arange(2), np.array([1, 2]), below_usd=cost_usd / 10)
    assert below is None or below.cost_usd == pytest.approx(cost_usd)


def test_a_solver_that_fails_is_not_taken_for_an_infeasible_fleet(monkeypatch):
    monkeypatch.setattr(routing, "_of_thread", threading.local())
    monkeypatch.setattr(routing, "SETTINGS", [{"simplex_iteration_limit": 0, "presolve": "off"}])
    with pytest.raises(RunError, match="HiGHS failed on a routing program"):
        route(two([query("q", error_slo=0.05)], load=0.7), np.array([1, 1]))


def test_what_a_solver_did_before_plays_no_part(monkeypatch):
    """One solver per thread serves every program: in any order, and anew, the answers are the same to the bit."""
    problem = random_problem(types=6, models=3, tiers=3, seed=5)
    fleets = [(np.array(pair), np.array([1, 2])) for pair in ((0, 5), (3, 8), (1, 9), (2, 12))]

    def answers(order, **changes):
        routed = {n: route_deployments(problem, *fleets[n], **changes) for n in order}
        return [routed[n].share.tobytes() + routed[n].unmet.tobytes() for n in range(len(fleets))]

    first = answers((0, 1, 2, 3))
    answers((2, 0, 3, 1), delay_factor=1.3, excess_usd=100.0)
    assert answers((3, 1, 0, 2)) == first
    monkeypatch.setattr(routing, "_of_thread", threading.local())
    assert answers((1, 3, 2, 0)) == first


def test_repeats_to_the_bit_quietly_and_changes_nothing(capfd):
    problem = two([query(f"q{i}", error_slo=0.05 + 0.01 * i) for i in range(5)], load=0.31)
    replicas = np.array([1, 2])
    first, second = route(problem, replicas), route(problem, replicas)
    assert first.share.tobytes() == second.share.tobytes()
    assert first.unmet.tobytes() == second.unmet.tobytes()
    assert replicas.tolist() == [1, 2]
    assert capfd.readouterr() == ("", "")
