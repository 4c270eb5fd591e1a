"""Fitted constants: what a GPU at a precision reaches of its peaks, and what a serving engine adds.

The form that they belong to is `simulator/delay/roofline.py`. A calibration comes from `tokenfleet calibrate`; a tier
without one takes that of the nearest calibrated tier: shares and times carry over, peaks and bandwidths are its own
(datasheet ratios).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from simulator.catalog.source import Source


class Evidence(StrEnum):
    """How far step times of a tier can be trusted."""

    MEASURED = "measured"  # steps of an engine
    COMPOSED = "composed"  # sums of measured kernels
    EXTRAPOLATED = "extrapolated"  # from another tier, by datasheet ratios


@dataclass(frozen=True, slots=True, kw_only=True)
class Communication:
    """All-reduces among the n GPUs of a replica.

    `latency_s` and `gb_per_s` are those of decode steps; the `prompt_` ones of steps that process prompts, which send
    by other kernels. Bandwidths are those of a ring: message x 2 (n - 1)/n over time; the last one is for what a
    message has beyond 32 MiB.
    """

    latency_s: float
    gb_per_s: float
    prompt_latency_s: float
    prompt_gb_per_s: float
    prompt_large_gb_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineConstants:
    """Constants of one GPU at one precision, shared by all models and TP degrees.

    Attributes
    ----------
    compute_share
        Share of the peak compute that matrix products reach, in (0, 1].
    bandwidth_share
        Share of the peak memory bandwidth at which weights are read, in (0, 1].
    sharpness
        How sharp the corner between the two is, at least 1.
    activation_passes
        How often the activations of a layer go through memory, whatever the TP degree.
    attention_compute_share, attention_bandwidth_share
        The same two shares of attention: over prompts, and over the KV cache.
    step_s, layer_s, sequence_layer_s
        Time per step, per layer of a step, and per layer and sequence.
    prompt_layer_s
        Least time per layer of a step that processes prompts.
    communication
        By TP degree.
    """

    compute_share: float
    bandwidth_share: float
    sharpness: float
    activation_passes: float
    attention_compute_share: float
    attention_bandwidth_share: float
    step_s: float
    layer_s: float
    sequence_layer_s: float
    prompt_layer_s: float
    communication: Mapping[int, Communication]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseError:
    """Relative errors of predicted step times of one phase: mean and 90th percentile of the absolute ones."""

    rows: int
    mape: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The range that the measurements covered: TP degrees, most tokens of a prompt step, most sequences and context
    tokens of a decode step."""

    tensor_parallel: tuple[int, ...]
    models: tuple[str, ...]
    prompt_tokens: int
    sequences: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Constants of a tier with their evidence, errors on unseen models or TP degrees, and range."""

    tier: str
    evidence: Evidence
    source: Source
    constants: RooflineConstants
    range: Range
    prefill: PhaseError | None  # in-sample
    decode: PhaseError | None
    unseen_prefill: PhaseError | None  # by fits that lack the model (with one model: the TP degree) of the row
    unseen_decode: PhaseError | None
    ratio_prefill: PhaseError | None  # by the constants of the nearest other tier and datasheet ratios
    ratio_decode: PhaseError | None
    basis: str | None = None  # the tier that an extrapolation starts from

    @property
    def expected(self) -> dict[str, PhaseError | None]:
        """The errors to expect by phase: those on unseen models, of an extrapolation those of datasheet ratios."""
        if self.evidence is Evidence.EXTRAPOLATED:
            return {"prefill": self.ratio_prefill, "decode": self.ratio_decode}
        return {"prefill": self.unseen_prefill or self.prefill, "decode": self.unseen_decode or self.decode}

    @property
    def label(self) -> str:
        """A short text that names the evidence and the expected errors."""
        how = f"{self.evidence} from {self.basis}" if self.basis else str(self.evidence)
        told = [f"{phase} {error.mape:.1%}" for phase, error in self.expected.items() if error is not None]
        return f"{how}, {', '.join(told)}" if told else f"{how}, error unknown"


class Scheduling(StrEnum):
    """Whom an engine admits to a step in a closed loop of equal requests, as its measured runs show."""

    FILL = "fill"  # as many prompts as the token budget takes: the `batching` discipline as it is
    ONE_PROMPT = "one prompt"  # one prompt a step
    WAVES = "waves"  # nobody until all have finished, then everybody: prompts come before decoding, in lock-step


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingEngine:
    """What an engine adds to the kernels, and how it batches.

    Times are added per step, layer, sequence, prompt token and all-reduce; factors multiply the shares of a
    calibration that was composed of kernels. `prompt_layer_s` is added per layer to a step that processes prompts.
    """

    name: str
    source: Source | None
    step_s: float
    layer_s: float
    sequence_s: float
    prompt_token_s: float
    prompt_layer_s: float
    all_reduce_s: float
    compute_factor: float
    bandwidth_factor: float
    attention_factor: float
    token_budget: int
    scheduling: Scheduling
    ttft_s: float  # of a request outside the engine: HTTP, tokenisation
    ttft_token_s: float  # the same per prompt token
    fp8_kv_cache: bool  # whether it caches at 8 bit where weights are fp8
