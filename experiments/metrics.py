"""What a run means: money, SLOs and latency, computed from the plain results."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.scenario import Scenario
from simulator.fleet import DeploymentKey
from simulator.outcome import Outcome
from simulator.problem import Configuration
from simulator.reality import Reality
from simulator.results import RequestTable, RunResult

SECONDS_PER_H = 3600.0
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
COST_PARTS = ("rental", "model_storage", "token_storage", "delay_penalty", "unmet_penalty")
RETENTION_H = 1.0  # the paper's storage term holds the tokens of one hour: each token is kept that long

BoolColumn = npt.NDArray[np.bool_]
FloatColumn = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Per request, shape (requests,): which served requests broke a limit, and the expected error of each.

    `error` is NaN unless served.
    """

    violated: BoolColumn
    error: FloatColumn


def judge(scenario: Scenario, requests: RequestTable, reality: Reality) -> Judgement:
    """Hold every served request against the limits of its type: E2E delay, TTFT and TPOT."""
    violated = np.zeros(len(requests), dtype=np.bool_)
    for index, rule in enumerate(scenario.types):
        own = requests.served & (requests.query_type == index)
        late = requests.e2e_s > rule.delay_slo_s
        if rule.ttft_slo_s is not None:
            late |= requests.ttft_s > rule.ttft_slo_s
        if rule.tpot_slo_s is not None:
            late |= requests.tpot_s > rule.tpot_slo_s
        violated |= own & late
    table = scenario.error_of(_configurations(requests.deployments)) * reality.error_factor
    error = np.full(len(requests), np.nan)
    served = requests.served
    error[served] = table[requests.query_type[served], requests.deployment[served]]
    return Judgement(violated=violated, error=error)


def _configurations(keys: Sequence[DeploymentKey]) -> tuple[Configuration, ...]:
    return tuple(
        Configuration(model=model, tier=tier, tensor_parallel=n, pipeline_parallel=m) for model, tier, n, m in keys
    )


def quantiles(values: FloatColumn) -> dict[str, float | None]:
    """p50, p95 and p99 of the defined values, None where there is none."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return dict.fromkeys(QUANTILES)
    return {name: float(np.quantile(defined, q)) for name, q in QUANTILES.items()}


def interval_edges(result: RunResult, interval_s: float) -> FloatColumn:
    """Starts of the intervals and the end of the last: the drain after the horizon belongs to the last interval."""
    return np.append(np.arange(0.0, result.horizon_s, interval_s), result.end_s)


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


def cost_by_interval(scenario: Scenario, result: RunResult, edges: FloatColumn) -> dict[str, FloatColumn]:
    """Money [USD] per interval by its parts, as it was really spent.

    Rental: what was rented, from the order to the end, start-up included; the start-up of the first fleet falls into
    the first interval. Model storage: while any replica of a (model, tier) is rented. Token storage and delay penalty:
    per served request, at its arrival. Unmet penalty: per request that was not served, whatever the reason.
    """
    requests, limits = result.requests, scenario.file.limits
    hours = np.zeros(len(edges) - 1)
    parts = {part: hours.copy() for part in COST_PARTS}
    spans: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for rental in result.rentals:
        model, tier, _, _ = requests.deployments[rental.deployment]
        parts["rental"] += rental.price_usd_per_h * _spread(rental.rent_s, rental.end_s, edges) / SECONDS_PER_H
        spans.setdefault((model, tier), []).append((rental.rent_s, rental.end_s))
    for (model, tier), stays in spans.items():
        weights_gb = scenario.catalog.models[model].weights_gb * scenario.catalog.tiers[tier].weight_factor
        for begin_s, end_s in _union_s(stays):
            stored_h = _spread(begin_s, end_s, edges) / SECONDS_PER_H
            parts["model_storage"] += limits.storage_price_usd_per_gb_h * weights_gb * stored_h
    interval = _interval_of(requests.arrival_s, edges)
    tokens = requests.input_tokens + requests.output_tokens
    for index, rule in enumerate(scenario.types):
        own = requests.query_type == index
        served, unserved = own & requests.served, own & ~requests.served
        token_usd = limits.storage_price_usd_per_gb_h * RETENTION_H * rule.token_storage_gb_per_token
        parts["token_storage"] += token_usd * _binned(interval, served, tokens, edges)
        parts["delay_penalty"] += rule.delay_penalty_usd_per_query_s * _binned(interval, served, requests.e2e_s, edges)
        ones = np.ones(len(requests))
        parts["unmet_penalty"] += rule.unmet_penalty_usd_per_query * _binned(interval, unserved, ones, edges)
    return parts


def _interval_of(arrival_s: FloatColumn, edges: FloatColumn) -> npt.NDArray[np.int64]:
    return np.searchsorted(edges[1:-1], arrival_s, side="right").astype(np.int64)


def _binned(
    interval: npt.NDArray[np.int64], mask: BoolColumn, values: npt.NDArray[np.generic], edges: FloatColumn
) -> FloatColumn:
    binned = np.bincount(interval[mask], weights=values[mask].astype(np.float64), minlength=len(edges) - 1)
    return binned.astype(np.float64)


def gpus_by_tier(result: RunResult, times_s: FloatColumn) -> dict[str, FloatColumn]:
    """GPUs rented at each time, by tier, in the order in which the tiers were first rented."""
    counts: dict[str, FloatColumn] = {}
    for rental in result.rentals:
        tier = result.requests.deployments[rental.deployment][1]
        rented = (rental.rent_s <= times_s) & (times_s < rental.end_s)
        counts[tier] = counts.get(tier, np.zeros(len(times_s))) + rental.gpus * rented
    return counts


def gpu_hours(result: RunResult) -> float:
    return sum(rental.gpus * (rental.end_s - rental.rent_s) for rental in result.rentals) / SECONDS_PER_H


def interval_table(scenario: Scenario, result: RunResult, judgement: Judgement, interval_s: float) -> pd.DataFrame:
    """One row per interval and query type, by time of arrival: counts, means and whether the paper's mean limits held.

    `delay_broken` and `error_broken` compare the mean of the served requests with the limit of the type.
    """
    requests = result.requests
    edges = interval_edges(result, interval_s)
    interval = _interval_of(requests.arrival_s, edges)
    rows = []
    for index, rule in enumerate(scenario.types):
        own = requests.query_type == index
        served = _binned(interval, own & requests.served, np.ones(len(requests)), edges)
        with np.errstate(invalid="ignore"):
            mean_e2e_s = _binned(interval, own & requests.served, requests.e2e_s, edges) / served
            mean_error = _binned(interval, own & requests.served, judgement.error, edges) / served
        counted = {
            "arrived": own,
            "served": own & requests.served,
            "rejected": own & np.isin(requests.outcome, REJECTED),
            "failed": own & (requests.outcome == Outcome.FAILED),
            "in_flight": own & (requests.outcome == Outcome.IN_FLIGHT),
            "slo_violations": own & judgement.violated,
        }
        frame = pd.DataFrame(
            {
                "interval_start_s": edges[:-1],
                "query_type": rule.name,
                **{name: np.bincount(interval[mask], minlength=len(edges) - 1) for name, mask in counted.items()},
                "mean_e2e_s": mean_e2e_s,
                "mean_error": mean_error,
                "delay_broken": mean_e2e_s > rule.delay_slo_s,
                "error_broken": mean_error > rule.error_slo * (1 + 1e-9),
            }
        )
        rows.append(frame)
    return pd.concat(rows, ignore_index=True)


REJECTED = (Outcome.REJECTED_UNMET, Outcome.REJECTED_TOO_LARGE)


def summarise(scenario: Scenario, result: RunResult, judgement: Judgement, interval_s: float) -> dict[str, object]:
    """The figures of one run, without machine times."""
    requests = result.requests
    parts = cost_by_interval(scenario, result, interval_edges(result, interval_s))
    totals = {part: float(values.sum()) for part, values in parts.items()}
    intervals = interval_table(scenario, result, judgement, interval_s)
    arrived, violations = len(requests), int(judgement.violated.sum())
    served = int(requests.served.sum())
    return {
        "arrived": arrived,
        "served": served,
        "rejected": sum(result.count(outcome) for outcome in REJECTED),
        "rejected_too_large": result.count(Outcome.REJECTED_TOO_LARGE),
        "failed": result.count(Outcome.FAILED),
        "in_flight": result.count(Outcome.IN_FLIGHT),
        "slo_violations": violations,
        "goodput_share": (served - violations) / arrived if arrived else None,
        "cost_usd": sum(totals.values()),
        "cost_parts_usd": totals,
        "gpu_hours": gpu_hours(result),
        "ttft_s": quantiles(requests.ttft_s),
        "tpot_s": quantiles(requests.tpot_s),
        "e2e_s": quantiles(requests.e2e_s),
        "type_intervals": int((intervals["served"] > 0).sum()),
        "type_intervals_delay_broken": int(intervals["delay_broken"].sum()),
        "type_intervals_error_broken": int(intervals["error_broken"].sum()),
        "preemptions": int(requests.preemptions.sum()),
        "replicas_rented": len(result.rentals),
    }


def requests_frame(
    scenario: Scenario, result: RunResult, judgement: Judgement, sources: npt.NDArray[np.object_]
) -> pd.DataFrame:
    """One row per request, units in the column names; times that never came are null."""
    requests = result.requests
    outcome_names = np.array([outcome.name.lower() for outcome in Outcome], dtype=object)
    deployment_names = np.array(
        [*(f"{model}/{tier}/tp{n}/pp{m}" for model, tier, n, m in requests.deployments), None], dtype=object
    )
    type_names = np.array([rule.name for rule in scenario.types], dtype=object)
    return pd.DataFrame(
        {
            "request": np.arange(len(requests)),
            "arrival_s": requests.arrival_s,
            "source": sources,
            "query_type": type_names[requests.query_type],
            "input_tokens": requests.input_tokens,
            "output_tokens": requests.output_tokens,
            "outcome": outcome_names[requests.outcome],
            "deployment": deployment_names[requests.deployment],
            "replica": requests.replica,
            "ttft_s": requests.ttft_s,
            "tpot_s": requests.tpot_s,
            "e2e_s": requests.e2e_s,
            "expected_error": judgement.error,
            "slo_violated": judgement.violated,
            "preemptions": requests.preemptions,
        }
    )
