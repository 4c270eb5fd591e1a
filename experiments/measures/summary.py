"""What a run means: money, SLOs and latency, from its summary and the tally of its requests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]

from experiments.measures.tally import Judgement, Tally
from experiments.scenario.scenario import Scenario
from simulator.engine.results import RequestTable, RunSummary
from simulator.replica.outcome import Outcome
from simulator.units import SECONDS_PER_H

COST_PARTS = ("rental", "model_storage", "token_storage", "delay_penalty", "unmet_penalty")
RETENTION_H = 1.0  # the paper's storage term holds the tokens of one hour: each token is kept that long

FloatColumn = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.number[Any]]


def interval_edges(run: RunSummary, starts_s: FloatColumn) -> FloatColumn:
    """Starts of the intervals and the end of the last: the drain after the horizon belongs to the last interval."""
    return np.append(starts_s, run.end_s)


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


def gpus_by_tier(run: RunSummary, times_s: FloatColumn) -> dict[str, FloatColumn]:
    """GPUs rented at each time, by tier, in the order in which the tiers were first rented."""
    counts: dict[str, FloatColumn] = {}
    for rental in run.rentals:
        tier = run.deployments[rental.deployment].tier
        rented = (rental.rent_s <= times_s) & (times_s < rental.end_s)
        counts[tier] = counts.get(tier, np.zeros(len(times_s))) + rental.gpus * rented
    return counts


def gpu_hours(run: RunSummary) -> float:
    return sum(rental.gpus * (rental.end_s - rental.rent_s) for rental in run.rentals) / SECONDS_PER_H


def interval_table(scenario: Scenario, tally: Tally) -> pd.DataFrame:
    """One row per interval and query type, by time of arrival: counts, means and whether the paper's mean limits held.

    `delay_broken` and `error_broken` compare the mean of the served requests with the limit of the type.
    """
    rows = []
    for index, rule in enumerate(scenario.types):
        with np.errstate(invalid="ignore"):
            mean_e2e_s, mean_error = (
                tally.sums[name][index] / tally.counts["served"][index] for name in ("e2e_s", "error")
            )
        frame = pd.DataFrame(
            {
                "interval_start_s": tally.starts_s,
                "query_type": rule.name,
                **{name: counts[index] for name, counts in tally.counts.items()},
                "mean_e2e_s": mean_e2e_s,
                "mean_error": mean_error,
                "delay_broken": mean_e2e_s > rule.delay_slo_s,
                "error_broken": mean_error > rule.error_slo * (1 + 1e-9),
            }
        )
        rows.append(frame)
    return pd.concat(rows, ignore_index=True)


def summarise(scenario: Scenario, run: RunSummary, tally: Tally) -> dict[str, object]:
    """The figures of one run, without machine times."""
    totals = {part: float(values.sum()) for part, values in cost_by_interval(scenario, run, tally).items()}
    intervals = interval_table(scenario, tally)
    arrived, served, violations = (tally.count(name) for name in ("arrived", "served", "slo_violations"))
    return {
        "arrived": arrived,
        "served": served,
        "rejected": tally.count("rejected"),
        "rejected_too_large": run.count(Outcome.REJECTED_TOO_LARGE),
        "failed": tally.count("failed"),
        "in_flight": tally.count("in_flight"),
        "slo_violations": violations,
        "goodput_share": (served - violations) / arrived if arrived else None,
        "cost_usd": sum(totals.values()),
        "cost_parts_usd": totals,
        "gpu_hours": gpu_hours(run),
        "ttft_s": tally.ttft_s.named(),
        "tpot_s": tally.tpot_s.named(),
        "e2e_s": tally.e2e_s.named(),
        "quantiles_exact": tally.ttft_s.exact and tally.tpot_s.exact and tally.e2e_s.exact,
        "type_intervals": int((intervals["served"] > 0).sum()),
        "type_intervals_delay_broken": int(intervals["delay_broken"].sum()),
        "type_intervals_error_broken": int(intervals["error_broken"].sum()),
        **({"percentile_slos": tally.slo_rows()} if tally.slos else {}),
        "preemptions": tally.preemptions,
        "replicas_rented": len(run.rentals),
    }


def requests_table(requests: RequestTable, judgement: Judgement, sources: pa.Array) -> pa.Table:
    """One row per request of a batch, units in the column names; times that never came are null.

    `sources` holds the source of each request as text.
    """
    deployments = [
        f"{key.model}/{key.tier}/tp{key.tensor_parallel}/pp{key.pipeline_parallel}" for key in requests.deployments
    ]
    return pa.table(
        {
            "request": requests.first_request + np.arange(len(requests)),
            "arrival_s": requests.arrival_s,
            "source": sources,
            "query_type": _words(requests.query_type, requests.types),
            "input_tokens": requests.input_tokens,
            "output_tokens": requests.output_tokens,
            "outcome": _words(requests.outcome, [outcome.name.lower() for outcome in Outcome]),
            "deployment": _words(requests.deployment, deployments),
            "replica": requests.replica,
            "ttft_s": pa.array(requests.ttft_s, from_pandas=True),
            "tpot_s": pa.array(requests.tpot_s, from_pandas=True),
            "e2e_s": pa.array(requests.e2e_s, from_pandas=True),
            "expected_error": pa.array(judgement.error, from_pandas=True),
            "slo_violated": judgement.violated,
            "preemptions": requests.preemptions,
        }
    )


def _words(codes: npt.NDArray[np.integer[Any]], names: Sequence[str]) -> pa.Array:
    """Text for codes, null for codes below zero."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, type=pa.string())).dictionary_decode()
