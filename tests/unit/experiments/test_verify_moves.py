"""Even routings against a linear program of the tests' own, and fleets that are a step smaller or larger."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from experiments.verify.moves import MOST_CAP_RATIO, even_routing, larger_fleets, smaller_fleets, with_cap_ratio
from policies.checking.plan import check
from policies.checking.random_problem import random_problem, with_demand, with_operating_points, with_types
from simulator.planning.plan import plan_arrays


def problem_of(seed, **changes):
    """Of different caps and demands, so that caps do bind; limits are loose for every other seed."""
    parts = {"budget_usd": 1e5, "storage_capacity_gb": 1e5} | changes
    problem = with_operating_points(random_problem(types=3, models=2, tiers=2, seed=seed, **parts))
    problem = replace(problem, cap=np.resize([0.2, 0.5, 0.8], len(problem.configurations)))
    if seed % 2:
        problem = with_types(problem, delay_slo_s=60.0, error_slo=1.0)
    return with_demand(problem, np.full(3, [1.0, 3.0, 6.0][seed // 2 % 3]))


def some_fleet(problem, seed):
    """Up to `max_replicas` of one configuration of each pair, of some pairs."""
    draw = np.random.default_rng(seed)
    fleet = np.zeros(len(problem.configurations), dtype=np.int64)
    for columns in problem.configurations_of_pair.values():
        fleet[draw.choice(columns)] = draw.integers(0, problem.max_replicas + 1)
    return fleet


def least_cap_ratio(problem, fleet):
    """The lowest ratio of load to cap of all routings that serve all demand: a linear program in shares and that ratio.

    None where there is no routing.

    A replica takes `cap_ratio` times its cap, but never more than its whole load, and KV tokens in the same proportion.
    """
    types = len(problem.query_types)
    deployed = np.flatnonzero(fleet)
    places = [(i, a) for i in range(types) for a in deployed if problem.allowed[i, a]]
    rows, limits = [], []

    def at_most(weight, limit, cap_ratio=0.0):
        rows.append([*(weight(i, a) for i, a in places), -cap_ratio])
        limits.append(limit)

    for d in deployed:
        r, cap = fleet[d], problem.cap[d]
        at_most(lambda i, a, d=d: problem.load[i, a] * (a == d), 0.0, cap * r)
        at_most(lambda i, a, d=d: problem.load[i, a] * (a == d), r)
        at_most(lambda i, a, d=d: problem.kv[i, a] * (a == d), 0.0, r)
        at_most(lambda i, a, d=d: problem.kv[i, a] * (a == d), r / cap)
    for t, query_type in enumerate(problem.query_types):
        at_most(lambda i, a, t=t: problem.delay_s[i, a] * (i == t), query_type.delay_slo_s)
        at_most(lambda i, a, t=t: problem.error[i, a] * (i == t), query_type.error_slo)
    weights_gb = sum({problem.configurations[a].pair: problem.model_storage_gb[a] for a in deployed}.values())
    tokens_gb = [
        q.token_storage_gb_per_token * (q.input_tokens + q.output_tokens) * q.arrival_per_h for q in problem.query_types
    ]
    at_most(lambda i, _: tokens_gb[i], problem.storage_capacity_gb - weights_gb)
    price = problem.storage_price_usd_per_gb_h * problem.period_h
    at_most(
        lambda i, _: price * tokens_gb[i], problem.budget_usd - price * weights_gb - float(problem.rent_usd @ fleet)
    )
    served = [[float(i == t) for i, _ in places] + [0.0] for t in range(types)]
    cost = [0.0] * len(places) + [1.0]
    found = linprog(cost, A_ub=rows, b_ub=limits, A_eq=served, b_eq=np.ones(types), bounds=(0, None))
    return float(found.x[-1]) if found.status == 0 else None


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_no_routing_of_a_fleet_is_evener_by_more_than_3_5_percent(seed):
    """And the plan keeps every constraint, serves all, and has the fleet that was asked for."""
    problem = problem_of(seed)
    fleet = some_fleet(problem, seed)
    least = least_cap_ratio(problem, fleet)
    found = even_routing(problem, fleet, policy="test")
    if least is None or least > MOST_CAP_RATIO * 1.000001:
        assert found is None
        return
    if found is None:
        assert least > MOST_CAP_RATIO * 0.999999
        return
    assert least * 0.999999 <= found.cap_ratio <= max(least * 1.0353, 0.05)
    assert check(found.problem, found.plan).accepted
    assert found.plan.unmet == ()
    arrays = plan_arrays(problem, found.plan)
    assert (arrays.replicas == fleet).all()
    load = (problem.load * arrays.share).sum(axis=0)[fleet > 0] / (problem.cap * fleet)[fleet > 0]
    assert load.max(initial=0.0) <= found.cap_ratio * 1.000001


def test_the_problems_of_the_tests_go_both_ways():
    """Some fleets serve all within the headroom, some beyond it, some not at all."""
    kinds = Counter()
    for seed in range(200):
        problem = problem_of(seed)
        least = least_cap_ratio(problem, some_fleet(problem, seed))
        kinds["none" if least is None else "beyond" if least > 1 else "within"] += 1
    assert min(kinds[kind] for kind in ("none", "beyond", "within")) > 10, kinds


def test_a_fleet_that_cannot_is_none():
    problem = problem_of(0)
    assert even_routing(problem, np.zeros(len(problem.configurations), dtype=np.int64), policy="test") is None
    poor = problem_of(0, budget_usd=1e-3)
    fleet = np.zeros(len(poor.configurations), dtype=np.int64)
    fleet[0] = poor.max_replicas
    assert even_routing(poor, fleet, policy="test") is None


@pytest.mark.parametrize(
    ("cap_ratio", "cap", "kv"),
    [(0.5, [0.1, 0.25, 0.4], [2, 2, 2]), (1, [0.2, 0.5, 0.8], [1, 1, 1]), (2, [0.4, 1, 1], [0.5, 0.5, 0.8])],
)
def test_a_cap_ratio_raises_caps_to_the_limit_at_most(cap_ratio, cap, kv):
    """Headroom on KV goes with that on the load: at a cap of 1 the tokens that are planned may fill the cache."""
    problem = problem_of(1)
    borne = with_cap_ratio(problem, cap_ratio)
    assert borne.cap[:3] == pytest.approx(cap)
    assert borne.kv[:, :3] == pytest.approx(problem.kv[:, :3] * kv)
    assert (borne.load is problem.load, borne.allowed is problem.allowed) == (True, True)


@pytest.fixture(scope="module")
def planned():
    """Problems with a plan of them each."""
    found = []
    for seed in range(40):
        problem = with_types(problem_of(seed), delay_slo_s=60.0, error_slo=1.0)
        fleet = some_fleet(problem, seed)
        candidate = even_routing(problem, fleet, policy="test", most_cap_ratio=100.0)
        if candidate is not None:
            found.append((problem, fleet, candidate.plan))
    assert len(found) > 10
    return found


def one_configuration_per_pair(problem, fleet):
    pairs = [problem.configurations[a].pair for a in np.flatnonzero(fleet)]
    return len(set(pairs)) == len(pairs)


def test_smaller_fleets_rent_for_less_and_are_one_step_away(planned):
    for problem, fleet, plan in planned:
        rent = problem.rent_usd
        found = list(smaller_fleets(problem, plan))
        saved = [float(rent @ fleet - rent @ smaller) for smaller in found]
        assert all(saving > 0 for saving in saved)
        assert len({tuple(smaller) for smaller in found}) == len(found)
        for smaller in found:
            assert one_configuration_per_pair(problem, smaller)
            assert smaller.min() >= 0
            assert smaller.max() <= problem.max_replicas
            gone, come = np.maximum(fleet - smaller, 0), np.maximum(smaller - fleet, 0)
            assert gone.sum() == 1
            assert come.sum() <= 3
        one_less = [smaller for smaller in found if smaller.sum() == fleet.sum() - 1]
        assert len(one_less) == np.count_nonzero(fleet)


def test_every_cheaper_exchange_is_there(planned):
    exchanges = 0
    for problem, fleet, plan in planned:
        usable = problem.allowed.any(axis=0)
        found = {tuple(smaller) for smaller in smaller_fleets(problem, plan)}
        for out in np.flatnonzero(fleet):
            for into in np.flatnonzero(usable & (problem.rent_usd < problem.rent_usd[out])):
                step = fleet.copy()
                step[out] -= 1
                step[into] += 1
                if one_configuration_per_pair(problem, step) and step[into] <= problem.max_replicas:
                    exchanges += 1
                    assert tuple(step) in found
    assert exchanges > 20


def test_larger_fleets_begin_where_they_are_needed(planned):
    for problem, fleet, plan in planned:
        first = [int(np.flatnonzero(fleet)[-1])]
        found = list(larger_fleets(problem, plan, first))
        grown = [int(np.flatnonzero(larger - fleet)[0]) for larger in found]
        room = [a for a in np.flatnonzero(fleet).tolist() if fleet[a] < problem.max_replicas]
        assert sorted(grown[: len(room)]) == room, "what is there comes before what is new"
        new = [problem.rent_usd[a] for a in grown[len(room) :]]
        assert new == sorted(new)
        assert all(one_configuration_per_pair(problem, larger) for larger in found)
        assert all((larger - fleet).sum() == 1 for larger in found)
        if first[0] in room:
            assert grown[0] == first[0]
