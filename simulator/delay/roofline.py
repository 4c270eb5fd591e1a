"""The `roofline` form: how long a step takes from what it computes, reads and sends, with fitted shares of the peaks.

A step of a replica processes the tokens of prompts and one token of each decoding sequence. Per GPU of n (TP) it takes

    matrices       ((2 N tokens / (n P mfu))^q + (nu B / (n W mbu))^q)^(1/q) + activations L H tokens 2 bytes / W
    attention      4 pairs of tokens x width L / (n P16 mfa)  [prompts]  +  KV bytes / (n W mba)  [decode]
    overhead       per step, per layer (more where prompts are processed), per sequence and layer
    all-reduce     two per layer: latency(n) and bytes 2 (n - 1)/n / bandwidth(n); for prompts the latency is a floor,
                   and what a message has beyond 32 MiB has a bandwidth of its own

with N parameters of B bytes (without input embeddings), L layers of width H, compute P (P16 at 16 bit), bandwidth W
and weights at factor nu. mfu, mbu, mfa, mba are shares of datasheet peaks; q says how sharp the corner between the two
roofs is. Constants belong to a GPU at a precision and are shared by all models and TP degrees. Pipeline stages are
passed one after the other, with a hop between them: not validated, no public step times of PP > 1 were found.

Everything is vectorised, because fitting evaluates thousands of steps a thousand times.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.catalog import LlmModel, RooflineConstants, Scheduling, ServingEngine, SourceKind, Tier
from simulator.delay.port import StepCost, TwoPhaseDelay
from simulator.errors import InputError

FloatArray = npt.NDArray[np.float64]

DEGREES = (2, 4, 8)  # TP degrees that have communication constants of their own
HINGE_BYTES = 32 * 2**20  # messages of all-reduces beyond this size have a bandwidth of their own
BYTES = 2  # of an activation or a cached value, 16 bit at every precision
FLOOR_SHARPNESS = 8.0  # corner between the floor of a prompt's step and its work


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A replica, or an array of them (all fields scalars or arrays of one shape)."""

    parameters: Any  # of all layers, without embeddings and head
    head_parameters: Any
    layers: Any
    hidden_size: Any
    query_width: Any
    kv_width: Any  # of one of keys and values, on all GPUs together
    kv_heads: Any
    kv_bytes: Any  # per cached value
    flops: Any  # peak of matrix products per GPU
    attention_flops: Any
    bandwidth: Any  # bytes/s per GPU
    weight_bytes: Any  # per parameter
    tensor_parallel: Any
    hops_s: Any

    @classmethod
    def of(cls, model: LlmModel, tier: Tier, n: int, m: int, engine: ServingEngine | None = None) -> "Shape":
        """The shape of one replica, in an engine if one is given."""
        return cls(
            parameters=model.layer_parameters_b * 1e9,
            head_parameters=model.head_parameters_b * 1e9,
            layers=model.layers,
            hidden_size=model.hidden_size,
            query_width=model.attention_heads * model.head_dim,
            kv_width=model.kv_heads * model.head_dim,
            kv_heads=model.kv_heads,
            kv_bytes=kv_bytes(tier, engine),
            flops=tier.compute_tflops * 1e12,
            attention_flops=tier.attention_tflops * 1e12,
            bandwidth=tier.bandwidth_gb_s * 1e9,
            weight_bytes=BYTES * tier.weight_factor,
            tensor_parallel=n,
            hops_s=(m - 1) * tier.hop_s,
        )


def kv_bytes(tier: Tier, engine: ServingEngine | None) -> int:
    """Bytes of a cached value in an engine."""
    return BYTES // 2 if engine is not None and engine.fp8_kv_cache and tier.precision == "fp8" else BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one step does, or an array of steps.

    Attributes
    ----------
    prompt_tokens
        Tokens of prompts that are processed.
    prompt_pairs
        Pairs of a query token and a token that it attends to, over these prompts: q (c - q/2) for q tokens that end at
        context c.
    prompts
        Prompts among them, each of which needs one output of the head.
    sequences
        Sequences that decode one token.
    context_tokens
        Tokens in their KV caches.
    """

    prompt_tokens: Any
    prompt_pairs: Any
    prompts: Any
    sequences: Any
    context_tokens: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a step's time [s]."""

    matrices_s: Any
    head_s: Any
    attention_s: Any
    all_reduce_s: Any
    overhead_s: Any
    floor_s: Any

    @property
    def step_s(self) -> Any:
        """Duration of the step: the sum of its parts, or the floor of prompts where that is longer [s]."""
        work = self.matrices_s + self.head_s + self.attention_s + self.all_reduce_s + self.overhead_s
        return _corner(work, self.floor_s, FLOOR_SHARPNESS)


def parts(constants: RooflineConstants, shape: Shape, load: Load) -> Parts:
    """Time of one step, or of an array of steps, by part (see the module text)."""
    n = shape.tensor_parallel
    tokens = load.prompt_tokens + load.sequences
    bandwidth = shape.bandwidth * constants.bandwidth_share
    flops = shape.flops * constants.compute_share
    matrices_s = _corner(
        2 * shape.parameters * tokens / (n * flops),
        shape.parameters * shape.weight_bytes / (n * bandwidth),
        constants.sharpness,
    )
    activations_s = constants.activation_passes * shape.layers * shape.hidden_size * BYTES * tokens / shape.bandwidth
    outputs = load.prompts + load.sequences
    head_s = _corner(
        2 * shape.head_parameters * outputs / (n * flops),
        shape.head_parameters * shape.weight_bytes / (n * bandwidth),
        constants.sharpness,
    )
    copies = np.maximum(n / shape.kv_heads, 1)  # KV heads are copied where there are fewer than GPUs
    attention_s = shape.layers * (
        4 * load.prompt_pairs * shape.query_width / (n * shape.attention_flops * constants.attention_compute_share)
        + 2
        * shape.kv_bytes
        * load.context_tokens
        * shape.kv_width
        * copies
        / (n * shape.bandwidth * constants.attention_bandwidth_share)
        + constants.sequence_layer_s * outputs
    )
    return Parts(
        matrices_s=matrices_s + activations_s,
        head_s=head_s,
        attention_s=attention_s,
        all_reduce_s=2 * shape.layers * _all_reduce_s(constants, n, shape.hidden_size * BYTES * tokens, load),
        overhead_s=constants.step_s + constants.layer_s * shape.layers + shape.hops_s,
        floor_s=np.where(np.asarray(load.prompt_tokens) > 0, constants.prompt_layer_s * shape.layers, 0.0),
    )


def _corner(a: Any, b: Any, sharpness: float) -> Any:
    """Smooth maximum of two times: their corner is rounded where they are close."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    ratio = low / np.maximum(high, 1e-300)
    return high * (1 + ratio**sharpness) ** (1 / sharpness)


def _all_reduce_s(constants: RooflineConstants, n: Any, message: Any, load: Load) -> Any:
    """One all-reduce; constants of degrees between the known ones are interpolated in log2 n, beyond them held."""
    degrees = sorted(constants.communication)
    known = [constants.communication[degree] for degree in degrees]
    at, x = np.log2(np.maximum(n, degrees[0])), np.log2(degrees)

    def of(name: str, *, log: bool = False) -> Any:
        values = np.array([getattr(c, name) for c in known])
        return np.exp(np.interp(at, x, np.log(values))) if log else np.interp(at, x, values)

    ring = 2 * (n - 1) / n / 1e9
    small = np.minimum(message, HINGE_BYTES)
    decode_s = of("latency_s") + message * ring / of("gb_per_s", log=True)
    prompt_s = _corner(
        of("prompt_latency_s"),
        ring * (small / of("prompt_gb_per_s", log=True) + (message - small) / of("prompt_large_gb_per_s", log=True)),
        4.0,
    )
    return np.where(np.asarray(n) > 1, np.where(np.asarray(load.prompt_tokens) > 0, prompt_s, decode_s), 0.0)


def engine_constants(constants: RooflineConstants, engine: ServingEngine) -> RooflineConstants:
    """Constants of kernels with what an engine adds to every step; see also `engine_step_s`."""
    return replace(
        constants,
        compute_share=constants.compute_share * engine.compute_factor,
        bandwidth_share=constants.bandwidth_share * engine.bandwidth_factor,
        attention_compute_share=constants.attention_compute_share * engine.compute_factor,
        attention_bandwidth_share=constants.attention_bandwidth_share * engine.attention_factor,
        step_s=constants.step_s + engine.step_s,
        layer_s=constants.layer_s + engine.layer_s,
        communication={
            degree: replace(
                link,
                latency_s=link.latency_s + engine.all_reduce_s,
                prompt_latency_s=link.prompt_latency_s + engine.all_reduce_s,
            )
            for degree, link in constants.communication.items()
        },
    )


def engine_step_s(constants: RooflineConstants, engine: ServingEngine, shape: Shape, load: Load) -> Any:
    """Duration of a step in an engine, from `engine_constants`."""
    prompts = np.asarray(load.prompt_tokens) > 0
    return (
        parts(constants, shape, load).step_s
        + engine.sequence_s * load.sequences
        + engine.prompt_token_s * load.prompt_tokens
        + np.where(prompts, engine.prompt_layer_s * shape.layers, 0.0)
    )


BARE = ServingEngine(
    name="none",
    source=None,
    step_s=0.0,
    layer_s=0.0,
    sequence_s=0.0,
    prompt_token_s=0.0,
    prompt_layer_s=0.0,
    all_reduce_s=0.0,
    compute_factor=1.0,
    bandwidth_factor=1.0,
    attention_factor=1.0,
    token_budget=2048,
    scheduling=Scheduling.FILL,
    ttft_s=0.0,
    ttft_token_s=0.0,
    fp8_kv_cache=False,
)
"""No engine: for constants that were fitted to steps of one, which hold its overhead already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineDelay:
    """The `roofline` delay model: calibrated constants of the tier and what a serving engine adds.

    The engine of the simulation needs a step that is affine in prompt tokens, sequences and context tokens. The form
    is affine in context and nearly so in the others; it is taken through its values at a reference step:

    - base and time per sequence: decode steps of one sequence and of `sequences`, without context;
    - time per prompt token: a step that processes one prompt of `prompt_tokens` and nothing else;
    - time per context token: exact.

    Attributes
    ----------
    engine
        What is added to constants that were composed of kernels. Measured ones hold an engine's overhead already.
    prompt_tokens, sequences
        The reference steps.
    context_tokens
        Of one sequence, in `request_delay`, which assumes a batch of `batch`.
    """

    engine: ServingEngine = BARE
    prompt_tokens: int = 2048
    sequences: int = 64
    context_tokens: int = 1024
    batch: int = 32

    def request_delay(self, model: LlmModel, tier: Tier, n: int, m: int) -> TwoPhaseDelay:
        """See `DelayModel`: a prompt of `prompt_tokens` by itself, and a decode step of `batch` sequences."""
        prompt_s = self.step_s(model, tier, n, m, _prompt(self.prompt_tokens))
        decode_s = self.step_s(model, tier, n, m, _decode(self.batch, self.batch * self.context_tokens))
        return TwoPhaseDelay(prefill_s_per_token=prompt_s / self.prompt_tokens, decode_s_per_token=decode_s)

    def step_cost(self, model: LlmModel, tier: Tier, n: int, m: int) -> StepCost:
        """See `DelayModel`."""
        one_s = self.step_s(model, tier, n, m, _decode(1, 0))
        many_s = self.step_s(model, tier, n, m, _decode(self.sequences, 0))
        prompt_s = self.step_s(model, tier, n, m, _prompt(self.prompt_tokens))
        context_s = self.step_s(model, tier, n, m, _decode(1, 10**6)) - one_s
        sequence_s = (many_s - one_s) / max(1, self.sequences - 1)
        base_s = one_s - sequence_s
        return StepCost(
            base_s=base_s,
            prefill_s_per_token=max(0.0, prompt_s - base_s) / self.prompt_tokens,
            decode_s_per_sequence=sequence_s,
            context_s_per_token=context_s / 10**6,
        )

    def step_s(self, model: LlmModel, tier: Tier, n: int, m: int, load: Load) -> float:
        """Duration of one step, not linearised.

        Raises
        ------
        InputError
            If the tier has no calibration and none can be extrapolated, because the catalog holds no calibration at
            all.
        """
        calibration = tier.calibration
        if calibration is None:
            raise InputError(
                f"delay model roofline: tier {tier.name!r} has no calibration; `tokenfleet calibrate` makes one"
            )
        engine = self.engine if calibration.source.kind is SourceKind.COMPOSED else BARE
        constants = engine_constants(calibration.constants, engine)
        return float(engine_step_s(constants, engine, Shape.of(model, tier, n, m, engine), load))


def _prompt(tokens: int) -> Load:
    return Load(prompt_tokens=tokens, prompt_pairs=tokens**2 / 2, prompts=1, sequences=0, context_tokens=0)


def _decode(sequences: int, context_tokens: int) -> Load:
    return Load(prompt_tokens=0, prompt_pairs=0, prompts=0, sequences=sequences, context_tokens=context_tokens)
