"""What dominance leaves out never matters: exhaustively over the placements of tiny problems, each routed by its LP.

The numbers are small integers, so that configurations are often equal in some respect and often better in all.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.heuristics.coverage import largest_share
from policies.heuristics.dominance import dominated, undominated, useful_replicas
from policies.heuristics.routing import route
from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.planning.plan import plan_cost_usd
from simulator.planning.problem import CapacityRows, PlanningProblem, QueryType

MAX_REPLICAS = 3


def problem_of(kinds, types, **arrays):
    """A `batching` problem on tiers `s` and `t`: `kinds` are (tier, TP) of the configurations."""
    model = ModelSize(name="m", parameters_b=1.0, weights_gb=2.0, kv_mb_per_token=0.1)
    tier = TierSize(
        name="s",
        memory_gb=24.0,
        compute_tflops=10.0,
        compute_efficiency=0.5,
        bandwidth_gb_s=500.0,
        price_usd_per_gpu_h=1.0,
        weight_factor=1.0,
    )
    shape = (len(types), len(kinds))
    parts = {
        "name": "tiny",
        "period_h": 1.0,
        "budget_usd": 20.0,
        "storage_price_usd_per_gb_h": 0.1,
        "storage_capacity_gb": 10.0,
        "max_replicas": MAX_REPLICAS,
        "query_types": tuple(types),
        "models": (model,),
        "tiers": (tier, replace(tier, name="t", price_usd_per_gpu_h=1.5)),
        "configurations": tuple(
            Configuration(model="m", tier=name, tensor_parallel=degree, pipeline_parallel=1, tpot_target_s=0.01 * n)
            for n, (name, degree) in enumerate(kinds, start=1)
        ),
        "delay_s": np.ones(shape),
        "error": np.ones(shape),
        "load": np.ones(shape),
        "kv": np.ones(shape),
        "cap": np.ones(shape[1]),
        "allowed": np.ones(shape, dtype=bool),
        "capacity_rows": CapacityRows.BATCHING,
    }
    return PlanningProblem(**(parts | arrays))


TYPE = QueryType(
    name="chat",
    arrival_per_h=100.0,
    input_tokens=10.0,
    output_tokens=10.0,
    delay_slo_s=2.0,
    error_slo=2.0,
    delay_penalty_usd_per_query_s=0.001,
    unmet_penalty_usd_per_query=0.1,
)


@st.composite
def problems(draw):
    types = [
        replace(
            TYPE,
            name=name,
            delay_slo_s=draw(st.sampled_from([1.0, 2.0, 3.0])),
            error_slo=draw(st.sampled_from([0.0, 1.0, 2.0])),
            delay_penalty_usd_per_query_s=draw(st.sampled_from([0.0, 0.01])),
            unmet_penalty_usd_per_query=draw(st.sampled_from([0.01, 0.1])),
            unmet_cap=draw(st.sampled_from([0.4, 1.0, 1.0])),
        )
        for name in ("chat", "code")
    ]
    kinds = [("s", draw(st.sampled_from([1, 2]))) for _ in range(3)]
    kinds += [("t", draw(st.sampled_from([1, 2]))) for _ in range(draw(st.integers(0, 2)))]

    def table(*values):
        return np.array([[draw(st.sampled_from(values)) for _ in kinds] for _ in types])

    return problem_of(
        kinds,
        types,
        delay_s=table(1.0, 1.0, 2.0, 4.0),
        error=table(0.0, 0.0, 1.0, 3.0),
        load=table(0.0, 0.3, 0.6, 1.2, 2.4),
        kv=table(0.0, 0.5, 0.5, 1.5),
        cap=np.array([draw(st.sampled_from([0.5, 0.8, 0.8, 1.0])) for _ in kinds]),
        allowed=table(True, True, True, False),
        budget_usd=draw(st.sampled_from([1.9, 4.0, 8.0, 20.0])),
        storage_capacity_gb=draw(st.sampled_from([1.0, 3.0, 10.0, 10.0])),
    )


def placements(problem):
    """All numbers of replicas with at most one configuration of each (model, tier)."""
    choices = [
        [(0, 0), *product(columns.tolist(), range(1, problem.max_replicas + 1))]
        for columns in problem.configurations_of_pair.values()
    ]
    for chosen in product(*choices):
        replicas = np.zeros(len(problem.configurations), dtype=np.int64)
        for a, count in chosen:
            if count:
                replicas[a] = count
        yield replicas


def routed_usd(problem, replicas):
    arrays = route(problem, replicas)
    return np.inf if arrays is None else sum(plan_cost_usd(problem, arrays).values())


@settings(max_examples=120, deadline=None)
@given(problem=problems())
def test_what_is_dominated_never_matters(problem):
    """Every fleet with a dominated configuration has one without that costs no more, so the optimum stays."""
    out, useful = dominated(problem), useful_replicas(problem)
    assert ((useful >= 1) & (useful <= MAX_REPLICAS)).all()
    costs = {tuple(replicas.tolist()): routed_usd(problem, replicas) for replicas in placements(problem)}
    kept = [c for replicas, c in costs.items() if not np.array(replicas)[out].any() and (replicas <= useful).all()]
    assert min(kept) == pytest.approx(min(costs.values()), rel=1e-9, abs=1e-9)
    for replicas, cost_usd in costs.items():
        if np.isfinite(cost_usd):
            fleet = undominated(problem, np.array(replicas))
            assert not fleet[out].any()
            assert (fleet <= useful).all()
            assert problem.rent_usd @ fleet <= problem.rent_usd @ np.array(replicas) + 1e-9
            assert costs[tuple(fleet.tolist())] <= cost_usd + 1e-9 * max(1.0, cost_usd)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), data=st.data())
def test_the_order_of_configurations_changes_only_which_of_equals_stays(problem, data):
    order = np.array(data.draw(st.permutations(range(len(problem.configurations)))))
    arrays = {name: getattr(problem, name)[:, order].copy() for name in ("delay_s", "error", "load", "kv", "allowed")}
    shuffled = replace(
        problem, configurations=tuple(problem.configurations[a] for a in order), cap=problem.cap[order].copy(), **arrays
    )
    best = min(
        routed_usd(problem, replicas) for replicas in placements(problem) if not replicas[dominated(problem)].any()
    )
    again = min(
        routed_usd(shuffled, replicas) for replicas in placements(shuffled) if not replicas[dominated(shuffled)].any()
    )
    assert again == pytest.approx(best, rel=1e-9, abs=1e-9)


def three(**arrays):
    """Three configurations of one pair on one GPU each, one type; equal but for what is given."""
    return problem_of([("s", 1)] * 3, [TYPE], **arrays)


def row(*values):
    return np.array([values])


@pytest.mark.parametrize(
    ("arrays", "left"),
    [
        ({}, [0]),  # all equal: the first stays
        ({"delay_s": row(2.0, 1.0, 1.0)}, [1]),
        ({"error": row(1.0, 1.0, 0.5)}, [2]),
        ({"delay_s": row(1.0, 2.0, 1.0), "error": row(1.0, 0.5, 1.0)}, [0, 1]),  # faster or better
        ({"load": row(1.0, 2.0, 0.5)}, [0]),  # one replica of the first or the third holds all there is
        ({"load": row(1.5, 1.25, 1.75)}, [1]),
        ({"kv": row(3.0, 2.0, 1.5)}, [2]),
        ({"allowed": row(True, False, False)}, [0]),
        ({"cap": np.array([0.0, 1.0, 1.0])}, [1]),
        ({"budget_usd": 1.1}, []),  # one replica is 1 USD and the weights are 0.2
        ({"storage_capacity_gb": 1.9}, []),
    ],
)
def test_three_configurations_by_hand(arrays, left):
    problem = three(**arrays)
    assert np.flatnonzero(~dominated(problem)).tolist() == left


def test_two_small_replicas_take_the_place_of_a_large_one_but_not_the_other_way_round():
    """1 GPU at load 0.9 and 2 GPUs at load 0.5, as fast: for the same rent two small ones carry more."""
    problem = problem_of([("s", 1), ("s", 2)], [replace(TYPE, name=n) for n in "ab"], load=np.array([[0.9, 0.5]] * 2))
    assert useful_replicas(problem).tolist() == [2, 2]  # kv: both types fill one replica each
    assert dominated(problem).tolist() == [False, True]
    assert undominated(problem, np.array([0, 1])).tolist() == [2, 0]
    assert undominated(problem, np.array([0, 2])).tolist() == [2, 0], "no more than is useful"


def test_the_largest_share_by_hand():
    problem = three(delay_s=row(4.0, 1.0, 1.0), error=row(1.0, 8.0, 1.0), allowed=row(True, True, False))
    assert largest_share(problem).tolist() == [[0.5, 0.25, 0.0]]
