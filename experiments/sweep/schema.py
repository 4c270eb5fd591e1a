"""The one schema of the results of all studies: every column with its type, its unit and what it means.

What a replay measures comes from the registry of metrics (`experiments.measures.metrics`); the rest is of studies.

docs/results.md shows this table; a test holds the two together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from experiments.measures.metrics import METRICS, Section, metrics_in

WORD, COUNT, NUMBER, TRUTH = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TYPES = {str: WORD, int: COUNT, float: NUMBER, bool: TRUTH}


@dataclass(frozen=True, slots=True)
class Column:
    """`unit` is empty for words and truth values, 1 for shares and ratios."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str


def _measured(section: Section) -> list[Column]:
    """The metrics of a section as columns."""
    return [
        Column(metric.column_name, TYPES[metric.type], metric.unit, metric.meaning)
        for metric in metrics_in(section)
        if metric.column_name and metric.compute is not None
    ]


COLUMNS = (
    # which run
    Column("run", WORD, "", "hash of the specification, the code and the data of the run"),
    Column("study", WORD, "", "study that asked for the run"),
    Column("problem", WORD, "", "scenario or problem file"),
    Column("policy", WORD, "", "policy as it is named on the command line"),
    Column("seed", COUNT, "", "draw of demand, arrivals and the policy's own randomness"),
    # under which conditions
    Column("way", WORD, "", "rerouted (LP over the fixed fleet), fixed (the plan's own routing), planned, simulated"),
    Column("inflated", WORD, "", "what is worse in the world than in the plan: both, delay or error"),
    Column("factor", NUMBER, "1", "how many times worse that is"),
    Column(
        "setting", WORD, "", "what a study varies beside these, in words: headroom, what is lost where, a mechanism"
    ),
    Column("sigma", NUMBER, "1", "standard deviation of the logarithm of a demand rate, from interval to interval"),
    Column("interval_s", NUMBER, "s", "time between re-plans; null: planned once"),
    Column("weight", NUMBER, "1", "share of the price of moving that the policy sees; null: never moves"),
    Column("budget_share", NUMBER, "1", "budget of the run over the budget of the problem"),
    Column("time_s", NUMBER, "s", "start of the part of the run that the row is about; null: all of it"),
    # plans
    Column("feasible", TRUTH, "", "whether there is a plan, or a routing, that keeps every limit"),
    Column(
        "status",
        WORD,
        "",
        "how the policy stopped: optimal, feasible, time_limit; or why there is no plan; of a headroom, what limits it",
    ),
    Column("bound_usd", NUMBER, "USD", "proven lower bound of the cost"),
    Column("gap", NUMBER, "1", "(cost - bound) / cost"),
    Column("gpus", COUNT, "GPUs", "GPUs that the plan rents; in a part of a simulation, their mean"),
    Column("replicas", COUNT, "replicas", "replicas that the plan rents"),
    # money
    *_measured(Section.MONEY),
    Column("moving_usd", NUMBER, "USD", "start-up, waiting and draining of replicas, where it is no part of the rent"),
    # service
    *_measured(Section.REQUESTS),
    *_measured(Section.LATENCY),
    *_measured(Section.FLEET),
    Column("slos_broken", COUNT, "SLOs", "percentile SLOs, by query type and measure, that did not hold"),
    # the headroom that is needed
    Column("rate_per_s", NUMBER, "1/s", "requests that arrive, at the largest load at which the percentiles hold"),
    Column("dispersion", NUMBER, "1", "variance over mean of the number of arrivals in ten seconds; Poisson: 1"),
    Column("cap", NUMBER, "1", "target utilisation that is needed: that load over the limit of the replicas"),
    Column("cap_staffing", NUMBER, "1", "the target utilisation that square-root staffing suggests at that rate"),
    Column("cap_sequence", NUMBER, "1", "the target utilisation that the sequence of the arrivals suggests"),
    # re-planning
    *_measured(Section.PLANNING),
    *_measured(Section.TROUBLE),
    Column("intervals_unserved", COUNT, "intervals", "intervals in which no routing of the fleet kept the limits"),
    Column("replicas_started_per_h", NUMBER, "1/h", "replicas that were started"),
    Column("replicas_stopped_per_h", NUMBER, "1/h", "replicas that were stopped"),
    Column("gpus_started_per_h", NUMBER, "1/h", "GPUs of the replicas started"),
)

BY_NAME = {column.name: column for column in COLUMNS}
SCHEMA = pa.schema([pa.field(column.name, column.type) for column in COLUMNS])
MACHINE = [metric for metric in METRICS if metric.compute is None]
TIMING_SCHEMA = pa.schema(
    [
        pa.field("run", WORD),
        pa.field("policy", WORD),
        pa.field("seconds", NUMBER),
        *(pa.field(metric.column_name, NUMBER) for metric in MACHINE),
    ]
)


def results_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of the schema; what a row does not state is null.

    Raises
    ------
    KeyError
        If a row has a column that the schema does not know.
    """
    rows = list(rows)
    for row in rows:
        for name in row:
            BY_NAME[name]
    return pa.Table.from_pylist([{column.name: row.get(column.name) for column in COLUMNS} for row in rows], SCHEMA)
