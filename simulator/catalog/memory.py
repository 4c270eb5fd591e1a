"""What fits into GPU memory, and the configurations that follow.

A replica of n x m GPUs holds one copy of the weights, cut evenly; what the weights leave is KV cache. A gigabyte is
1e9 bytes throughout. GPUs hold somewhat more than their nominal gigabytes; the share `memory_utilisation` stands for
what is left after activations, CUDA graphs and fragmentation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.catalog.catalog import Catalog
from simulator.catalog.configuration import Configuration
from simulator.catalog.values import LlmModel, Tier
from simulator.errors import InputError
from simulator.units import BYTES_PER_GB

MEMORY_UTILISATION = 0.9  # default of vLLM's `gpu_memory_utilization`, and the rule of the base problem


def fits(model: LlmModel, tier: Tier, n: int, m: int, memory_utilisation: float = MEMORY_UTILISATION) -> bool:
    """Whether the weights fit into `memory_utilisation` of the memory of n (TP) x m (PP) GPUs."""
    return _kv_room_gb(model, tier, n, m, memory_utilisation) >= 0


def kv_capacity_tokens(
    model: LlmModel, tier: Tier, n: int, m: int, memory_utilisation: float = MEMORY_UTILISATION
) -> int:
    """Tokens that the KV cache of one replica holds beside the weights, 0 if these do not fit.

    The cache is FP16 at every precision and is taken as cut evenly over the GPUs (n no larger than the KV heads).
    """
    room_bytes = _kv_room_gb(model, tier, n, m, memory_utilisation) * BYTES_PER_GB
    return max(0, int(room_bytes // model.kv_bytes_per_token))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Configurations that can be rented, and of each model that has none a sentence that says why."""

    configurations: tuple[Configuration, ...]
    skipped: tuple[str, ...]


def candidate_configurations(
    catalog: Catalog,
    tensor_parallel: Sequence[int] = (1, 2, 4, 8),
    pipeline_parallel: Sequence[int] = (1, 2, 4),
    memory_utilisation: float = MEMORY_UTILISATION,
) -> Candidates:
    """List the configurations in which the weights fit, by model, tier and number of GPUs.

    TP must divide the attention heads. Among configurations of as many GPUs only the one of the highest TP is kept:
    it costs and holds the same and is faster, since PP does not speed a request up.

    Raises
    ------
    InputError
        If no model fits anywhere, with what each needs and what the best tier offers.
    """
    configurations: list[Configuration] = []
    skipped: list[str] = []
    for model in catalog.models.values():
        degrees = _degrees(model, tensor_parallel, pipeline_parallel)
        if not degrees:
            skipped.append(
                f"model {model.name!r}: its {model.attention_heads} attention heads are not divisible by any "
                f"tensor-parallel degree of {tuple(tensor_parallel)}"
            )
            continue
        found = [
            Configuration(model=model.name, tier=tier.name, tensor_parallel=n, pipeline_parallel=m)
            for tier in catalog.tiers.values()
            for n, m in degrees
            if fits(model, tier, n, m, memory_utilisation)
        ]
        if not found:
            skipped.append(_too_large(model, catalog, degrees[-1], memory_utilisation))
        configurations += found
    if not configurations:
        raise InputError(skipped)
    return Candidates(configurations=tuple(configurations), skipped=tuple(skipped))


def _weights_gb(model: LlmModel, tier: Tier) -> float:
    return model.weights_gb * tier.weight_factor


def _kv_room_gb(model: LlmModel, tier: Tier, n: int, m: int, memory_utilisation: float) -> float:
    return n * m * tier.memory_gb * memory_utilisation - _weights_gb(model, tier)


def _degrees(
    model: LlmModel, tensor_parallel: Sequence[int], pipeline_parallel: Sequence[int]
) -> list[tuple[int, int]]:
    """(TP, PP) of the highest TP for each number of GPUs, by rising number of GPUs."""
    best: dict[int, tuple[int, int]] = {}
    for n in tensor_parallel:
        if model.attention_heads % n == 0:
            for m in pipeline_parallel:
                best[n * m] = max(best.get(n * m, (n, m)), (n, m))
    return [best[gpus] for gpus in sorted(best)]


def _too_large(model: LlmModel, catalog: Catalog, largest: tuple[int, int], memory_utilisation: float) -> str:
    n, m = largest
    tier = max(catalog.tiers.values(), key=lambda tier: tier.memory_gb / tier.weight_factor)
    return (
        f"model {model.name!r} fits no tier: on {tier.name}, the largest for it, its weights need "
        f"{_weights_gb(model, tier):g} GB, but {n * m} x {tier.memory_gb:g} GB at {memory_utilisation:.0%} "
        f"utilisation is {n * m * tier.memory_gb * memory_utilisation:g} GB"
    )
