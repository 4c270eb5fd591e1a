"""What a run cost and which GPUs it rented, interval by interval."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.measures.tally import Tally
from experiments.scenario.scenario import Scenario
from simulator.engine.results import RunSummary
from simulator.units import SECONDS_PER_H

COST_PARTS = ("rental", "model_storage", "token_storage", "delay_penalty", "unmet_penalty")
RETENTION_H = 1.0  # the paper's storage term holds the tokens of one hour: each token is kept that long

FloatColumn = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.number[Any]]
Stay = tuple[str, int, float, float]
"""GPU tier, number of GPUs, and the times [s] from which and until which they were rented."""


def interval_edges(run: RunSummary, starts_s: FloatColumn) -> FloatColumn:
    """Starts of the intervals and the end of the last: the drain after the horizon belongs to the last interval."""
    return np.append(starts_s, run.end_s)


def cost_by_interval(scenario: Scenario, run: RunSummary, tally: Tally) -> dict[str, FloatColumn]:
    """Money [USD] per interval by its parts, as it was really spent.

    Rental: what was rented, from the order to the end, start-up included; the start-up of the first fleet falls into
    the first interval. Model storage: while any replica of a (model, tier) is rented. Token storage and delay penalty:
    per served request, at its arrival. Unmet penalty: per request that was not served, whatever the reason.
    """
    unserved = tally.counts["arrived"] - tally.counts["served"]
    return {
        **fleet_cost(scenario, run, interval_edges(run, tally.starts_s)),
        **request_cost(scenario, tokens=tally.sums["tokens"], e2e_s=tally.sums["e2e_s"], unserved=unserved),
    }


def fleet_cost(scenario: Scenario, run: RunSummary, edges: FloatColumn) -> dict[str, FloatColumn]:
    """Rental and model storage [USD] between each two edges; time before zero counts for the first."""
    price_usd_per_gb_h = scenario.file.limits.storage_price_usd_per_gb_h
    rental_usd, storage_usd = np.zeros((2, len(edges) - 1))
    spans: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for rental in run.rentals:
        key = run.deployments[rental.deployment]
        rental_usd += rental.price_usd_per_h * _spread(rental.rent_s, rental.end_s, edges) / SECONDS_PER_H
        spans.setdefault((key.model, key.tier), []).append((rental.rent_s, rental.end_s))
    for (model, tier), stays in spans.items():
        weights_gb = scenario.catalog.models[model].weights_gb * scenario.catalog.tiers[tier].weight_factor
        for begin_s, end_s in _union_s(stays):
            stored_h = _spread(begin_s, end_s, edges) / SECONDS_PER_H
            storage_usd += price_usd_per_gb_h * weights_gb * stored_h
    return {"rental": rental_usd, "model_storage": storage_usd}


def request_cost(scenario: Scenario, *, tokens: Numbers, e2e_s: Numbers, unserved: Numbers) -> dict[str, FloatColumn]:
    """Token storage, delay and unmet penalty [USD] of requests, from sums by query type.

    Parameters
    ----------
    tokens, e2e_s
        Of the served requests, shape (types, ...).
    unserved
        How many were not served, of the same shape.
    """
    parts = {part: np.zeros(tokens.shape[1:]) for part in ("token_storage", "delay_penalty", "unmet_penalty")}
    for index, rule in enumerate(scenario.types):
        token_usd = scenario.file.limits.storage_price_usd_per_gb_h * RETENTION_H * rule.token_storage_gb_per_token
        parts["token_storage"] += token_usd * tokens[index]
        parts["delay_penalty"] += rule.delay_penalty_usd_per_query_s * e2e_s[index]
        parts["unmet_penalty"] += rule.unmet_penalty_usd_per_query * unserved[index]
    return parts


def fleet_cost_by_phase(scenario: Scenario, run: RunSummary) -> tuple[float, float, float]:
    """Rental and model storage [USD]: before time zero, to start up; up to the horizon; after it, to drain."""
    edges = np.array([-np.inf, 0.0, run.horizon_s, max(run.end_s, run.horizon_s)])
    start_up, serving, drain = np.sum(list(fleet_cost(scenario, run, edges).values()), axis=0).tolist()
    return start_up, serving, drain


def _spread(begin_s: float, end_s: float, edges: FloatColumn) -> FloatColumn:
    """Seconds of [begin, end] in each interval; time before zero counts for the first."""
    edges = edges.copy()
    edges[0] = min(edges[0], begin_s)
    return np.asarray(np.maximum(0.0, np.minimum(end_s, edges[1:]) - np.maximum(begin_s, edges[:-1])))


def _union_s(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def stays_of(run: RunSummary) -> list[Stay]:
    """The rentals of a run, for `gpus_by_tier`."""
    return [(run.deployments[r.deployment].tier, r.gpus, r.rent_s, r.end_s) for r in run.rentals]


def gpus_by_tier(stays: Iterable[Stay], times_s: FloatColumn) -> dict[str, FloatColumn]:
    """GPUs rented at each time, by tier, in the order in which the tiers were first rented."""
    counts: dict[str, FloatColumn] = {}
    for tier, gpus, rent_s, end_s in stays:
        rented = (rent_s <= times_s) & (times_s < end_s)
        counts[tier] = counts.get(tier, np.zeros(len(times_s))) + gpus * rented
    return counts


def gpu_hours(run: RunSummary) -> float:
    """GPUs times the hours for which they were rented."""
    return math.fsum(rental.gpus * (rental.end_s - rental.rent_s) for rental in run.rentals) / SECONDS_PER_H
