"""Every planner against the truth: all placements of a tiny problem, each routed by an LP of its own."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from policies.checking.plan import check
from policies.checking.verify import verify
from policies.heuristics.routing import route
from policies.registry import make_policy
from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.errors import InfeasibleError
from simulator.planning.paper_rows import paper_problem
from simulator.planning.plan import PlanStatus, plan_cost_usd
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import CapacityRows, PlanningProblem, QueryType

MAX_REPLICAS = 2
HEURISTICS = ("gh", "gh[-m1]", "agh", "agh[-m3,-local]")


def tenths(low, high):
    """Multiples of 0.1: coarse numbers, so that limits are met exactly or clearly missed."""
    return st.integers(low, high).map(lambda n: n / 10)


@st.composite
def problems(draw):
    rows = draw(st.sampled_from(CapacityRows))
    models = [
        ModelSize(
            name=name,
            parameters_b=draw(tenths(20, 120)),
            weights_gb=draw(tenths(20, 120)),
            kv_mb_per_token=draw(tenths(20, 200)),
        )
        for name in ("m", "n")
    ]
    tiers = [
        TierSize(
            name=name,
            memory_gb=draw(tenths(80, 200)),
            compute_tflops=draw(tenths(20, 100)),
            compute_efficiency=0.5,
            bandwidth_gb_s=500.0,
            price_usd_per_gpu_h=draw(tenths(1, 30)),
            weight_factor=draw(st.sampled_from([0.5, 1.0])),
        )
        for name in ("s", "t")
    ]
    kinds = st.tuples(st.sampled_from("mn"), st.sampled_from("st"), st.sampled_from([1, 2]))
    configurations = [
        Configuration(
            model=model,
            tier=tier,
            tensor_parallel=degree,
            pipeline_parallel=1,
            tpot_target_s=0.05 if rows is CapacityRows.BATCHING else None,
        )
        for model, tier, degree in draw(st.lists(kinds, min_size=2, max_size=4, unique=True))
    ]
    types = [
        QueryType(
            name=name,
            arrival_per_h=draw(st.sampled_from([360.0, 1800.0, 3600.0])),
            input_tokens=draw(st.sampled_from([20.0, 60.0])),
            output_tokens=draw(st.sampled_from([10.0, 40.0])),
            delay_slo_s=draw(tenths(5, 40)),
            error_slo=draw(tenths(1, 3)),
            delay_penalty_usd_per_query_s=draw(st.sampled_from([0.0, 1e-4, 1e-3])),
            unmet_penalty_usd_per_query=draw(st.sampled_from([0.0, 1e-3, 1e-2])),
            unmet_cap=draw(st.sampled_from([0.0, 0.3, 1.0, 1.0])),
            token_storage_gb_per_token=draw(st.sampled_from([0.0, 1e-5])),
        )
        for name in ("chat", "code", "math")[: draw(st.integers(2, 3))]
    ]

    def table(element):
        return np.array([[draw(element) for _ in configurations] for _ in types])

    delay_s, error = table(tenths(1, 50)), table(tenths(0, 4))
    common = {
        "name": "tiny",
        "period_h": draw(st.sampled_from([0.5, 2.0])),
        "budget_usd": draw(tenths(5, 150)),
        "storage_price_usd_per_gb_h": draw(st.sampled_from([0.0, 0.01])),
        "storage_capacity_gb": draw(tenths(50, 300)),
        "max_replicas": MAX_REPLICAS,
    }
    if rows is CapacityRows.PAPER:
        parts = {"query_types": types, "models": models, "tiers": tiers, "configurations": configurations}
        return paper_problem(**common, **parts, delay_s=delay_s, error=error)
    return PlanningProblem(
        **common,
        query_types=tuple(types),
        models=tuple(models),
        tiers=tuple(tiers),
        configurations=tuple(configurations),
        delay_s=delay_s,
        error=error,
        load=table(tenths(1, 15)),
        kv=table(tenths(0, 15)),
        cap=np.full(len(configurations), draw(st.sampled_from([0.5, 1.0]))),
        allowed=table(st.sampled_from([True, True, True, False])),
        capacity_rows=rows,
    )


def routed_cost_usd(problem, replicas, delay_factor=1.0, error_factor=1.0):
    """Cost of the cheapest routing over a fixed placement by `linprog`, None if there is none."""
    q, hours = problem.query_types, problem.period_h
    types, deployed = range(len(q)), [a for a in range(len(replicas)) if replicas[a]]
    price = {tier.name: tier.price_usd_per_gpu_h for tier in problem.tiers}
    factor = {tier.name: tier.weight_factor for tier in problem.tiers}
    weights = {model.name: model.weights_gb for model in problem.models}
    c = problem.configurations
    rent_usd = sum(hours * price[c[a].tier] * c[a].tensor_parallel * replicas[a] for a in deployed)
    weights_gb = sum(factor[c[a].tier] * weights[c[a].model] for a in deployed)
    storage_usd_per_gb = hours * problem.storage_price_usd_per_gb_h
    tokens_gb = [t.token_storage_gb_per_token * (t.input_tokens + t.output_tokens) * t.arrival_per_h for t in q]

    columns = [(i, a) for i in types for a in deployed]
    width = len(columns) + len(q)
    cost = np.zeros(width)
    bounds = [(0.0, 1.0 if problem.allowed[i, a] else 0.0) for i, a in columns] + [(0.0, t.unmet_cap) for t in q]
    kv_factor = delay_factor if problem.capacity_rows is CapacityRows.PAPER else 1.0
    use, limit = [], []

    def at_most(values, bound):
        use.append([*values, *[0.0] * len(q)])
        limit.append(bound)

    for n, (i, a) in enumerate(columns):
        penalty = hours * q[i].delay_penalty_usd_per_query_s * q[i].arrival_per_h * delay_factor * problem.delay_s[i, a]
        cost[n] = penalty + storage_usd_per_gb * tokens_gb[i]
    for i in types:
        cost[len(columns) + i] = hours * q[i].unmet_penalty_usd_per_query * q[i].arrival_per_h
        at_most([delay_factor * problem.delay_s[k, a] * (k == i) for k, a in columns], q[i].delay_slo_s)
        at_most([error_factor * problem.error[k, a] * (k == i) for k, a in columns], q[i].error_slo)
    for b in deployed:
        at_most([problem.load[i, a] * (a == b) for i, a in columns], problem.cap[b] * replicas[b])
        at_most([kv_factor * problem.kv[i, a] * (a == b) for i, a in columns], replicas[b])
    at_most([tokens_gb[i] for i, _ in columns], problem.storage_capacity_gb - weights_gb)
    left_usd = problem.budget_usd - rent_usd - storage_usd_per_gb * weights_gb
    at_most([storage_usd_per_gb * tokens_gb[i] for i, _ in columns], left_usd)
    demand = [[float(k == i) for k, _ in columns] + [float(k == i) for k in types] for i in types]
    result = linprog(cost, A_ub=use, b_ub=limit, A_eq=demand, b_eq=np.ones(len(q)), bounds=bounds, method="highs")
    return None if result.status == 2 else rent_usd + storage_usd_per_gb * weights_gb + result.fun


def placements(problem):
    """All numbers of replicas with at most one configuration of each (model, tier)."""
    pairs = [configuration.pair for configuration in problem.configurations]
    for replicas in itertools.product(range(MAX_REPLICAS + 1), repeat=len(pairs)):
        deployed = [pair for pair, count in zip(pairs, replicas, strict=True) if count]
        if len(set(deployed)) == len(deployed):
            yield np.array(replicas, dtype=np.int64)


def optimum_usd(problem):
    costs = [routed_cost_usd(problem, replicas) for replicas in placements(problem)]
    return min((cost for cost in costs if cost is not None), default=None)


@settings(max_examples=25, deadline=None, phases=set(Phase) - {Phase.shrink})
@given(problem=problems())
def test_exact_reaches_the_optimum_by_itself_and_proves_it(problem):
    optimum = optimum_usd(problem)
    with pytest.MonkeyPatch.context() as patch:  # no plan to start from, so that the tree has something to do
        patch.setattr("policies.exact.search.Gh.plan", no_plan)
        try:
            proof = make_policy("exact").prove(problem, incumbent=None, stop=StoppingRule(), seed=0)
        except InfeasibleError:
            assert optimum is None
            return
    assert optimum is not None
    assert check(problem, proof.plan).violations == ()
    assert proof.plan.status is PlanStatus.OPTIMAL
    assert proof.plan.cost_usd == pytest.approx(optimum, rel=1e-5, abs=1e-6)
    assert proof.plan.bound_usd == pytest.approx(optimum, rel=1e-5, abs=1e-6)
    verdict = verify(problem, proof.certificate)
    assert verdict.accepted, verdict.reason
    assert verdict.bound_usd == proof.certificate.bound_usd == pytest.approx(proof.plan.bound_usd, abs=1e-9)


def no_plan(*_, **__):
    raise InfeasibleError("not asked")


def plan(problem, policy):
    """The plan of a policy, None if it finds none; never one that the checker refuses."""
    try:
        made = make_policy(policy).plan(problem, incumbent=None, stop=StoppingRule(), seed=0)
    except InfeasibleError:
        return None
    assert check(problem, made).violations == ()
    return made


@settings(max_examples=20, deadline=None, phases=set(Phase) - {Phase.shrink})  # tiny already, and each takes a while
@given(problem=problems())
def test_no_planner_beats_the_optimum_and_milp_reaches_it(problem):
    optimum = optimum_usd(problem)
    with pytest.MonkeyPatch.context() as patch:  # the solver shall find it by itself, not be given AGH's plan
        patch.setattr("policies.milp.policy._heuristic_plan", lambda *_: None)
        exact = plan(problem, "milp")
    assert (exact is None) == (optimum is None)
    for name in HEURISTICS:
        made = plan(problem, name)
        if made is None:
            assert min(t.unmet_cap for t in problem.query_types) < 1, "with caps of one, to serve nothing is a plan"
        else:
            assert optimum is not None
            assert made.cost_usd >= optimum - 1e-6 * max(1.0, optimum), name
    if exact is not None:
        assert exact.status is PlanStatus.OPTIMAL
        assert exact.cost_usd == pytest.approx(optimum, rel=1e-5, abs=1e-6)
        assert exact.bound_usd <= optimum + 1e-6 * max(1.0, optimum)
        assert exact.bound_usd == pytest.approx(optimum, rel=1e-5, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    problem=problems(),
    data=st.data(),
    delay_factor=st.sampled_from([1.0, 1.5]),
    error_factor=st.sampled_from([1.0, 1.2]),
)
def test_routing_over_a_fixed_placement_is_optimal(problem, data, delay_factor, error_factor):
    replicas = data.draw(st.sampled_from(list(placements(problem))))
    expected = routed_cost_usd(problem, replicas, delay_factor, error_factor)
    arrays = route(problem, replicas, delay_factor=delay_factor, error_factor=error_factor)
    assert (arrays is None) == (expected is None)
    if arrays is not None:
        parts = plan_cost_usd(problem, arrays)
        parts["delay_penalty"] *= delay_factor
        assert sum(parts.values()) == pytest.approx(expected, rel=1e-7, abs=1e-7)
        assert arrays.replicas.tolist() == replicas.tolist()
        assert arrays.share.sum(axis=1) + arrays.unmet == pytest.approx(np.ones(len(problem.query_types)))


def two_routes(**changes):
    """One type and two tiers of which one is exact (its error is zero), by hand."""
    tier = TierSize(
        name="s",
        memory_gb=20.0,
        compute_tflops=100.0,
        compute_efficiency=0.5,
        bandwidth_gb_s=500.0,
        price_usd_per_gpu_h=1.0,
        weight_factor=1.0,
    )
    query_type = QueryType(
        name="chat",
        arrival_per_h=360.0,
        input_tokens=20.0,
        output_tokens=10.0,
        delay_slo_s=2.0,
        error_slo=0.0,
        unmet_penalty_usd_per_query=1.0,
    )
    exact = Configuration(model="m", tier="s", tensor_parallel=1, pipeline_parallel=1)
    parts = {
        "name": "two",
        "period_h": 1.0,
        "budget_usd": 10.0,
        "storage_price_usd_per_gb_h": 0.0,
        "storage_capacity_gb": 100.0,
        "max_replicas": MAX_REPLICAS,
        "query_types": [query_type],
        "models": [ModelSize(name="m", parameters_b=1.0, weights_gb=2.0, kv_mb_per_token=0.1)],
        "tiers": [tier, replace(tier, name="t", price_usd_per_gpu_h=0.5)],
        "configurations": [exact, replace(exact, tier="t")],
        "delay_s": np.ones((1, 2)),
        "error": np.array([[0.0, 0.1]]),
    }
    return paper_problem(**(parts | changes))


@pytest.mark.parametrize("policy", ["gh", "agh", "milp", "exact"])
def test_an_error_slo_of_zero_leaves_the_exact_route(policy):
    problem = two_routes()
    made = plan(problem, policy)
    assert made.cost_usd == pytest.approx(optimum_usd(problem)) == 1.0
    assert [deployment.configuration.tier for deployment in made.deployments] == ["s"]


@pytest.mark.parametrize("policy", ["gh", "agh", "milp", "exact"])
def test_a_type_that_asks_nothing_is_served_by_a_replica_all_the_same(policy):
    """No arrivals use no capacity, but a route needs a replica, and an unmet cap of zero needs a route."""
    chat = two_routes().query_types[0]
    problem = two_routes(query_types=[replace(chat, arrival_per_h=0.0, error_slo=0.2, unmet_cap=0.0)])
    made = plan(problem, policy)
    assert made.cost_usd == pytest.approx(optimum_usd(problem)) == 0.5


@pytest.mark.parametrize("policy", ["gh", "agh", "milp", "exact"])
def test_without_any_usable_route_nothing_is_served(policy):
    """What `batching_problem` gives where no configuration is fast enough and everything may stay unmet."""
    full = two_routes()
    nothing = np.zeros((1, 0))
    problem = replace(
        full,
        configurations=(),
        delay_s=nothing,
        error=nothing.copy(),
        load=nothing.copy(),
        kv=nothing.copy(),
        cap=np.zeros(0),
        allowed=nothing.astype(bool),
        capacity_rows=CapacityRows.BATCHING,
    )
    made = plan(problem, policy)
    assert made.cost_usd == 360.0
    assert made.unmet == (("chat", 1.0),)
