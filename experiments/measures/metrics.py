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


def _requests(name: str, label: str, meaning: str, **more: Any) -> Metric:
    """A number of requests, from the tally."""
    compute = more.pop("compute", lambda m: m.count(name))
    settings: dict[str, Any] = {"section": Section.REQUESTS, "unit": "requests", "type": int, **more}
    return Metric(name=name, label=label, meaning=meaning, compute=compute, **settings)


def _cost_part(part: str, meaning: str, column: str | None) -> Metric:
    return Metric(
        name=f"{part}_usd",
        section=Section.MONEY,
        label=f"  {part.replace('_', ' ')}",
        unit="USD",
        meaning=meaning,
        compute=lambda m: m.cost_parts_usd[part],
        key=f"cost_parts_usd.{part}",
        column=column,
    )


def _latency(measure: str, name: str, meaning: str, scale: float, shown_unit: str) -> list[Metric]:
    def quantile(level: str) -> Metric:
        return Metric(
            name=f"{measure}_{level}_s",
            section=Section.LATENCY,
            label=f"{name} {level}",
            unit="s",
            scale=scale,
            shown_unit=shown_unit,
            meaning=f"{meaning}: {level} of the requests that have it",
            compute=lambda m: m.quantiles_s[f"{measure}_s"][level],
            key=f"{measure}_s.{level}",
            column=None if level in ("p50", "p95") else NOWHERE,
        )

    return [quantile(level) for level in ("p50", "p95", "p99")]


def _slos_broken(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(not row['held'] for row in rows)} of {len(rows)}"


# In the order of `summary.json`; tables and results of sweeps sort them by section.
METRICS: tuple[Metric, ...] = (
    # -- requests
    _requests(
        "unmet_share",
        NOWHERE,
        "share of all queries that were not served",
        compute=lambda m: m.share(m.unserved) or 0.0,
        unit="1",
        type=float,
        key=NOWHERE,
    ),
    _requests(
        "violation_share",
        NOWHERE,
        "share of all queries that were not served, or whose type or request broke a limit",
        compute=lambda m: m.share(m.violated) or 0.0,
        unit="1",
        type=float,
        key=NOWHERE,
    ),
    _requests("arrived", "arrived", "requests that arrived"),
    _requests("served", "served", "requests that got all of their tokens"),
    _requests("rejected", "rejected", "requests that were turned away: no share of the plan, or no room in a cache"),
    _requests(
        "rejected_too_large",
        NOWHERE,
        "rejected requests that do not fit into the KV cache of a replica of their route",
        compute=lambda m: m.too_large,
        column=NOWHERE,
    ),
    _requests("failed", "failed", "requests that were lost with their replica, or for want of one"),
    _requests("in_flight", "in flight", "requests that were unfinished when the simulation ended"),
    _requests(
        "slo_violations",
        "served beyond a limit",
        "served requests beyond a limit of their type: E2E delay, TTFT or TPOT",
        share_of="arrived",
    ),
    _requests(
        "goodput_share",
        "goodput: served within all limits",
        "share of the requests that arrived that were served within every limit of their type; null if none arrived",
        compute=lambda m: m.share(m.count("served") - m.count("slo_violations")),
        unit="1",
        type=float,
        scale=100.0,
        shown_unit="%",
        digits=1,
        column=NOWHERE,
    ),
    # -- money
    Metric(
        name="cost_usd",
        section=Section.MONEY,
        label="cost",
        unit="USD",
        meaning="rent, storage, penalties and, where it is charged, moving",
        compute=lambda m: m.cost_usd,
    ),
    _cost_part("rental", "rent of GPUs, from the order of a replica to its end", "rent_usd"),
    _cost_part("model_storage", "storage of weights", NOWHERE),
    _cost_part("token_storage", "storage of tokens, each for an hour", NOWHERE),
    Metric(
        name="storage_usd",
        section=Section.MONEY,
        label=NOWHERE,
        unit="USD",
        meaning="storage of weights and tokens",
        compute=lambda m: m.cost_parts_usd["model_storage"] + m.cost_parts_usd["token_storage"],
        key=NOWHERE,
    ),
    _cost_part("delay_penalty", "penalty for the delay of what was served", None),
    _cost_part("unmet_penalty", "penalty for what was not served", None),
    # -- the fleet
    Metric(
        name="gpu_hours",
        section=Section.FLEET,
        label="GPU-hours",
        unit="GPU h",
        shown_unit="",
        meaning="GPUs times the hours for which they were rented",
        compute=lambda m: m.gpu_hours,
    ),
    # -- latency
    *_latency("ttft", "TTFT", "time to first token", 1.0, "s"),
    *_latency("tpot", "TPOT", "time per output token after the first", 1000.0, "ms"),
    *_latency("e2e", "E2E", "end-to-end delay, from arrival to the last token", 1.0, "s"),
    Metric(
        name="quantiles_exact",
        section=Section.LATENCY,
        label=NOWHERE,
        unit="",
        type=bool,
        meaning="whether the quantiles of the times are exact, not to within 0.05 % (more than a million requests)",
        compute=lambda m: m.quantiles_exact,
        column=NOWHERE,
    ),
    # -- the limits of the scenario
    _requests(
        "type_intervals",
        "query types, by interval",
        "pairs of a query type and an interval in which requests of it were served",
        compute=lambda m: int((m.tally.counts["served"] > 0).sum()),
        unit="pairs",
        column=NOWHERE,
    ),
    _requests(
        "type_intervals_delay_broken",
        "  missed their mean delay limit",
        "of those, the pairs in which the mean delay of the served requests is above the limit of their type",
        compute=lambda m: int(m.mean_limits.delay_broken.sum()),
        unit="pairs",
        share_of="type_intervals",
        column=NOWHERE,
    ),
    _requests(
        "type_intervals_error_broken",
        "  missed their mean error limit",
        "of those, the pairs in which the mean error of the served requests is above the limit of their type",
        compute=lambda m: int(m.mean_limits.error_broken.sum()),
        unit="pairs",
        share_of="type_intervals",
        column=NOWHERE,
    ),
    _requests(
        "percentile_slos",
        "percentile SLOs broken",
        "each percentile SLO of the scenario with what became of it; only where there are any",
        compute=lambda m: m.tally.slo_rows() or ABSENT,
        unit="",
        type=list,
        show=_slos_broken,
        column=NOWHERE,
    ),
    # -- the fleet, as it went
    Metric(
        name="preemptions",
        section=Section.FLEET,
        label="preemptions",
        unit="preemptions",
        type=int,
        meaning="requests that lost their KV cache to others and had to start over, each time counted",
        compute=lambda m: m.tally.preemptions,
        column=NOWHERE,
    ),
    Metric(
        name="replicas_rented",
        section=Section.FLEET,
        label="replicas rented",
        unit="replicas",
        type=int,
        meaning="replicas that were rented at any time",
        compute=lambda m: len(m.run.rentals),
        column=NOWHERE,
    ),
    # -- planning
    Metric(
        name="intervals",
        section=Section.PLANNING,
        label=NOWHERE,
        unit="intervals",
        type=int,
        meaning="intervals of the horizon, one for each plan",
        compute=lambda m: max(0, m.planning.plans - 1) + 1,
        key=NOWHERE,
    ),
    Metric(
        name="replans",
        section=Section.PLANNING,
        label="re-plans",
        unit="plans",
        type=int,
        meaning="plans after the first",
        compute=lambda m: max(0, m.planning.plans - 1),
    ),
    Metric(
        name="infeasible_replans",
        section=Section.TROUBLE,
        label="re-plans that found no plan",
        unit="intervals",
        type=int,
        meaning="intervals for which the policy had no plan that keeps the limits: the fleet in force stayed",
        compute=lambda m: m.planning.infeasible,
        column="intervals_infeasible",
    ),
    Metric(
        name="fleet_changes",
        section=Section.PLANNING,
        label="  that changed the fleet",
        unit="intervals",
        type=int,
        meaning="intervals in which a replica was started or stopped",
        compute=lambda m: m.fleet_changes,
        column="intervals_changed",
    ),
    Metric(
        name="time_limits_hit",
        section=Section.TROUBLE,
        label="plans ended by a time limit",
        unit="plans",
        type=int,
        meaning="plans that were not finished when the time limit of the policy came",
        compute=lambda m: m.planning.time_limits_hit,
        column=NOWHERE,
    ),
    # -- this machine
    Metric(
        name="planning_s",
        section=Section.PLANNING,
        label="planning",
        unit="s",
        meaning="seconds that planning took on this machine",
        compute=None,
    ),
    Metric(
        name="engine_cpu_s",
        section=Section.PLANNING,
        label="simulation",
        unit="s",
        shown_unit="CPU s",
        meaning="CPU seconds that the simulation took on this machine",
        compute=None,
    ),
)


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
