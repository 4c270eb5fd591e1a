"""The metrics of a run: one entry each, from which everything that shows or keeps them follows.

To add a metric is to add an entry here. It then stands in `summary.json` and `--json`, in the table on the terminal and
in the report, in the results of a sweep (`experiments.sweep.schema`) and in docs/results.md, which a test holds to it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from experiments.show.parts import DASH

if TYPE_CHECKING:
    from experiments.measures.measured import Measured

NOWHERE = ""  # a metric's key, column or label: it has none
ABSENT = object()  # the value of a metric that this run does not have


class Section(IntEnum):
    """What a metric is about, in the order in which tables and results show them."""

    MONEY = 0
    REQUESTS = 1
    LATENCY = 2
    FLEET = 3
    PLANNING = 4
    TROUBLE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a run.

    Attributes
    ----------
    name
        Names it among the metrics.
    meaning
        A sentence for the documents.
    compute
        Its value; None for seconds of this machine, which stand in `timing.json` and are no part of the results.
    unit
        Of the value: empty for words and truth values, 1 for shares.
    type
        Of the value, for tables of results.
    label
        Its row in tables, indented below the row that it is a part of; `NOWHERE`: no table shows it.
    scale, shown_unit, digits
        What is shown is the value times `scale`, in this unit (None: `unit`), with so many decimals unless it is whole.
    share_of
        Key in `summary.json` of the number that this one is a part of: shown as a percentage beside it.
    show
        How a value that is no number is shown.
    key
        Its place in `summary.json`, with a dot between the levels; None: its name; `NOWHERE`: others tell it.
    column
        Its column in the results of a sweep; None: its name; `NOWHERE`: it has none.
    """

    name: str
    section: Section
    meaning: str
    compute: "Callable[[Measured], Any] | None"
    unit: str
    type: type = float
    label: str
    scale: float = 1.0
    shown_unit: str | None = None
    digits: int = 2
    share_of: str = ""
    show: Callable[[Any], str] | None = None
    key: str | None = None
    column: str | None = None

    @property
    def path(self) -> str:
        """Its place in `summary.json`."""
        return self.name if self.key is None else self.key

    @property
    def column_name(self) -> str:
        """Its column in the results of a sweep."""
        return self.name if self.column is None else self.column

    @property
    def heading(self) -> str:
        """Its label, with the unit of what is shown unless it is a count or a part of the row above."""
        unit = self.unit if self.shown_unit is None else self.shown_unit
        plain = not unit or self.type is not float or self.label.startswith(" ")
        return self.label if plain else f"{self.label} [{unit}]"

    def text(self, summary: Mapping[str, Any]) -> str:
        """The value in a summary as a reader sees it."""
        value = look_up(summary, self.path)
        if value is None:
            return DASH
        if self.show is not None:
            return self.show(value)
        shown = f"{value:,}" if self.type is int else f"{value * self.scale:,.{self.digits}f}"
        whole = look_up(summary, self.share_of) if self.share_of else None
        return f"{shown} ({value / whole:.1%})" if whole else shown


def look_up(summary: Mapping[str, Any], path: str, otherwise: Any = None) -> Any:
    """The value at a place in a summary, `otherwise` if it is not there."""
    value: Any = summary
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return otherwise
        value = value[part]
    return value


def _metric(section: Section, name: str, label: str, unit: str, meaning: str, compute: Any, **more: Any) -> Metric:
    return Metric(section=section, name=name, label=label, unit=unit, meaning=meaning, compute=compute, **more)


def _count(section: Section, name: str, label: str, unit: str, meaning: str, compute: Any, **more: Any) -> Metric:
    """A whole number; no column of sweeps unless it names one."""
    return _metric(section, name, label, unit, meaning, compute, **{"type": int, "column": NOWHERE, **more})


def _requests(name: str, label: str, meaning: str, **more: Any) -> Metric:
    """A number of requests, from the tally; a column of sweeps."""
    return _count(Section.REQUESTS, name, label, "requests", meaning, lambda m: m.count(name), column=None, **more)


def _cost_part(part: str, column: str | None, meaning: str) -> Metric:
    more = {"key": f"cost_parts_usd.{part}", "column": column}
    label = f"  {part.replace('_', ' ')}"
    return _metric(Section.MONEY, f"{part}_usd", label, "USD", meaning, lambda m: m.cost_parts_usd[part], **more)


def _latency(measure: str, name: str, meaning: str, scale: float, shown_unit: str) -> list[Metric]:
    def quantile(level: str) -> Metric:
        return _metric(
            Section.LATENCY,
            f"{measure}_{level}_s",
            f"{name} {level}",
            "s",
            f"{meaning}: {level} of the requests that have it",
            lambda m: m.quantiles_s[f"{measure}_s"][level],
            scale=scale,
            shown_unit=shown_unit,
            key=f"{measure}_s.{level}",
            column=None if level in ("p50", "p95") else NOWHERE,
        )

    return [quantile(level) for level in ("p50", "p95", "p99")]


def _slos_broken(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(not row['held'] for row in rows)} of {len(rows)}"


_PERCENT: dict[str, Any] = {"scale": 100.0, "shown_unit": "%", "digits": 1}
_OF_PAIRS: dict[str, Any] = {"share_of": "type_intervals"}

# In the order of `summary.json`; tables and results of sweeps sort them by section.
# fmt: off
METRICS: tuple[Metric, ...] = (
    _metric(Section.REQUESTS, "unmet_share", NOWHERE, "1", "share of all queries that were not served",
            lambda m: m.share(m.unserved) or 0.0, key=NOWHERE),
    _metric(Section.REQUESTS, "violation_share", NOWHERE, "1",
            "share of all queries that were not served, or whose type or request broke a limit",
            lambda m: m.share(m.violated) or 0.0, key=NOWHERE),
    _requests("arrived", "arrived", "requests that arrived"),
    _requests("served", "served", "requests that got all of their tokens"),
    _requests("rejected", "rejected", "requests that were turned away: no share of the plan, or no room in a cache"),
    _count(Section.REQUESTS, "rejected_too_large", NOWHERE, "requests",
           "rejected requests that do not fit into the KV cache of a replica of their route", lambda m: m.too_large),
    _requests("failed", "failed", "requests that were lost with their replica, or for want of one"),
    _requests("in_flight", "in flight", "requests that were unfinished when the simulation ended"),
    _requests("slo_violations", "served beyond a limit",
              "served requests beyond a limit of their type: E2E delay, TTFT or TPOT", share_of="arrived"),
    _metric(Section.REQUESTS, "goodput_share", "goodput: served within all limits", "1",
            "share of the arrived requests that were served within every limit of their type; null if none arrived",
            lambda m: m.share(m.count("served") - m.count("slo_violations")), column=NOWHERE, **_PERCENT),
    _metric(Section.MONEY, "cost_usd", "cost", "USD", "rent, storage, penalties and, where it is charged, moving",
            lambda m: m.cost_usd),
    _cost_part("rental", "rent_usd", "rent of GPUs, from the order of a replica to its end"),
    _cost_part("model_storage", NOWHERE, "storage of weights"),
    _cost_part("token_storage", NOWHERE, "storage of tokens, each for an hour"),
    _metric(Section.MONEY, "storage_usd", NOWHERE, "USD", "storage of weights and tokens",
            lambda m: m.cost_parts_usd["model_storage"] + m.cost_parts_usd["token_storage"], key=NOWHERE),
    _cost_part("delay_penalty", None, "penalty for the delay of what was served"),
    _cost_part("unmet_penalty", None, "penalty for what was not served"),
    _metric(Section.FLEET, "gpu_hours", "GPU-hours", "GPU h", "GPUs times the hours for which they were rented",
            lambda m: m.gpu_hours, shown_unit=""),
    *_latency("ttft", "TTFT", "time to first token", 1.0, "s"),
    *_latency("tpot", "TPOT", "time per output token after the first", 1000.0, "ms"),
    *_latency("e2e", "E2E", "end-to-end delay, from arrival to the last token", 1.0, "s"),
    _metric(Section.LATENCY, "quantiles_exact", NOWHERE, "",
            "whether the quantiles of the times are exact, not to within 0.05 % (more than a million requests)",
            lambda m: m.quantiles_exact, type=bool, column=NOWHERE),
    _count(Section.REQUESTS, "type_intervals", "query types, by interval", "pairs",
           "pairs of a query type and an interval in which requests of it were served",
           lambda m: int((m.tally.counts["served"] > 0).sum())),
    _count(Section.REQUESTS, "type_intervals_delay_broken", "  missed their mean delay limit", "pairs",
           "of those, the pairs in which the mean delay of the served requests is above the limit of their type",
           lambda m: int(m.mean_limits.delay_broken.sum()), **_OF_PAIRS),
    _count(Section.REQUESTS, "type_intervals_error_broken", "  missed their mean error limit", "pairs",
           "of those, the pairs in which the mean error of the served requests is above the limit of their type",
           lambda m: int(m.mean_limits.error_broken.sum()), **_OF_PAIRS),
    _metric(Section.REQUESTS, "percentile_slos", "percentile SLOs broken", "",
            "each percentile SLO of the scenario with what became of it; only where there are any",
            lambda m: m.tally.slo_rows() or ABSENT, type=list, column=NOWHERE, show=_slos_broken),
    _count(Section.FLEET, "preemptions", "preemptions", "preemptions",
           "requests that lost their KV cache to others and had to start over, each time counted",
           lambda m: m.tally.preemptions),
    _count(Section.FLEET, "replicas_rented", "replicas rented", "replicas", "replicas that were rented at any time",
           lambda m: len(m.run.rentals)),
    _count(Section.PLANNING, "intervals", NOWHERE, "intervals", "intervals of the horizon, one for each plan",
           lambda m: max(0, m.planning.plans - 1) + 1, key=NOWHERE, column=None),
    _count(Section.PLANNING, "replans", "re-plans", "plans", "plans after the first",
           lambda m: max(0, m.planning.plans - 1), column=None),
    _count(Section.TROUBLE, "infeasible_replans", "re-plans that found no plan", "intervals",
           "intervals for which the policy had no plan that keeps the limits, or its solver failed: "
           "the fleet in force stayed",
           lambda m: m.planning.infeasible, column="intervals_infeasible"),
    _count(Section.PLANNING, "fleet_changes", "  that changed the fleet", "intervals",
           "intervals in which a replica was started or stopped", lambda m: m.fleet_changes,
           column="intervals_changed"),
    _count(Section.TROUBLE, "time_limits_hit", "plans ended by a time limit", "plans",
           "plans that were not finished when the time limit of the policy came", lambda m: m.planning.time_limits_hit),
    _metric(Section.PLANNING, "planning_s", "planning", "s", "seconds that planning took on this machine", None),
    _metric(Section.PLANNING, "engine_cpu_s", "simulation", "s",
            "CPU seconds that the simulation took on this machine", None, shown_unit="CPU s"),
)
# fmt: on


def metrics_in(section: Section) -> list[Metric]:
    """The metrics of a section, in the order of the registry."""
    return [metric for metric in METRICS if metric.section is section]


def measure(measured: "Measured") -> dict[str, Any]:
    """Every metric of a run that is part of its results, by name."""
    values = {metric.name: metric.compute(measured) for metric in METRICS if metric.compute is not None}
    return {name: value for name, value in values.items() if value is not ABSENT}


def summary_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics as they stand in `summary.json`."""
    summary: dict[str, Any] = {}
    for metric in METRICS:
        if metric.name in values and metric.path:
            *above, last = metric.path.split(".")
            place = summary
            for part in above:
                place = place.setdefault(part, {})
            place[last] = values[metric.name]
    return summary


def result_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics as columns of the results of a sweep."""
    return {
        metric.column_name: values[metric.name] for metric in METRICS if metric.name in values and metric.column_name
    }
