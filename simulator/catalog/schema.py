"""The catalog's TOML: which blocks and fields exist, in which units and ranges.

Validation needs a context: under `sources` and `precisions` the names that a block may use.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from simulator.catalog.values import Gpu, Interconnect, LlmModel, Precision, Source, SourceKind, StatedValue
from simulator.validation import StrictModel, closest

BYTES_PER_FP16 = 2
SECTIONS = ("gpu", "precision", "model")


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
PositiveShare = Stated[Annotated[float, Field(strict=True, gt=0, le=1)], Literal["1"]]


class SourceBlock(StrictModel):
    """Where values come from."""

    kind: SourceKind
    citation: Annotated[str, Field(min_length=1)]


class Block(StrictModel):
    """One thing. It may define sources, which the whole file sees: adding a thing touches one block."""

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


class GpuBlock(Block):
    label: str
    memory: Memory
    bandwidth: Bandwidth
    peak: Annotated[dict[PrecisionName, Peak], Field(min_length=1), AfterValidator(_checked_peaks)]
    interconnect: Stated[Interconnect, Literal["name"]]
    hop_latency: Latency
    price: Price

    def to_value(self, name: str) -> Gpu:
        return Gpu(
            name=name,
            label=self.label,
            memory_gb=self.memory.value,
            bandwidth_gb_s=self.bandwidth.value,
            peak_tflops={precision: peak.value for precision, peak in self.peak.items()},
            interconnect=self.interconnect.value,
            hop_s=self.hop_latency.value,
            price_usd_per_gpu_h=self.price.value,
        )


class PrecisionBlock(Block):
    weight_factor: WeightFactor
    error_factor: ErrorFactor
    compute_efficiency: PositiveShare

    def to_value(self, name: str) -> Precision:
        return Precision(
            name=name,
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
    error: Share

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.attention_heads.value % self.kv_heads.value:
            raise ValueError(
                f"attention_heads ({self.attention_heads.value}) is not a multiple of kv_heads ({self.kv_heads.value})"
            )
        if self.kv_layers is not None and self.kv_layers.value > self.layers.value:
            raise ValueError(f"kv_layers ({self.kv_layers.value}) is above layers ({self.layers.value})")
        return self

    def to_value(self, name: str) -> LlmModel:
        kv_layers = (self.kv_layers or self.layers).value
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
            error=self.error.value,
        )


class CatalogFile(StrictModel):
    sources: Annotated[dict[Name, SourceBlock], Field(default_factory=dict)]
    precision: Annotated[dict[PrecisionName, PrecisionBlock], Field(default_factory=dict)]
    gpu: Annotated[dict[Name, GpuBlock], Field(default_factory=dict)]
    model: Annotated[dict[Name, ModelBlock], Field(default_factory=dict)]

    def tables_of_sources(self) -> list[dict[str, SourceBlock]]:
        """The file's own table and those of its blocks."""
        return [self.sources, *(block.sources for section in SECTIONS for block in getattr(self, section).values())]

    @model_validator(mode="after")
    def _sources_once(self) -> Self:
        names = [name for table in self.tables_of_sources() for name in table]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"these sources are defined twice: {', '.join(twice)}")
        return self
