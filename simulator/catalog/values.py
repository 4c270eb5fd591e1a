"""Values of the catalog: plain numbers with their units in the names, and where each number comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from simulator.catalog.calibration import Calibration
from simulator.catalog.source import Source


class Interconnect(StrEnum):
    """What links the GPUs of one replica."""

    PCIE = "pcie"
    NVLINK = "nvlink"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedValue:
    """One value as the catalog states it: `section.block.field`, for instance `gpu.h100-80.memory`."""

    section: str  # gpu, precision, model, or tier (a price override)
    block: str
    field: str
    value: float | str
    unit: str  # "1" for counts and factors, "name" for words
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """A number format that weights and matrix products use. The KV cache stays FP16."""

    name: str
    aliases: tuple[str, ...] = ()  # how measurement files write it
    weight_factor: float  # on FP16 weights [nu_k]
    error_factor: float  # on the error of a model at FP16
    compute_efficiency: float  # share of the peak that serving reaches in `paper` capacity rows, in (0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU as one can rent it."""

    name: str
    label: str
    aliases: tuple[str, ...] = ()  # how measurement files write it
    memory_gb: float
    bandwidth_gb_s: float
    peak_tflops: Mapping[
        str, float
    ]  # dense tensor-core peak of each precision that the hardware has (TOP/s if integer)
    interconnect: Interconnect
    hop_s: float  # per pipeline stage and token
    price_usd_per_gpu_h: float
    link_gb_s: float | None = None  # to the other GPUs, both ways together


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A GPU at one precision [index k], named `<gpu>-<precision>`; everything a delay model needs to know of it."""

    name: str
    gpu: str
    precision: str
    memory_gb: float  # per GPU [C_k]
    bandwidth_gb_s: float  # [W_k]
    compute_tflops: float  # dense peak per GPU [P_k]
    attention_tflops: float  # the same at 16 bit, in which attention is computed
    compute_efficiency: float  # see `Precision`
    weight_factor: float  # on FP16 weights [nu_k]
    error_factor: float  # on the error of a model at FP16
    interconnect: Interconnect
    hop_s: float  # per pipeline stage and token
    price_usd_per_gpu_h: float  # [p_k]
    link_gb_s: float | None = None  # to the other GPUs, both ways together
    calibration: Calibration | None = None  # what the `roofline` delay model knows of it

    @classmethod
    def of(cls, gpu: Gpu, precision: Precision) -> "Tier":
        """The tier that a GPU is at one of the precisions it has a peak for."""
        return cls(
            name=f"{gpu.name}-{precision.name}",
            gpu=gpu.name,
            precision=precision.name,
            memory_gb=gpu.memory_gb,
            bandwidth_gb_s=gpu.bandwidth_gb_s,
            compute_tflops=gpu.peak_tflops[precision.name],
            attention_tflops=gpu.peak_tflops.get("fp16", gpu.peak_tflops[precision.name]),
            compute_efficiency=precision.compute_efficiency,
            weight_factor=precision.weight_factor,
            error_factor=precision.error_factor,
            interconnect=gpu.interconnect,
            hop_s=gpu.hop_s,
            link_gb_s=gpu.link_gb_s,
            price_usd_per_gpu_h=gpu.price_usd_per_gpu_h,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmModel:
    """A dense transformer [index j]."""

    name: str
    label: str
    parameters_b: float  # 1e9 parameters
    weights_gb: float  # at FP16 [B_j]
    layers: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    kv_bytes_per_token: float  # FP16 cache of all layers that keep one [beta_j]
    head_parameters_b: float = 0.0  # the output head, within `parameters_b`
    layer_parameters_b: float = 0.0  # all layers: without head and embeddings, which are only looked up
    error: float | None = None  # expected error of a query at FP16, as a share; None where no figure is known
