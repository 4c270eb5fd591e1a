"""Scenario files (TOML): query types by rules, limits, prices, catalog choice, engine and forecast settings."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, field_validator, model_validator

from experiments.scenario.slo import PercentileSlo, parse_slos
from simulator.catalog import Catalog, candidate_configurations, load_catalog
from simulator.catalog.configuration import Configuration, DeploymentKey
from simulator.delay import DELAY_MODELS, DelayModel, SlowedDelay, StepCost
from simulator.errors import InputError
from simulator.fleet.balancer import BALANCERS
from simulator.fleet.reality import OnFailure
from simulator.planning.files import read_bytes
from simulator.planning.plan import describe
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import CapacityRows
from simulator.replica.port import Discipline, NominalReplica
from simulator.replica.registry import DISCIPLINES, discipline_of
from simulator.validation import StrictModel, closest, input_error
from simulator.workload import Trace
from traces.forecast.registry import FORECASTERS, refuse_unknown

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Degrees = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]

EXPECTED = "expected"  # instead of a profile's name
MAX_LISTED = 5  # requests shown when no rule matches them


class TokenRange(StrictModel):
    """Both ends belong to the range; without `max` it is open."""

    min: Count = 0
    max: Count | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max ({self.max}) must not be below min ({self.min})")
        return self

    def contains(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        inside = tokens >= self.min
        return inside if self.max is None else inside & (tokens <= self.max)


class ExpectedDemand(StrictModel):
    """What the operator expects before the first request is seen; the forecast starts from it."""

    arrival_per_h: NonNegative
    input_tokens: NonNegative
    output_tokens: NonNegative


class PercentileLimits(StrictModel):
    """Limits by percentile, as in `e2e_s = { p50 = 4.0, p99 = 20.0 }` (`experiments.scenario.slo`)."""

    ttft_s: dict[str, Positive] = Field(default_factory=dict)
    tpot_s: dict[str, Positive] = Field(default_factory=dict)
    e2e_s: dict[str, Positive] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        try:
            self.slos()
        except InputError as error:
            raise ValueError("; ".join(error.problems)) from None
        return self

    def slos(self) -> tuple[PercentileSlo, ...]:
        return parse_slos(self.model_dump())


class QueryTypeRule(StrictModel):
    """A query type: the requests that belong to it, its limits and its penalties.

    `delay_slo_s`, `ttft_slo_s` and `tpot_slo_s` are limits of each request, the first also of the mean delay; those of
    `percentile_slos` are limits that a share of the requests has to keep.
    """

    name: Annotated[str, Field(min_length=1)]
    source: str | None = None
    input_tokens: TokenRange = TokenRange()
    output_tokens: TokenRange = TokenRange()
    expected: ExpectedDemand
    delay_slo_s: Positive
    ttft_slo_s: Positive | None = None
    tpot_slo_s: Positive | None = None
    percentile_slos: PercentileLimits = PercentileLimits()
    error_slo: Share
    difficulty: Positive = 1.0
    delay_penalty_usd_per_query_s: NonNegative = 0.0
    unmet_penalty_usd_per_query: NonNegative
    unmet_cap: Share = 1.0
    token_storage_gb_per_token: NonNegative = 0.0

    def slos(self, default_level: float | None = None) -> tuple[PercentileSlo, ...]:
        """The percentile SLOs that are stated; where none is and a level is given, the limits of each request at it."""
        stated = self.percentile_slos.slos()
        if stated or default_level is None:
            return stated
        limits = {"ttft_s": self.ttft_slo_s, "tpot_s": self.tpot_slo_s, "e2e_s": self.delay_slo_s}
        return tuple(
            PercentileSlo(measure=measure, level=default_level, limit_s=limit_s)
            for measure, limit_s in limits.items()
            if limit_s is not None
        )

    @property
    def planned_tpot_s(self) -> float | None:
        """The time per output token that plans have to keep: what is stated, else the tightest percentile."""
        if self.tpot_slo_s is not None:
            return self.tpot_slo_s
        return min((slo.limit_s for slo in self.slos() if slo.measure == "tpot_s"), default=None)


class CatalogChoice(StrictModel):
    """Which models and tiers may be rented, and at what price."""

    file: str | None = None
    models: tuple[str, ...] | None = None
    tiers: tuple[str, ...] | None = None
    tensor_parallel: Degrees = (1, 2, 4, 8)
    pipeline_parallel: Degrees = (1,)
    price_usd_per_gpu_h: dict[str, NonNegative] = Field(default_factory=dict)
    memory_utilisation: Annotated[float, Field(gt=0, le=1)] = 0.9


class Limits(StrictModel):
    """Money and space. Budget and storage are stated per hour and in total; intervals take their part."""

    budget_usd_per_h: NonNegative
    storage_capacity_gb: NonNegative = 1000.0
    storage_price_usd_per_gb_h: NonNegative = 0.0
    max_replicas: Annotated[int, Field(ge=1)] = 8
    cap: Annotated[float, Field(gt=0, le=1)] = 1.0


class EngineChoice(StrictModel):
    """How replicas serve and start."""

    token_budget: Annotated[int, Field(ge=1)] = 2048
    slots: Annotated[int, Field(ge=1)] | None = None  # most requests in service on a replica (`static`)
    provisioning_s: NonNegative = 60.0
    load_gb_per_s: Positive = 1.0
    grace_s: NonNegative = 600.0
    balancer: str = "least_outstanding_tokens"
    failures_per_replica_h: NonNegative = 0.0
    on_failure: OnFailure = OnFailure.REQUEUE
    step_time: str | None = None  # path/to/file.py:function, from the scenario file's folder; docs/extending.md
    admission: str | None = None
    router: str | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.balancer not in BALANCERS:
            raise ValueError(f"balancer {self.balancer!r} is unknown; known: {', '.join(BALANCERS)}")
        return self


class ForecastChoice(StrictModel):
    """How arrival rates are forecast (`traces.forecast`): the mean or a quantile of the next interval, times a margin.

    `weight` is also that of the means of lengths.
    """

    method: str = "ewma"
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    margin: Positive = 1.0
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    season_s: Positive = 86400.0

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.method not in FORECASTERS:
            raise ValueError(f"method {self.method!r} is unknown; {closest(self.method, FORECASTERS)}")
        return self

    @property
    def label(self) -> str:
        """As the command line writes it, for instance `adaptive:p90`."""
        return self.method if self.quantile is None else f"{self.method}:p{100 * self.quantile:g}"


class StopChoice(StrictModel):
    """Stopping rules of the policies in a replay; all but the time limit are deterministic."""

    relative_gap: NonNegative = 0.01
    max_nodes: Annotated[int, Field(ge=0)] | None = 2000
    starts: Annotated[int, Field(ge=1)] = 12
    iterations: Annotated[int, Field(ge=1)] = 200
    time_limit_s: Positive | None = 120.0

    def rule(self) -> StoppingRule:
        return StoppingRule(**self.model_dump())


class Synthetic(StrictModel):
    """What stands in when no trace is given: a profile, or `expected` for Poisson arrivals as the types expect them."""

    profile: str = "azure-2023"
    duration_s: Positive = 3600.0
    rate_factor: Positive = 1.0


class _File(StrictModel):
    format: Literal["tokenfleet-scenario/1"]
    name: str
    description: str = ""
    discipline: str
    capacity: CapacityRows
    delay_model: str = "constant"
    tpot_targets_s: tuple[Positive, ...] | None = None
    catalog: CatalogChoice = CatalogChoice()
    limits: Limits
    engine: EngineChoice = EngineChoice()
    forecast: ForecastChoice = ForecastChoice()
    stop: StopChoice = StopChoice()
    synthetic: Synthetic = Synthetic()
    query_types: Annotated[tuple[QueryTypeRule, ...], Field(min_length=1)]

    @field_validator("discipline")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DISCIPLINES:
            raise ValueError(f"unknown discipline; {closest(name, DISCIPLINES)}")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        names = [rule.name for rule in self.query_types]
        problems += [f"query_types names {name!r} twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if self.delay_model not in DELAY_MODELS:
            problems.append(f"delay_model {self.delay_model!r} is unknown; known: {', '.join(DELAY_MODELS)}")
        if self.engine.slots is not None and not DISCIPLINES[self.discipline].slotted:
            problems.append(f"engine.slots: the discipline {self.discipline!r} has no slots")
        if self.capacity is CapacityRows.BATCHING:
            problems += [
                f"query_types[{i}].tpot_slo_s is missing: `batching` capacity needs one for {rule.name!r}"
                for i, rule in enumerate(self.query_types)
                if rule.planned_tpot_s is None
            ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """A scenario file with its catalog read and its configurations listed; `folder` is where its paths count from.

    `skipped` says of each model that the file chooses and that fits nowhere why it is left out.
    """

    file: _File
    folder: Path
    catalog: Catalog
    delay_model: DelayModel
    configurations: tuple[Configuration, ...]
    skipped: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def types(self) -> tuple[QueryTypeRule, ...]:
        return self.file.query_types

    @property
    def tpot_targets_s(self) -> tuple[float, ...]:
        """Operating points of the `batching` rows: those stated, else the distinct TPOT limits."""
        stated = self.file.tpot_targets_s
        return (
            stated if stated else tuple(sorted({t.planned_tpot_s for t in self.types if t.planned_tpot_s is not None}))
        )

    def step_cost(self, key: DeploymentKey) -> StepCost:
        """Of one replica, at nominal."""
        model, tier = self.catalog.models[key.model], self.catalog.tiers[key.tier]
        return self.delay_model.step_cost(model, tier, key.tensor_parallel, key.pipeline_parallel)

    @property
    def discipline(self) -> Discipline:
        """How replicas serve."""
        return discipline_of(self.file.discipline)

    @property
    def has_queues(self) -> bool:
        """Whether replicas batch and plans count with it: only then can plans be verified by what queues do."""
        return self.file.capacity is CapacityRows.BATCHING is self.discipline.capacity_rows

    def nominal_replica(self, key: DeploymentKey) -> NominalReplica:
        """One replica as planners see it."""
        return NominalReplica.of(
            self.catalog,
            self.delay_model,
            key,
            memory_utilisation=self.file.catalog.memory_utilisation,
            token_budget=self.file.engine.token_budget,
            slots=self.file.engine.slots,
        )

    def error_of(self, configurations: tuple[Configuration, ...]) -> npt.NDArray[np.float64]:
        """Shape (types, configurations): error of the model x factor of the precision x difficulty of the type."""
        base = np.array(
            [
                (self.catalog.models[c.model].error or 0.0) * self.catalog.tiers[c.tier].error_factor
                for c in configurations
            ]
        )
        difficulty = np.array([rule.difficulty for rule in self.types], dtype=np.float64)
        return np.outer(difficulty, base)


def shipped_scenarios() -> dict[str, str]:
    """Names of the shipped scenarios with their descriptions."""
    folder = resources.files("experiments") / "scenarios"
    files = sorted(item.name for item in folder.iterdir() if item.name.endswith(".toml"))
    return {
        name.removesuffix(".toml"): str(tomllib.loads((folder / name).read_text("utf-8")).get("description", ""))
        for name in files
    }


def load_scenario(name_or_path: str) -> Scenario:
    """Load a shipped scenario by name, or a user's by path (anything with a slash or ending in `.toml`).

    Raises
    ------
    InputError
        Naming the file and every field that is missing, unknown or out of range; or an unknown scenario, model or tier.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        return _parse(read_bytes(path), str(path), path.parent)
    known = shipped_scenarios()
    if name_or_path not in known:
        raise InputError(
            f"unknown scenario {name_or_path!r}; {closest(name_or_path, known)}; or a path to a .toml file"
        )
    resource = resources.files("experiments") / "scenarios" / f"{name_or_path}.toml"
    return _parse(resource.read_bytes(), f"scenario {name_or_path}", Path())


_FORECAST = re.compile(r"(?P<method>[^:]+)(:p(?P<percent>\d{1,2}(\.\d+)?))?")


def with_forecast(scenario: Scenario, text: str) -> Scenario:
    """The scenario with another forecaster: `NAME` plans for its mean, `NAME:p90` for that quantile.

    Raises
    ------
    InputError
        If there is no such forecaster, or the quantile is none.
    """
    match = _FORECAST.fullmatch(text.strip())
    percent = float(match["percent"]) if match and match["percent"] else None
    if match is None or percent == 0:
        raise InputError(f"--forecast: expected NAME or NAME:p90, a quantile between p0 and p100; found {text!r}")
    try:
        refuse_unknown(match["method"])
    except InputError as error:
        raise InputError(f"--forecast: {error}") from None
    chosen = {"method": match["method"], "quantile": None if percent is None else percent / 100}
    choice = scenario.file.forecast.model_copy(update=chosen)
    return replace(scenario, file=scenario.file.model_copy(update={"forecast": choice}))


def with_delay_model(scenario: Scenario, name: str) -> Scenario:
    """The scenario with another delay model, for planner and engine alike.

    Raises
    ------
    InputError
        If there is no such delay model.
    """
    if name not in DELAY_MODELS:
        raise InputError(f"--delay-model: {name!r} is unknown; {closest(name, DELAY_MODELS)}")
    file = scenario.file.model_copy(update={"delay_model": name})
    return replace(scenario, file=file, delay_model=DELAY_MODELS[name](scenario.catalog))


def slowed(scenario: Scenario, factor: float) -> Scenario:
    """The scenario in a world in which every step takes `factor` times as long, for planner and engine alike."""
    return scenario if factor == 1 else replace(scenario, delay_model=SlowedDelay(scenario.delay_model, factor))


def with_changes(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """The scenario with other values of some fields, by dotted name (`limits.cap`); not of its catalog.

    Raises
    ------
    InputError
        If there is no such field, or the value is out of range.
    """
    if not changes:
        return scenario
    raw = scenario.file.model_dump()
    for name, value in changes.items():
        *groups, field = name.split(".")
        place = raw
        for group in groups:
            place = place.get(group, {})
        if field not in place or groups[:1] == ["catalog"]:
            raise InputError(f"scenario {scenario.name}: {name} is no field that can be changed")
        place[field] = value
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        raise input_error(f"scenario {scenario.name}", error) from None
    return replace(scenario, file=file, delay_model=DELAY_MODELS[file.delay_model](scenario.catalog))


def _parse(data: bytes, source: str, folder: Path) -> Scenario:
    try:
        raw = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: expected TOML: {error}") from None
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        raise input_error(source, error) from None
    choice = file.catalog
    try:
        catalog = load_catalog(None if choice.file is None else folder / choice.file).select(
            models=choice.models, tiers=choice.tiers, price_overrides=choice.price_usd_per_gpu_h
        )
        unknown = [model.name for model in catalog.models.values() if model.error is None]
        if unknown:
            raise InputError(
                f"{', '.join(unknown)}: no error is known, and none can be planned with; state one in a file"
            )
        candidates = candidate_configurations(
            catalog, choice.tensor_parallel, choice.pipeline_parallel, choice.memory_utilisation
        )
    except InputError as error:
        raise InputError(f"{source}: catalog: {problem}" for problem in error.problems) from None
    configurations = candidates.configurations
    catalog = catalog.select(models=list(dict.fromkeys(c.model for c in configurations)))
    _refuse_tiny_budget(source, file, catalog, configurations)
    return Scenario(
        file=file,
        folder=folder,
        catalog=catalog,
        delay_model=DELAY_MODELS[file.delay_model](catalog),
        configurations=configurations,
        skipped=candidates.skipped,
    )


def _refuse_tiny_budget(source: str, file: _File, catalog: Catalog, configurations: tuple[Configuration, ...]) -> None:
    """A budget that rents nothing would reject every request: surely a mistake."""
    cheapest = min(configurations, key=lambda c: c.gpus * catalog.tiers[c.tier].price_usd_per_gpu_h)
    price = cheapest.gpus * catalog.tiers[cheapest.tier].price_usd_per_gpu_h
    budget = file.limits.budget_usd_per_h
    if budget < price:
        raise InputError(
            f"{source}: limits.budget_usd_per_h: {budget:g} USD/h is too small: the cheapest replica, "
            f"{describe(cheapest)}, rents for {price:g} USD/h"
        )


def classify(scenario: Scenario, trace: Trace) -> npt.NDArray[np.int32]:
    """Give each request the first query type whose rule matches, -1 if there is none: see `Unmatched`."""
    result = np.full(len(trace), -1, dtype=np.int32)
    for index, rule in enumerate(scenario.types):
        matches = rule.input_tokens.contains(trace.input_tokens) & rule.output_tokens.contains(trace.output_tokens)
        if rule.source is not None:
            matches &= trace.source == (trace.sources.index(rule.source) if rule.source in trace.sources else -1)
        result[matches & (result < 0)] = index
    return result


class Unmatched:
    """Counts the requests that match no query type, chunk by chunk."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._seen = 0
        self._missed = 0
        self._examples: list[str] = []

    def look_at(self, trace: Trace) -> None:
        """Look at the next chunk of a trace."""
        missed = np.flatnonzero(classify(self._scenario, trace) < 0)
        for i in missed[: MAX_LISTED - len(self._examples)].tolist():
            self._examples.append(
                f"  request {self._seen + i}: source {trace.sources[trace.source[i]]!r}, {trace.input_tokens[i]} input "
                f"and {trace.output_tokens[i]} output tokens"
            )
        self._missed += len(missed)
        self._seen += len(trace)

    def refuse(self) -> None:
        """Refuse a trace that has such requests.

        Raises
        ------
        InputError
            Saying how many there are, and what the first of them look like.
        """
        if not self._missed:
            return
        more = [f"  and {self._missed - MAX_LISTED} more"] if self._missed > MAX_LISTED else []
        head = f"scenario {self._scenario.name}: no query type matches {self._missed} of {self._seen} requests:"
        raise InputError("\n".join([head, *self._examples, *more]))
