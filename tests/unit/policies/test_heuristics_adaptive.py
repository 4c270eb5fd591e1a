"""AGH: starts, relocation, consolidation and stopping on problems small enough to solve by hand; GH's on real ones."""

from dataclasses import replace
from itertools import islice

import pytest

from policies.heuristics.adaptive import Agh, orders
from policies.heuristics.greedy import Gh
from simulator.errors import InfeasibleError
from simulator.planning.files import read_problem
from simulator.planning.plan import PlanStatus, plan_arrays, plan_cost_usd
from simulator.planning.policy import StoppingRule
from tests.unit.policies.test_heuristics_bench import broken, fleet_of, query, tiny

ONE_START = StoppingRule(starts=1)


def plan_of(problem, policy=None, stop=ONE_START, seed=0):
    plan = (policy or Agh()).plan(problem, incumbent=None, stop=stop, seed=seed)
    assert not broken(problem, plan_arrays(problem, plan))
    return plan


def test_starts_are_sorted_orders_then_random_permutations():
    types = [
        query("a", arrival_per_h=2.0, error_slo=0.3, token_storage_gb_per_token=1.0),
        query("b", arrival_per_h=3.0, error_slo=0.1, token_storage_gb_per_token=0.1),
        query("c", arrival_per_h=1.0, error_slo=0.2, token_storage_gb_per_token=9.0),
    ]
    problem = tiny([("m", "a", 1)], types, prices={"a": 1.0}, delay_s=0.1, load=0.1)
    made = [list(order) for order in orders(problem, 12, seed=5)]
    by_rate, by_error, by_storage = [1, 0, 2], [0, 2, 1], [2, 0, 1]
    assert made[:6] == [by_rate, by_rate[::-1], by_error, by_error[::-1], by_storage, by_storage[::-1]]
    assert all(sorted(order) == [0, 1, 2] for order in made[6:])
    assert len({tuple(order) for order in made[6:]}) > 1
    assert [list(order) for order in orders(problem, 9, seed=5)] == made[:9]
    assert [list(order) for order in islice(orders(problem, 12, seed=6), 6, None)] != made[6:]


def test_a_second_start_escapes_what_the_first_one_cannot():
    problem = tiny(
        [("m", "shared", 1), ("m", "own", 1)],
        [query("p", arrival_per_h=200.0, delay_penalty_usd_per_query_s=0.01), query("q")],
        prices={"shared": 3.0, "own": 2.0},
        delay_s=[[0.5, 0.4], [0.5, 2.0]],
        load=0.4,
    )
    construction = Agh(local=False, consolidate=False)
    apart, together = {("m", "own", 1): 1, ("m", "shared", 1): 1}, {("m", "shared", 1): 1}
    assert fleet_of(problem, plan_of(problem, construction)) == apart  # p comes first
    assert fleet_of(problem, plan_of(problem, construction, StoppingRule(starts=2))) == together  # q comes first


def test_relocate_moves_a_type_to_where_there_is_room():
    """p alone fills the tight deployment; q then opens a large one, which has room for p as well."""
    problem = tiny(
        [("m", "tight", 1), ("m", "large", 1)],
        [query("p", arrival_per_h=200.0), query("q", delay_slo_s=0.5)],
        prices={"tight": 2.0, "large": 3.0},
        delay_s=[[0.8, 0.4]],
        load=[1.0, 0.5],
    )
    apart = {("m", "tight", 1): 1, ("m", "large", 1): 1}
    together = {("m", "large", 1): 1}
    assert fleet_of(problem, plan_of(problem, Gh())) == apart
    assert fleet_of(problem, plan_of(problem, Agh(local=False, consolidate=False))) == apart
    assert fleet_of(problem, plan_of(problem, Agh(consolidate=False))) == together
    assert fleet_of(problem, plan_of(problem, Agh(local=False))) == together  # closing `tight` comes to the same


def test_relocating_one_type_opens_a_deployment_that_pays():
    """GH leaves p where there is room; a deployment of its own costs 3 USD and spares it 7 USD of delay."""
    problem = tiny(
        [("m", "a", 1), ("m", "b", 1)],
        [query("s", arrival_per_h=200.0), query("p", delay_penalty_usd_per_query_s=0.1)],
        prices={"a": 5.0, "b": 3.0},
        delay_s=[[0.5, 2.0], [0.8, 0.1]],
        load=0.1,
    )
    assert fleet_of(problem, plan_of(problem, Agh(local=False))) == {("m", "a", 1): 1}
    plan = plan_of(problem, Agh(consolidate=False))
    assert fleet_of(problem, plan) == {("m", "a", 1): 1, ("m", "b", 1): 1}
    assert plan.cost_usd == pytest.approx(5.0 + 3.0 + 1.0)


def test_relocation_upgrades_only_with_m3():
    problem = tiny(
        [("m", "a", 1), ("m", "a", 2), ("m", "b", 1)],
        [query("many", arrival_per_h=200.0), query("few", delay_slo_s=0.5)],
        prices={"a": 2.0, "b": 1.5},
        delay_s=[1.0, 0.5, 0.5],
        load=[0.4, 0.2, 0.8],
        allowed=[[True, True, False], [True, True, True]],
        weights_gb=2.5,
        storage_price=1.0,
    )
    apart = {("m", "a", 1): 1, ("m", "b", 1): 1}
    assert fleet_of(problem, plan_of(problem, Agh(m3=False, consolidate=False))) == apart
    assert fleet_of(problem, plan_of(problem, Agh(consolidate=False))) == {("m", "a", 2): 1}


def shareable():
    """GH opens one deployment for each type; one that suits both costs less than the two."""
    return tiny(
        [("m", "both", 1), ("m", "p", 1), ("m", "q", 1)],
        [query("p", arrival_per_h=200.0), query("q")],
        prices={"both": 3.0, "p": 2.0, "q": 2.0},
        delay_s=[[0.5, 0.5, 2.0], [0.5, 2.0, 0.5]],
        load=0.4,
    )


def test_relocating_a_deployment_opens_another_in_its_place():
    problem = shareable()
    apart = {("m", "p", 1): 1, ("m", "q", 1): 1}
    assert fleet_of(problem, plan_of(problem, Agh(local=False))) == apart
    assert fleet_of(problem, plan_of(problem, Agh(consolidate=False))) == {("m", "both", 1): 1}


def exact_and_small(price):
    """GH serves p on the exact model alone; the error budget lets the small model, opened for q, take 80 % of it."""
    return tiny(
        [("exact", "a", 1), ("small", "b", 1)],
        [query("p", arrival_per_h=200.0, error_slo=0.08), query("q", delay_slo_s=0.3)],
        prices={"a": price, "b": 5.0},
        delay_s=[[0.5, 0.2]],
        error=[[0.0, 0.1]],
        load=[[2.0, 0.2]],
    )


@pytest.mark.parametrize(("price", "replicas"), [(15.0, 1), (50.0, 0)])
def test_consolidation_gives_back_a_replica_or_empties_a_deployment(price, replicas):
    """Without the exact model 20 % of p are unmet, which costs 40 USD."""
    problem = exact_and_small(price)
    before = fleet_of(problem, plan_of(problem, Agh(local=False, consolidate=False)))
    assert before == {("exact", "a", 1): 2, ("small", "b", 1): 1}
    after = fleet_of(problem, plan_of(problem, Agh(local=False)))
    assert after.pop(("small", "b", 1)) == 1
    assert after.get(("exact", "a", 1), 0) == replicas


def test_consolidation_takes_a_smaller_configuration():
    """q needs TP 2 only as long as it is served by the exact model, and s opens a small one that suits q too."""
    problem = tiny(
        [("exact", "a", 1), ("exact", "a", 2), ("small", "b", 1)],
        [query("p", arrival_per_h=200.0), query("q", delay_slo_s=0.5), query("s", delay_slo_s=0.1)],
        prices={"a": 30.0, "b": 5.0},
        delay_s=[[0.8, 0.4, 0.1]],
        error=[[0.0, 0.0, 2.0], [0.0, 0.0, 0.4], [0.0, 0.0, 0.4]],
        load=[0.2, 0.1, 0.2],
    )
    before = plan_of(problem, Agh(local=False, consolidate=False))
    assert fleet_of(problem, before) == {("exact", "a", 2): 1, ("small", "b", 1): 1}
    assert fleet_of(problem, plan_of(problem, Agh(local=False))) == {("exact", "a", 1): 1, ("small", "b", 1): 1}


def test_consolidation_reshapes_for_no_more_rent():
    """Two replicas of TP 1 become one of TP 2, which is as dear and faster; a second one would not pay."""
    problem = tiny(
        [("m", "a", 1), ("m", "a", 2)],
        [query("q", delay_penalty_usd_per_query_s=0.01)],
        prices={"a": 10.0},
        delay_s=[1.0, 0.5],
        load=[2.0, 1.0],
    )
    assert fleet_of(problem, plan_of(problem, Agh(local=False, consolidate=False))) == {("m", "a", 1): 2}
    assert fleet_of(problem, plan_of(problem, Agh(local=False))) == {("m", "a", 2): 1}


def test_mixes_deployments_that_only_together_keep_the_limits():
    problem = tiny(
        [("exact", "a", 1), ("small", "b", 1)],
        [query("p", error_slo=0.1, delay_penalty_usd_per_query_s=0.1), query("q", error_slo=0.5, delay_slo_s=0.3)],
        prices={"a": 5.0, "b": 1.0},
        delay_s=[[0.8, 0.1]],
        error=[[0.0, 0.2]],
        load=0.1,
    )
    shares = {(r.query_type, r.model): r.share for r in plan_of(problem).routing}
    assert shares["p", "exact"] == pytest.approx(0.5)
    assert shares["p", "small"] == pytest.approx(0.5)


def test_unmet_caps_are_kept_though_the_penalty_is_cheaper():
    problem = tiny(
        [("m", "a", 1)],
        [query("q", unmet_cap=0.25, unmet_penalty_usd_per_query=0.0)],
        prices={"a": 1.0},
        delay_s=0.1,
        load=2.0,
    )
    plan = plan_of(problem)
    assert plan.deployments[0].replicas == 2
    assert plan.cost_usd == pytest.approx(2.0)
    free = replace(problem, query_types=(replace(problem.query_types[0], unmet_cap=1.0),))
    assert plan_of(free).deployments == ()


def test_stopping_rules():
    problem = shareable()
    assert plan_of(problem, stop=StoppingRule()).status is PlanStatus.FEASIBLE
    late = plan_of(problem, stop=StoppingRule(time_limit_s=0.0))
    assert late.status is PlanStatus.TIME_LIMIT
    none_tried = plan_of(problem, stop=StoppingRule(starts=1, iterations=0))
    assert fleet_of(problem, late) == fleet_of(problem, none_tried) == fleet_of(problem, plan_of(problem, Gh()))


def test_a_cheap_fleet_that_nearly_keeps_the_unmet_cap_is_no_plan():
    """At TP 1, 69 % fit the delay SLO and 1 % too much is dropped: no saved rent makes up for that."""
    problem = tiny(
        [("m", "a", 1), ("m", "a", 4)],
        [query("q", delay_slo_s=0.4, unmet_cap=0.3, unmet_penalty_usd_per_query=0.0)],
        prices={"a": 10.0},
        delay_s=[[0.58, 0.1]],
        load=0.1,
    )
    assert [d.configuration.tensor_parallel for d in plan_of(problem).deployments] == [4]


def test_names_and_infeasibility():
    assert Agh().name == "agh"
    assert Agh(m2=False, local=False, consolidate=False).name == "agh[-m2,-local,-consolidate]"
    problem = tiny(
        [("m", "a", 1)], [query("q", unmet_cap=0.1)], prices={"a": 1.0}, delay_s=0.1, load=4.0, budget_usd=2.0
    )
    with pytest.raises(InfeasibleError, match=r"budget of 2 USD per 1 h is too small .* agh would spend 4.00 USD .* q"):
        plan_of(problem)
    with pytest.raises(InfeasibleError, match=r"agh found no plan that keeps the unmet caps in 0.0 s"):
        plan_of(problem, stop=StoppingRule(time_limit_s=0.0))


@pytest.mark.parametrize("name", ["6x6x10-seed0", "6x6x10-seed3", "10x10x10-seed1"])
def test_real_problems(data_dir, name):
    problem = read_problem(data_dir / "problems" / f"{name}.json.gz")
    gh, agh = plan_of(problem, Gh()), plan_of(problem, stop=StoppingRule())
    assert agh.cost_usd <= gh.cost_usd
    for plan in (gh, agh):
        assert plan.cost_usd == pytest.approx(sum(plan_cost_usd(problem, plan_arrays(problem, plan)).values()))
    again = plan_of(problem, stop=StoppingRule())
    assert replace(again, seconds=0.0) == replace(agh, seconds=0.0)
    # Costs of the best known plans, from the README of the problems; the prototype of AGH was 7-13 % away.
    best_usd = {"6x6x10-seed0": 83.594796, "6x6x10-seed3": 91.013430, "10x10x10-seed1": 105.161805}[name]
    assert best_usd * (1 - 1e-6) <= agh.cost_usd <= 1.10 * best_usd
