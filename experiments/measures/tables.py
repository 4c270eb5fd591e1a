"""The tables of a run directory: requests, intervals, money and load."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]

from experiments.measures.cost import cost_by_interval, interval_edges
from experiments.measures.load import replicas_ready
from experiments.measures.measured import mean_limits
from experiments.measures.tally import Judgement, Tally
from experiments.scenario.scenario import Scenario
from simulator.engine.results import RequestTable, RunSummary
from simulator.replica.outcome import Outcome


def interval_table(scenario: Scenario, tally: Tally) -> pd.DataFrame:
    """One row per interval and query type, by time of arrival: counts, means and whether the paper's mean limits held.

    `delay_broken` and `error_broken` compare the mean of the served requests with the limit of the type.
    """
    limits = mean_limits(scenario, tally)
    frames = [
        pd.DataFrame(
            {
                "interval_start_s": tally.starts_s,
                "query_type": rule.name,
                **{name: counts[index] for name, counts in tally.counts.items()},
                **{field.name: getattr(limits, field.name)[index] for field in fields(limits)},
            }
        )
        for index, rule in enumerate(scenario.types)
    ]
    return pd.concat(frames, ignore_index=True)


def cost_table(scenario: Scenario, run: RunSummary, tally: Tally) -> pd.DataFrame:
    """One row per interval: the money that was spent in it, by its parts."""
    edges = interval_edges(run, tally.starts_s)
    parts = cost_by_interval(scenario, run, tally)
    return pd.DataFrame(
        {
            "interval_start_s": edges[:-1],
            "interval_end_s": edges[1:],
            **{f"{part}_usd": values for part, values in parts.items()},
        }
    )


def load_table(run: RunSummary, tally: Tally) -> pd.DataFrame:
    """Demand against capacity: the replicas that the arrivals of each short while need at their limit, and those ready.

    There are 600 rows at most, of a minute at least; the end of the last is the horizon of the run.
    """
    edges = np.append(tally.load_starts_s, run.horizon_s)
    return pd.DataFrame(
        {
            "start_s": edges[:-1],
            "end_s": edges[1:],
            "replicas_needed": tally.work_s / np.diff(edges),
            "replicas_ready": replicas_ready(run, edges),
        }
    )


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
