"""Random planning problems that take some branching: SLOs that ask for mixtures, prices that do not follow speed."""

import numpy as np

from simulator.capacity import paper_problem
from simulator.problem import Configuration, ModelSize, QueryType, TierSize
from simulator.rng import stream


def random_problem(types=8, models=5, tiers=5, seed=0, **changes):
    """A random problem with a gap at the root: SLOs that ask for mixtures, prices that do not follow speed."""
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
    parts = {
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
