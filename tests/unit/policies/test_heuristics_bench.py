"""The bench of the heuristics' tests: tiny problems by hand, and the constraints recomputed entry by entry."""

import numpy as np

from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.planning.plan import PlanArrays
from simulator.planning.problem import CapacityRows, PlanningProblem, QueryType

TOLERANCE = 1e-6


def query(name, **limits):
    """100 queries an hour of 1 + 1 tokens, 1 USD for each that is not served."""
    values = {"arrival_per_h": 100.0, "input_tokens": 1.0, "output_tokens": 1.0, "delay_slo_s": 1.0, "error_slo": 1.0}
    return QueryType(name=name, **{**values, "unmet_penalty_usd_per_query": 1.0, **limits})


def tiny(
    configurations,
    types,
    *,
    prices,
    delay_s,
    load,
    error=0.0,
    kv=0.0,
    allowed=True,
    cap=1.0,
    weights_gb=0.0,
    budget_usd=1e3,
    storage_gb=1e3,
    storage_price=0.0,
    max_replicas=4,
    rows=CapacityRows.PAPER,
):
    """A problem of one hour. `configurations` are (model, tier, TP) or (model, tier, TP, TPOT target)."""
    made = tuple(
        Configuration(model=c[0], tier=c[1], tensor_parallel=c[2], pipeline_parallel=1, tpot_target_s=(*c, None)[3])
        for c in configurations
    )
    shape = (len(types), len(made))

    def table(values, dtype=np.float64):
        return np.array(np.broadcast_to(np.asarray(values, dtype=dtype), shape))

    return PlanningProblem(
        name="tiny",
        period_h=1.0,
        budget_usd=budget_usd,
        storage_price_usd_per_gb_h=storage_price,
        storage_capacity_gb=storage_gb,
        max_replicas=max_replicas,
        query_types=tuple(types),
        models=tuple(
            ModelSize(name=name, parameters_b=1.0, weights_gb=weights_gb, kv_mb_per_token=1.0)
            for name in sorted({c.model for c in made})
        ),
        tiers=tuple(
            TierSize(
                name=name,
                memory_gb=10.0,
                compute_tflops=1.0,
                compute_efficiency=1.0,
                bandwidth_gb_s=1.0,
                price_usd_per_gpu_h=price,
                weight_factor=1.0,
            )
            for name, price in prices.items()
        ),
        configurations=made,
        delay_s=table(delay_s),
        error=table(error),
        load=table(load),
        kv=table(kv),
        cap=np.full(shape[1], cap),
        allowed=table(allowed, np.bool_),
        capacity_rows=rows,
    )


def broken(problem, arrays, *, delay_factor=1.0, error_factor=1.0, kv_factor=1.0):
    """Every constraint that a plan breaks, in words."""
    r, x, u = arrays.replicas, arrays.share, arrays.unmet
    complaints = []

    def at_most(what, value, limit):
        if value > limit + TOLERANCE * max(abs(limit), 1e-3):
            complaints.append(f"{what}: {value} > {limit}")

    for i, q in enumerate(problem.query_types):
        at_most(f"{q.name} served twice", sum(x[i]) + u[i], 1.0)
        at_most(f"{q.name} forgotten", 1.0, sum(x[i]) + u[i])
        at_most(f"{q.name} unmet", u[i], q.unmet_cap)
        at_most(f"{q.name} negative", -min(*x[i], u[i]), 0.0)
        at_most(f"{q.name} delay", sum(delay_factor * problem.delay_s[i] * x[i]), q.delay_slo_s)
        at_most(f"{q.name} error", sum(error_factor * problem.error[i] * x[i]), q.error_slo)
        at_most(f"{q.name} ruled out", max(np.where(problem.allowed[i] & (r > 0), 0.0, x[i])), 0.0)
    spent_usd, stored_gb, pairs = 0.0, 0.0, []
    for a, c in enumerate(problem.configurations):
        at_most(f"{c} load", sum(problem.load[:, a] * x[:, a]), problem.cap[a] * r[a])
        at_most(f"{c} kv", sum(kv_factor * problem.kv[:, a] * x[:, a]), r[a])
        at_most(f"{c} replicas", r[a], problem.max_replicas)
        at_most(f"{c} negative replicas", -r[a], 0)
        if r[a] > 0:
            pairs.append(c.pair)
            spent_usd += problem.rent_usd[a] * r[a] + problem.model_storage_usd[a]
            stored_gb += problem.model_storage_gb[a]
    at_most("configurations of a pair", len(pairs), len(set(pairs)))
    at_most("storage", stored_gb + sum(problem.token_storage_gb * x.sum(axis=1)), problem.storage_capacity_gb)
    at_most("budget", spent_usd + sum(problem.token_storage_usd * x.sum(axis=1)), problem.budget_usd)
    return complaints


def fleet_of(problem, plan):
    """What a plan deploys: {(model, tier, TP): replicas}."""
    return {
        (d.configuration.model, d.configuration.tier, d.configuration.tensor_parallel): d.replicas
        for d in plan.deployments
    }


def test_the_bench_sees_each_kind_of_broken_constraint():
    problem = tiny(
        [("m", "a", 1), ("m", "a", 2)],
        [query("q", error_slo=0.5, unmet_cap=0.2, token_storage_gb_per_token=1.0)],
        prices={"a": 10.0},
        delay_s=[[2.0, 1.0]],
        error=0.6,
        load=2.0,
        kv=2.0,
        weights_gb=1.0,
        budget_usd=30.0,
        storage_gb=100.0,
        storage_price=0.1,
        max_replicas=1,
    )

    def words(replicas, share, unmet):
        found = broken(problem, PlanArrays(np.array(replicas), np.array([share]), np.array([unmet])))
        return {text.split(":")[0].split(" ")[-1] for text in found}

    assert words([1, 1], [0.5, 0.5], 0.0) >= {"delay", "error", "pair", "storage", "budget"}
    assert words([1, 0], [0.9, 0.1], 0.0) >= {"load", "kv", "out"}
    assert words([2, 0], [0.2, 0.0], 0.5) >= {"replicas", "unmet", "forgotten"}
    assert words([0, 0], [0.9, 0.0], 0.2) >= {"twice", "out", "load"}
    assert words([0, 1], [0.0, 0.45], 0.55) == {"unmet"}
