"""The catalog's TOML: which blocks and fields exist, in which units and ranges.

Validation needs a context: under `sources` and `precisions` the names that a block may use.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from simulator.catalog.calibration import (
    Calibration,
    Communication,
    Evidence,
    PhaseError,
    Range,
    RooflineConstants,
    Scheduling,
    ServingEngine,
)
from simulator.catalog.source import Source, SourceKind
from simulator.catalog.values import Gpu, Interconnect, LlmModel, Precision, StatedValue
from simulator.validation import StrictModel, closest

BYTES_PER_FP16 = 2
SECTIONS = ("gpu", "precision", "model", "calibration", "engine")


def _known_source(name: str, info: ValidationInfo) -> str:
    known = (info.context or {})["sources"]
    if name not in known:
        raise ValueError(f"this source is not defined in a sources table; {closest(name, known)}")
    return name


def _checked_peaks(peak: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    known = (info.context or {})["precisions"]
    problems = [f"precision {name!r} is not defined; {closest(name, known)}" for name in peak if name not in known]
    for name, stated in peak.items():
        unit = "TOP/s" if name.startswith("int") else "TFLOP/s"
        if stated.unit != unit:
            problems.append(f"the unit of {name} is {stated.unit!r}, expected {unit!r}")
    if problems:
        raise ValueError("; ".join(problems))
    return peak


Value = TypeVar("Value")
Unit = TypeVar("Unit")


class Stated(StrictModel, Generic[Value, Unit]):
    """A value with its unit and the short name of its source."""

    value: Value
    unit: Unit
    source: Annotated[str, AfterValidator(_known_source)]


# Wide ranges: they catch a wrong unit or a slipped decimal point, not an unusual machine.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
PrecisionName = Annotated[str, Field(pattern=r"^[a-z0-9]+$")]  # without a dash: the last part of a tier's name
Count = Stated[Annotated[int, Field(strict=True, ge=1, le=1_000_000)], Literal["1"]]
Memory = Stated[Annotated[float, Field(strict=True, ge=1, le=4_000)], Literal["GB"]]
Bandwidth = Stated[Annotated[float, Field(strict=True, ge=10, le=100_000)], Literal["GB/s"]]
Peak = Stated[Annotated[float, Field(strict=True, ge=1, le=1_000_000)], Literal["TFLOP/s", "TOP/s"]]
Latency = Stated[Annotated[float, Field(strict=True, ge=0, le=1)], Literal["s"]]
Price = Stated[Annotated[float, Field(strict=True, ge=0, le=1_000)], Literal["USD/GPU-h"]]
Parameters = Stated[Annotated[float, Field(strict=True, ge=0.01, le=10_000)], Literal["1e9"]]
WeightFactor = Stated[Annotated[float, Field(strict=True, gt=0, le=2)], Literal["1"]]
ErrorFactor = Stated[Annotated[float, Field(strict=True, ge=1, le=10)], Literal["1"]]
Share = Stated[Annotated[float, Field(strict=True, ge=0, le=1)], Literal["1"]]
Flag = Stated[Annotated[bool, Field(strict=True)], Literal["1"]]
PositiveShare = Stated[Annotated[float, Field(strict=True, gt=0, le=1)], Literal["1"]]


class SourceBlock(StrictModel):
    """Where values come from."""

    kind: SourceKind
    citation: Annotated[str, Field(min_length=1)]


class Block(StrictModel):
    """Base of all blocks. A block may define sources, which the whole file sees, so that an addition is one block."""

    sources: Annotated[dict[Name, SourceBlock], Field(default_factory=dict)]

    def stated(self, section: str, block: str, sources: Mapping[str, Source]) -> tuple[StatedValue, ...]:
        """Every value of the block with its source."""
        fields: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            fields |= (
                {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
            )
        return tuple(
            StatedValue(
                section=section, block=block, field=name, value=item.value, unit=item.unit, source=sources[item.source]
            )
            for name, item in fields.items()
            if isinstance(item, Stated)
        )


Aliases = Annotated[list[str], Field(default_factory=list)]  # how measurement files write the name


class GpuBlock(Block):
    label: str
    aliases: Aliases
    memory: Memory
    bandwidth: Bandwidth
    peak: Annotated[dict[PrecisionName, Peak], Field(min_length=1), AfterValidator(_checked_peaks)]
    interconnect: Stated[Interconnect, Literal["name"]]
    link_bandwidth: Bandwidth | None = None  # of one GPU to the others, both ways together
    hop_latency: Latency
    price: Price

    def to_value(self, name: str) -> Gpu:
        return Gpu(
            name=name,
            label=self.label,
            aliases=tuple(self.aliases),
            memory_gb=self.memory.value,
            bandwidth_gb_s=self.bandwidth.value,
            peak_tflops={precision: peak.value for precision, peak in self.peak.items()},
            interconnect=self.interconnect.value,
            link_gb_s=None if self.link_bandwidth is None else self.link_bandwidth.value,
            hop_s=self.hop_latency.value,
            price_usd_per_gpu_h=self.price.value,
        )


class PrecisionBlock(Block):
    aliases: Aliases
    weight_factor: WeightFactor
    error_factor: ErrorFactor
    compute_efficiency: PositiveShare

    def to_value(self, name: str) -> Precision:
        return Precision(
            name=name,
            aliases=tuple(self.aliases),
            weight_factor=self.weight_factor.value,
            error_factor=self.error_factor.value,
            compute_efficiency=self.compute_efficiency.value,
        )


class ModelBlock(Block):
    label: str
    parameters: Parameters
    layers: Count
    kv_layers: Count | None = None  # layers that keep a cache per token, where not all do
    attention_heads: Count
    kv_heads: Count
    head_dim: Count
    hidden_size: Count
    vocabulary: Count | None = None
    tied_embeddings: Flag | None = None
    error: Share | None = None  # without it the model has a shape to measure but cannot be planned with

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attention_heads.value % self.kv_heads.value:
            raise ValueError(
                f"attention_heads ({self.attention_heads.value}) is not a multiple of kv_heads ({self.kv_heads.value})"
            )
        if self.kv_layers is not None and self.kv_layers.value > self.layers.value:
            raise ValueError(f"kv_layers ({self.kv_layers.value}) is above layers ({self.layers.value})")
        if self.vocabulary is not None:
            embeddings_b = 2 * self.vocabulary.value * self.hidden_size.value / 1e9
            if self.tied_embeddings is not None and self.tied_embeddings.value:
                embeddings_b /= 2
            if embeddings_b >= self.parameters.value:
                raise ValueError(
                    f"embeddings of vocabulary x hidden_size have {embeddings_b:g}e9 parameters, more than all"
                )
        return self

    def to_value(self, name: str) -> LlmModel:
        kv_layers = (self.kv_layers or self.layers).value
        head_b = 0.0 if self.vocabulary is None else self.vocabulary.value * self.hidden_size.value / 1e9
        embeddings = 1 if self.tied_embeddings is not None and self.tied_embeddings.value else 2
        return LlmModel(
            name=name,
            label=self.label,
            parameters_b=self.parameters.value,
            weights_gb=BYTES_PER_FP16 * self.parameters.value,
            layers=self.layers.value,
            attention_heads=self.attention_heads.value,
            kv_heads=self.kv_heads.value,
            head_dim=self.head_dim.value,
            hidden_size=self.hidden_size.value,
            kv_bytes_per_token=2.0 * kv_layers * self.kv_heads.value * self.head_dim.value * BYTES_PER_FP16,
            head_parameters_b=head_b,
            layer_parameters_b=self.parameters.value - embeddings * head_b,
            error=None if self.error is None else self.error.value,
        )


Positive = Annotated[float, Field(strict=True, gt=0, le=1e6)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=1e6)]
UpToOne = Annotated[float, Field(strict=True, gt=0, le=1)]
Whole = Annotated[int, Field(strict=True, ge=1)]
SourceName = Annotated[str, AfterValidator(_known_source)]


ErrorName = Literal["prefill", "decode", "unseen_prefill", "unseen_decode", "ratio_prefill", "ratio_decode"]


class CommunicationBlock(StrictModel):
    latency_s: NotNegative
    gb_per_s: Positive
    prompt_latency_s: NotNegative
    prompt_gb_per_s: Positive
    prompt_large_gb_per_s: Positive


class PhaseErrorBlock(StrictModel):
    rows: Whole
    mape: NotNegative
    p90: NotNegative


class RangeBlock(StrictModel):
    tensor_parallel: Annotated[list[Whole], Field(min_length=1)]
    models: list[str]
    prompt_tokens: Annotated[int, Field(strict=True, ge=0)]
    sequences: Annotated[int, Field(strict=True, ge=0)]
    context_tokens: Annotated[int, Field(strict=True, ge=0)]


class CalibrationBlock(Block):
    """Constants that belong together, so that they have one source; units are in the names."""

    evidence: Literal["measured", "composed"]
    source: SourceName
    compute_share: UpToOne
    bandwidth_share: UpToOne
    sharpness: Annotated[float, Field(strict=True, ge=1, le=100)]
    activation_passes: NotNegative
    attention_compute_share: UpToOne
    attention_bandwidth_share: UpToOne
    step_s: NotNegative
    layer_s: NotNegative
    sequence_layer_s: NotNegative
    prompt_layer_s: NotNegative
    communication: Annotated[dict[str, CommunicationBlock], Field(min_length=1)]
    range: RangeBlock
    error: dict[ErrorName, PhaseErrorBlock]

    @model_validator(mode="after")
    def _degrees(self) -> Self:
        wrong = [degree for degree in self.communication if not (degree.isdigit() and int(degree) > 1)]
        if wrong:
            raise ValueError(f"communication: {', '.join(wrong)} is no tensor-parallel degree, expected 2 or more")
        return self

    def to_value(self, name: str, sources: Mapping[str, Source]) -> Calibration:
        def error(which: ErrorName) -> PhaseError | None:
            block = self.error.get(which)
            return None if block is None else PhaseError(**block.model_dump())

        constants = {field: getattr(self, field) for field in RooflineConstants.__dataclass_fields__}
        constants["communication"] = {
            int(degree): Communication(**block.model_dump()) for degree, block in self.communication.items()
        }
        return Calibration(
            tier=name,
            evidence=Evidence(self.evidence),
            source=sources[self.source],
            constants=RooflineConstants(**constants),
            range=Range(
                tensor_parallel=tuple(self.range.tensor_parallel),
                models=tuple(self.range.models),
                prompt_tokens=self.range.prompt_tokens,
                sequences=self.range.sequences,
                context_tokens=self.range.context_tokens,
            ),
            prefill=error("prefill"),
            decode=error("decode"),
            unseen_prefill=error("unseen_prefill"),
            unseen_decode=error("unseen_decode"),
            ratio_prefill=error("ratio_prefill"),
            ratio_decode=error("ratio_decode"),
        )


class EngineBlock(Block):
    source: SourceName
    step_s: NotNegative
    layer_s: NotNegative
    sequence_s: NotNegative
    prompt_token_s: NotNegative
    prompt_layer_s: NotNegative
    all_reduce_s: NotNegative
    compute_factor: Positive
    bandwidth_factor: Positive
    attention_factor: Positive
    token_budget: Whole
    scheduling: Scheduling
    ttft_s: NotNegative
    ttft_token_s: NotNegative
    fp8_kv_cache: bool

    def to_value(self, name: str, sources: Mapping[str, Source]) -> ServingEngine:
        fields = {field: getattr(self, field) for field in ServingEngine.__dataclass_fields__ if field != "name"}
        return ServingEngine(**(fields | {"name": name, "source": sources[self.source]}))


class CatalogFile(StrictModel):
    sources: Annotated[dict[Name, SourceBlock], Field(default_factory=dict)]
    precision: Annotated[dict[PrecisionName, PrecisionBlock], Field(default_factory=dict)]
    gpu: Annotated[dict[Name, GpuBlock], Field(default_factory=dict)]
    model: Annotated[dict[Name, ModelBlock], Field(default_factory=dict)]
    calibration: Annotated[dict[Name, CalibrationBlock], Field(default_factory=dict)]
    engine: Annotated[dict[Name, EngineBlock], Field(default_factory=dict)]

    def tables_of_sources(self) -> list[dict[str, SourceBlock]]:
        """The source tables of a file: its own, and those inside its blocks."""
        return [self.sources, *(block.sources for section in SECTIONS for block in getattr(self, section).values())]

    @model_validator(mode="after")
    def _sources_once(self) -> Self:
        names = [name for table in self.tables_of_sources() for name in table]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"these sources are defined twice: {', '.join(twice)}")
        return self
