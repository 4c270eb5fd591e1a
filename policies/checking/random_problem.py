"""Random planning problems, for tests and for the conformance suite: a seed and a number make each of them anew."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.planning.paper_rows import paper_problem
from simulator.planning.problem import CapacityRows, FloatArray, PlanningProblem, QueryType
from simulator.rng import stream

TPOT_TARGETS_S = (0.03, 0.06)  # of problems with operating points


def random_problem(types: int = 8, models: int = 5, tiers: int = 5, seed: int = 0, **changes: Any) -> PlanningProblem:
    """A random problem with a gap at the root: SLOs that ask for mixtures, prices that do not follow speed.

    `changes` are other arguments of `paper_problem` than those drawn here.
    """
    draw = stream(seed, "test-exact-policy")
    query_types = [
        QueryType(
            name=f"q{i}",
            arrival_per_h=float(draw.uniform(1000, 20000)),
            input_tokens=float(draw.uniform(100, 1000)),
            output_tokens=float(draw.uniform(50, 500)),
            delay_slo_s=float(draw.uniform(1, 4)),
            error_slo=float(draw.uniform(0.03, 0.08)),
            delay_penalty_usd_per_query_s=1e-6,
            unmet_penalty_usd_per_query=0.005,
            unmet_cap=1.0,
            token_storage_gb_per_token=1e-6,
        )
        for i in range(types)
    ]
    sizes = np.geomspace(1, 40, models)
    made_models = [
        ModelSize(name=f"m{j}", parameters_b=float(b), weights_gb=2.0 * float(b), kv_mb_per_token=0.1)
        for j, b in enumerate(sizes)
    ]
    made_tiers = [
        TierSize(
            name=f"t{k}",
            memory_gb=float(draw.choice([24.0, 48.0, 80.0])),
            compute_tflops=float(draw.uniform(100, 900)),
            compute_efficiency=0.3,
            bandwidth_gb_s=1000.0,
            price_usd_per_gpu_h=float(draw.uniform(0.3, 2.5)),
            weight_factor=1.0,
        )
        for k in range(tiers)
    ]
    configurations = [
        Configuration(model=m.name, tier=t.name, tensor_parallel=n, pipeline_parallel=1)
        for m in made_models
        for t in made_tiers
        for n in (1, 2, 4)
        if m.weights_gb < 0.9 * n * t.memory_gb
    ]
    size = {m.name: m.parameters_b for m in made_models}
    speed = {t.name: t.compute_tflops for t in made_tiers}
    delay_s = np.array(
        [
            [
                q.output_tokens * 4e-3 * (1 + size[c.model]) ** 0.6 / c.tensor_parallel * 300 / speed[c.tier]
                for c in configurations
            ]
            for q in query_types
        ]
    )
    error = np.array([[0.12 / size[c.model] ** 0.5 for c in configurations] for _ in query_types])
    parts: dict[str, Any] = {
        "name": f"random-{seed}",
        "period_h": 24.0,
        "budget_usd": 1000.0,
        "storage_price_usd_per_gb_h": 0.002,
        "storage_capacity_gb": 2000.0,
        "max_replicas": 6,
        "query_types": query_types,
        "models": made_models,
        "tiers": made_tiers,
        "configurations": configurations,
        "delay_s": delay_s,
        "error": error,
    }
    return paper_problem(**(parts | changes))


def small_problem(seed: int, number: int) -> PlanningProblem:
    """Problem `number` of the conformance suite under `seed`: small enough that its optimum is proven in milliseconds.

    Unmet caps, budget, storage, replicas and penalties are tight now and then, up to having no plan at all, and every
    third problem has operating points (`batching` rows).
    """
    draw = stream(seed, f"small-problem-{number}")
    problem = random_problem(
        types=int(draw.integers(1, 6)),
        models=int(draw.integers(2, 5)),
        tiers=int(draw.integers(1, 4)),
        seed=int(draw.integers(2**31)),
        name=f"small-{seed}-{number}",
        budget_usd=float(draw.choice([1000.0, 1000.0, 60.0, 20.0])),
        storage_capacity_gb=float(draw.choice([2000.0, 2000.0, 20.0])),
        max_replicas=int(draw.choice([6, 6, 1])),
    )
    caps = [[1.0], [1.0], [1.0, 0.3], [0.1], [0.0]][int(draw.integers(5))]
    penalty_usd = float(draw.choice([0.005, 0.005, 0.0002]))
    query_types = tuple(
        replace(query_type, unmet_cap=caps[i % len(caps)], unmet_penalty_usd_per_query=penalty_usd)
        for i, query_type in enumerate(problem.query_types)
    )
    problem = replace(problem, query_types=query_types)
    return with_operating_points(problem) if number % 3 == 2 else problem


def with_operating_points(problem: PlanningProblem) -> PlanningProblem:
    """Each configuration at two TPOT targets: the slower one serves more, later, and is barred to every other type."""
    count = len(problem.configurations)
    allowed = np.repeat(problem.allowed, 2, axis=1)
    allowed[::2, 1::2] = False
    return replace(
        problem,
        configurations=tuple(replace(c, tpot_target_s=s) for c in problem.configurations for s in TPOT_TARGETS_S),
        delay_s=np.repeat(problem.delay_s, 2, axis=1) * np.tile([1.0, 1.5], count),
        error=np.repeat(problem.error, 2, axis=1),
        load=np.repeat(problem.load, 2, axis=1) * np.tile([1.0, 0.6], count),
        kv=np.repeat(problem.kv, 2, axis=1),
        cap=np.full(2 * count, 0.9),
        allowed=allowed,
        capacity_rows=CapacityRows.BATCHING,
    )


def with_demand(problem: PlanningProblem, factor: FloatArray) -> PlanningProblem:
    """The problem with the demand of each type multiplied by `factor`, shape (types,)."""
    query_types = tuple(
        replace(query_type, arrival_per_h=query_type.arrival_per_h * float(f))
        for query_type, f in zip(problem.query_types, factor, strict=True)
    )
    return replace(
        problem, query_types=query_types, load=problem.load * factor[:, None], kv=problem.kv * factor[:, None]
    )


def with_types(problem: PlanningProblem, **changes: Any) -> PlanningProblem:
    """The problem with these fields of every query type changed."""
    return replace(problem, query_types=tuple(replace(query_type, **changes) for query_type in problem.query_types))


def restricted(problem: PlanningProblem, types: Sequence[int], configurations: Sequence[int]) -> PlanningProblem:
    """The problem with only these types and configurations, by index."""
    rows, known = np.ix_(types, configurations), problem.demand_quantiles
    return replace(
        problem,
        query_types=tuple(problem.query_types[i] for i in types),
        configurations=tuple(problem.configurations[a] for a in configurations),
        cap=problem.cap[list(configurations)],
        demand_quantiles=None if known is None else replace(known, factor=known.factor[:, list(types)]),
        **{name: getattr(problem, name)[rows] for name in ("delay_s", "error", "load", "kv", "allowed")},
    )
