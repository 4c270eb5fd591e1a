"""What scenario files (TOML) may say: query types by rules, limits, catalog choice, engine and forecast settings."""

from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from experiments.scenario.slo import PercentileSlo, parse_slos
from simulator.delay import DELAY_MODELS
from simulator.errors import InputError
from simulator.fleet.balancer import BALANCERS
from simulator.fleet.reality import OnFailure
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import CapacityRows
from simulator.replica.registry import DISCIPLINES
from simulator.validation import StrictModel, closest
from traces.forecast.registry import FORECASTERS

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Degrees = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]

EXPECTED = "expected"  # instead of a profile's name


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


class ScenarioFile(StrictModel):
    """A scenario file as a whole: what each part states, and that the parts fit together."""

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
