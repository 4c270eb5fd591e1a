"""Capacity rows of a planning problem, the `batching` way: from the step cost that the engine itself uses.

A step of a continuously batching replica takes a + b x prefill tokens + c x sequences + d x context tokens. A request
of h prompt and f output tokens therefore costs the replica, on top of its share of a,

    v = b h + c f + d (h f + f^2 / 2)        [replica seconds]

If beta = sum of arrival rate x v is the share of time that this work takes, a is what is left to each step, and the
time per output token settles at a / (1 - beta). Keeping it at or below a target T is the linear row beta <= 1 - a / T.

A step also takes no more tokens than its budget B, prefill and decode together, so that the tokens of a request need
(h + f) / B steps and as many times a: the queue stays finite only if the rate times v + a (h + f) / B is below one.

A configuration thus has operating points, one per target T: the planner chooses among them as it chooses among parallel
degrees, and a query type may use only those within its own TPOT limit. Headroom is a `cap` q on the load: demand may
rise to 1 / q of what is planned before either limit, load or KV cache, is reached. At the load that is planned the time
per output token is below the target; that is what delay is priced at. At an operating point

    load = rate max(v / (1 - a / T), v + a (h + f) / B)          KV tokens in flight = rate / q T (h f + f^2 / 2)
    delay = 3/2 t + b h + (f - 1) t          half a step of waiting, the prefill step, the decode
        t = a / (1 - q (1 - a / T))          the time per output token that a load of q implies; T for q = 1

The delay has no queueing in it: headroom is what keeps queues short. `simulator/replica/steady_state.py` says more
exactly what a given load does to the times, where that need not be linear.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.catalog import Catalog, kv_capacity_tokens, model_size, tier_size
from simulator.catalog.configuration import Configuration
from simulator.delay import DelayModel
from simulator.errors import InputError
from simulator.moments import TokenMoments
from simulator.planning.problem import BoolArray, CapacityRows, FloatArray, PlanningProblem, QueryType
from simulator.units import SECONDS_PER_H

RESIDUAL_STEPS = 0.5  # mean wait for the running step to end
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingType:
    """What the `batching` rows need of a query type beside its demand: moments of its lengths, and limits.

    `tokens` holds the means, shape (6,); E[h^2] need not be known.
    """

    query_type: QueryType
    tokens: TokenMoments
    tpot_slo_s: float
    ttft_slo_s: float | None = None


def operating_points(configurations: Sequence[Configuration], tpot_targets_s: Sequence[float]) -> list[Configuration]:
    """Each configuration at each target, in order."""
    return [replace(c, tpot_target_s=target) for c in configurations for target in sorted(set(tpot_targets_s))]


def batching_problem(
    *,
    name: str,
    period_h: float,
    budget_usd: float,
    storage_price_usd_per_gb_h: float,
    storage_capacity_gb: float,
    max_replicas: int,
    types: Sequence[BatchingType],
    catalog: Catalog,
    delay_model: DelayModel,
    configurations: Sequence[Configuration],
    tpot_targets_s: Sequence[float],
    error: FloatArray,
    token_budget: int,
    cap: float | FloatArray = 1.0,
    usable: BoolArray | None = None,
    memory_utilisation: float = 0.9,
) -> PlanningProblem:
    """Build a problem whose capacity rows agree with the `batching` discipline of the engine.

    Parameters
    ----------
    configurations
        Without operating points; those of `tpot_targets_s` are added here. Points that no query type may use are left
        out.
    error
        Shape (types, configurations), over the `configurations` given.
    token_budget
        Most tokens of one engine step [B].
    cap
        Largest share of the load limit that the planner may use, in (0, 1]: the headroom is what is left. One number,
        or of each configuration, shape (configurations,), or of each type there, shape (types, configurations): the
        load of a type that needs more headroom than another then counts for so much more.
    usable
        Shape (types, configurations): False where a route is ruled out beforehand, None for nowhere.

    Raises
    ------
    InputError
        If a query type can use no configuration at all, with the fastest time per token that the catalog offers.
    """
    points = operating_points(configurations, tpot_targets_s)
    per_point = np.repeat(np.arange(len(configurations)), len(set(tpot_targets_s)))
    steps = [
        delay_model.step_cost(catalog.models[c.model], catalog.tiers[c.tier], c.tensor_parallel, c.pipeline_parallel)
        for c in configurations
    ]
    base_s = np.array([step.base_s for step in steps])[per_point]
    prefill_s = np.array([step.prefill_s_per_token for step in steps])[per_point]
    target_s = np.array([point.tpot_target_s for point in points])
    kv_tokens = np.array(
        [
            kv_capacity_tokens(
                catalog.models[c.model],
                catalog.tiers[c.tier],
                c.tensor_parallel,
                c.pipeline_parallel,
                memory_utilisation,
            )
            for c in configurations
        ],
        dtype=np.float64,
    )[per_point]

    def column(values: Sequence[float]) -> FloatArray:
        return np.array(values, dtype=np.float64)[:, None]

    rate_per_s = column([t.query_type.arrival_per_h / SECONDS_PER_H for t in types])
    tokens = TokenMoments.stacked([t.tokens for t in types])
    inputs, outputs, context_steps = (
        moment[:, None] for moment in (tokens.input_tokens, tokens.output_tokens, tokens.context_steps)
    )
    work_s = np.stack([step.planned_work_s(tokens) for step in steps], axis=1)[:, per_point]
    share_for_work = 1 - base_s / target_s
    caps = np.broadcast_to(np.asarray(cap, dtype=np.float64), (len(types), len(configurations)))[:, per_point]
    cap_of_row = caps.max(axis=0)
    implied_tpot_s = base_s / np.maximum(1 - caps * share_for_work, TOLERANCE)
    ttft_s = (1 + RESIDUAL_STEPS) * implied_tpot_s + prefill_s * inputs
    allowed = (
        (share_for_work > TOLERANCE)
        & (kv_tokens >= 1)
        & (target_s <= column([t.tpot_slo_s for t in types]) * (1 + TOLERANCE))
        & (ttft_s <= column([np.inf if t.ttft_slo_s is None else t.ttft_slo_s for t in types]))
        & (inputs + outputs <= kv_tokens)
    )
    if usable is not None:
        allowed &= usable[:, per_point]
    complaints = [
        f"query type {t.query_type.name!r}: no configuration answers within tpot_slo_s = {t.tpot_slo_s:g} s and "
        f"ttft_slo_s = {t.ttft_slo_s} s (the fastest in the catalog takes {base_s.min():.4f} s per token)"
        for t, usable in zip(types, allowed.any(axis=1), strict=True)
        if not usable and t.query_type.unmet_cap < 1
    ]
    if complaints:
        raise InputError(complaints)
    kept = np.flatnonzero(allowed.any(axis=0))
    by_tpot = work_s / np.maximum(share_for_work, TOLERANCE)
    by_budget = work_s + base_s * (inputs + outputs) / token_budget
    load = rate_per_s * np.maximum(by_tpot, by_budget) * cap_of_row / caps
    kv = rate_per_s / caps * target_s * context_steps / np.maximum(kv_tokens, 1)
    delay_s = ttft_s + np.maximum(outputs - 1, 0) * implied_tpot_s
    return PlanningProblem(
        name=name,
        period_h=period_h,
        budget_usd=budget_usd,
        storage_price_usd_per_gb_h=storage_price_usd_per_gb_h,
        storage_capacity_gb=storage_capacity_gb,
        max_replicas=max_replicas,
        query_types=tuple(t.query_type for t in types),
        models=tuple(model_size(model) for model in catalog.models.values()),
        tiers=tuple(tier_size(tier) for tier in catalog.tiers.values()),
        configurations=tuple(points[a] for a in kept),
        delay_s=delay_s[:, kept],
        error=error[:, per_point][:, kept],
        load=np.where(allowed, load, 0.0)[:, kept],
        kv=np.where(allowed, kv, 0.0)[:, kept],
        cap=cap_of_row[kept],
        allowed=allowed[:, kept],
        capacity_rows=CapacityRows.BATCHING,
    )
