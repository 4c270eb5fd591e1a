"""A replay, or a part of it, as columns of the one schema of results (`experiments.sweep.schema`)."""

from typing import Any

import numpy as np

from experiments.measures.cost import cost_by_interval, gpus_by_tier, interval_edges, stays_of
from experiments.measures.metrics import result_row
from experiments.replay.run import ReplayRun
from experiments.scenario.scenario import Scenario


def run_columns(run: ReplayRun) -> dict[str, Any]:
    """The columns of a whole replay."""
    return {"feasible": True, **result_row(run.metrics)}


def part_columns(scenario: Scenario, run: ReplayRun, every_s: float) -> list[dict[str, Any]]:
    """Cost, GPUs and violations of each part of a replay, of which each is `every_s` long."""
    tally = run.tally
    edges = interval_edges(run.result, tally.starts_s)
    cost = cost_by_interval(scenario, run.result, tally)
    counts = {name: values.sum(axis=0) for name, values in tally.counts.items()}
    middles = (edges[:-1] + edges[1:]) / 2
    gpus = np.zeros(len(middles))
    for rented in gpus_by_tier(stays_of(run.result), middles).values():
        gpus += rented
    part = (tally.starts_s // every_s).astype(int)
    rows = []
    for number in np.unique(part).tolist():
        here = part == number
        arrived, served = int(counts["arrived"][here].sum()), int(counts["served"][here].sum())
        broken = int(counts["slo_violations"][here].sum()) + arrived - served
        rows.append(
            {
                "time_s": number * every_s,
                "cost_usd": float(sum(values[here].sum() for values in cost.values())),
                "rent_usd": float(cost["rental"][here].sum()),
                "arrived": arrived,
                "served": served,
                "violation_share": broken / arrived if arrived else 0.0,
                "unmet_share": (arrived - served) / arrived if arrived else 0.0,
                "gpus": round(float(gpus[here].mean())),
            }
        )
    return rows
