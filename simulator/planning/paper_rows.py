"""Capacity rows of a planning problem, the `paper` way (the `batching` way: `simulator/planning/batching_rows.py`)."""

from collections.abc import Sequence

import numpy as np

from simulator.catalog.configuration import Configuration, ModelSize, TierSize
from simulator.planning.problem import CapacityRows, FloatArray, PlanningProblem, QueryType
from simulator.units import GB_PER_MB, SECONDS_PER_H


def paper_rows(
    query_types: Sequence[QueryType],
    models: Sequence[ModelSize],
    tiers: Sequence[TierSize],
    configurations: Sequence[Configuration],
    delay_s: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Derive `load` and `kv` as arXiv 2604.07472 does.

    Compute: 2 N FLOPs per token against efficiency x peak; KV cache: tokens in flight by Little's law (lambda D)
    against the memory that the weights leave. A configuration whose weights do not fit gets an infinite `kv`.

    Returns
    -------
    load, kv
        Shape (types, configurations): share of one replica that the whole demand of a type would use.
    """
    model_by_name = {model.name: model for model in models}
    tier_by_name = {tier.name: tier for tier in tiers}
    tokens_per_s = np.array([(q.input_tokens + q.output_tokens) * q.arrival_per_h / SECONDS_PER_H for q in query_types])
    tflops_per_token = np.array([2 * model_by_name[c.model].parameters_b * 1e-3 for c in configurations])
    tflops = np.array(
        [c.gpus * tier_by_name[c.tier].compute_efficiency * tier_by_name[c.tier].compute_tflops for c in configurations]
    )
    room_gb = np.array(
        [
            c.gpus * tier_by_name[c.tier].memory_gb
            - tier_by_name[c.tier].weight_factor * model_by_name[c.model].weights_gb
            for c in configurations
        ]
    )
    kv_gb_per_token = np.array([model_by_name[c.model].kv_mb_per_token * GB_PER_MB for c in configurations])
    load = tokens_per_s[:, None] * tflops_per_token / tflops
    with np.errstate(divide="ignore"):
        kv = np.where(room_gb > 0, kv_gb_per_token * tokens_per_s[:, None] * delay_s / np.maximum(room_gb, 0), np.inf)
    return load, kv


def paper_problem(
    *,
    name: str,
    period_h: float,
    budget_usd: float,
    storage_price_usd_per_gb_h: float,
    storage_capacity_gb: float,
    max_replicas: int,
    query_types: Sequence[QueryType],
    models: Sequence[ModelSize],
    tiers: Sequence[TierSize],
    configurations: Sequence[Configuration],
    delay_s: FloatArray,
    error: FloatArray,
) -> PlanningProblem:
    """Build a problem whose capacity rows are those of the paper."""
    load, kv = paper_rows(query_types, models, tiers, configurations, delay_s)
    allowed = np.isfinite(kv)
    return PlanningProblem(
        name=name,
        period_h=period_h,
        budget_usd=budget_usd,
        storage_price_usd_per_gb_h=storage_price_usd_per_gb_h,
        storage_capacity_gb=storage_capacity_gb,
        max_replicas=max_replicas,
        query_types=tuple(query_types),
        models=tuple(models),
        tiers=tuple(tiers),
        configurations=tuple(configurations),
        delay_s=np.array(delay_s, dtype=np.float64),
        error=np.array(error, dtype=np.float64),
        load=load,
        kv=np.where(allowed, kv, 0.0),
        cap=np.ones(len(configurations)),
        allowed=allowed,
        capacity_rows=CapacityRows.PAPER,
    )
