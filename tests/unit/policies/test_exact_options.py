"""Deployment options: how many replicas are worth a thought, and which options others replace."""

from dataclasses import replace

import numpy as np
import pytest

from policies.exact.options import deployment_options
from policies.heuristics.coverage import largest_share
from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.planning.problem import CapacityRows, PlanningProblem, QueryType

TYPE = QueryType(
    name="chat", arrival_per_h=3600.0, input_tokens=10.0, output_tokens=10.0, delay_slo_s=2.0, error_slo=0.1
)
TIER = TierSize(
    name="s",
    memory_gb=80.0,
    compute_tflops=100.0,
    compute_efficiency=0.5,
    bandwidth_gb_s=1000.0,
    price_usd_per_gpu_h=1.0,
    weight_factor=1.0,
)


def problem(degrees, *, load, delay_s=None, kv=None, tiers="s", **changes):
    """One type; a configuration per TP degree on each tier, with its load, delay and KV use."""
    configurations = tuple(
        Configuration(model="m", tier=tier, tensor_parallel=n, pipeline_parallel=1) for tier in tiers for n in degrees
    )
    count = len(configurations)
    parts = {
        "name": "by-hand",
        "period_h": 1.0,
        "budget_usd": 100.0,
        "storage_price_usd_per_gb_h": 0.0,
        "storage_capacity_gb": 100.0,
        "max_replicas": 4,
        "query_types": (TYPE,),
        "models": (ModelSize(name="m", parameters_b=1.0, weights_gb=2.0, kv_mb_per_token=0.1),),
        "tiers": tuple(replace(TIER, name=tier) for tier in tiers),
        "configurations": configurations,
        "delay_s": np.array([delay_s or [1.0] * count]),
        "error": np.full((1, count), 0.05),
        "load": np.array([load]),
        "kv": np.array([kv or [0.1] * count]),
        "cap": np.ones(count),
        "allowed": np.ones((1, count), dtype=bool),
        "capacity_rows": CapacityRows.BATCHING,
    }
    return PlanningProblem(**(parts | changes))


def chosen(made):
    options = deployment_options(made)
    return list(zip(options.configuration.tolist(), options.replicas.tolist(), strict=True))


def test_no_more_replicas_than_the_demand_can_use():
    assert chosen(problem([1], load=[2.5])) == [(0, 1), (0, 2), (0, 3)]
    assert chosen(problem([1], load=[2.0])) == [(0, 1), (0, 2)]
    assert chosen(problem([1], load=[0.0])) == [(0, 1)], "a type that asks nothing still needs a replica"
    assert chosen(problem([1], load=[0.5], kv=[1.2])) == [(0, 1), (0, 2)]
    assert chosen(problem([1], load=[50.0])) == [(0, r) for r in (1, 2, 3, 4)], "max_replicas"


def test_only_the_share_that_the_limits_allow_counts():
    slow = problem([1], load=[2.5], delay_s=[4.0])
    assert largest_share(slow).tolist() == [[0.5]]
    assert chosen(slow) == [(0, 1), (0, 2)]
    assert chosen(problem([1], load=[2.5], cap=np.array([0.5]))) == [(0, r) for r in (1, 2, 3, 4)]


def test_as_many_gpus_in_other_replicas_replace_each_other():
    """Two replicas of TP1 cost as much as one of TP2: whichever is no worse for anybody stays."""
    assert chosen(problem([1, 2], load=[1.8, 0.9])) == [(0, 1), (0, 2)], "equal: the first"
    assert chosen(problem([1, 2], load=[1.8, 0.9], delay_s=[1.0, 0.9])) == [(0, 1), (1, 1)], "TP2 is faster"
    smaller = problem([1, 2], load=[1.8, 1.2], delay_s=[1.0, 0.9])
    assert chosen(smaller) == [(0, 1), (0, 2), (1, 1), (1, 2)], "faster, but two small ones hold more"
    assert chosen(problem([1, 2], load=[0.9, 0.45], kv=[2.5, 0.9])) == [(0, 1), (1, 1)], "room for the KV cache"


def test_another_tier_replaces_nothing():
    """Both may be needed at once: at most one configuration of a (model, tier) is deployed, max_replicas of it."""
    assert chosen(problem([1], load=[0.5, 0.5], tiers="st")) == [(0, 1), (1, 1)]


def test_of_equals_the_first_stays():
    twin = Configuration(model="m", tier="s", tensor_parallel=1, pipeline_parallel=1, tpot_target_s=0.1)
    equal = problem([1, 1], load=[0.5, 0.5])
    equal = replace(equal, configurations=(equal.configurations[0], twin))
    assert chosen(equal) == [(0, 1)]


def test_what_cannot_be_paid_or_stored_is_no_option():
    assert chosen(problem([1], load=[2.5], budget_usd=2.0)) == [(0, 1), (0, 2)]
    assert chosen(problem([1], load=[2.5], storage_capacity_gb=1.0)) == []
    assert chosen(problem([1], load=[2.5], allowed=np.array([[False]]))) == []
    assert chosen(problem([1], load=[2.5], cap=np.array([0.0]))) == []
    assert chosen(problem([1], load=[0.0], cap=np.array([0.0]))) == [(0, 1)], "what needs no capacity finds it"


def test_taking_some_keeps_the_order():
    options = deployment_options(problem([1, 2], load=[2.5, 1.2], delay_s=[1.0, 0.5]))
    some = options.take(np.array([2, 0]))
    assert some.fixed_usd.tolist() == options.fixed_usd[[2, 0]].tolist()
    assert some.load.tolist() == options.load[:, [2, 0]].tolist()
    with pytest.raises(IndexError):
        options.take(np.array([99]))
