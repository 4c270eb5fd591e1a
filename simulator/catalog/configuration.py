"""A model on a GPU tier with its parallel degrees, and the sizes of both that planners ask for.

Symbols in brackets are those of arXiv 2604.07472.
"""

from dataclasses import dataclass

PairKey = tuple[str, str]
"""Model and tier."""


@dataclass(frozen=True, slots=True, order=True)
class DeploymentKey:
    """What the replicas of a deployment are made of, by the names of the catalog."""

    model: str
    tier: str
    tensor_parallel: int
    pipeline_parallel: int

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel

    def __str__(self) -> str:
        return f"{self.model} on {self.tier} TP{self.tensor_parallel} PP{self.pipeline_parallel}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What the planner needs to know of a model [index j]."""

    name: str
    parameters_b: float
    weights_gb: float  # at FP16 [B_j]
    kv_mb_per_token: float  # [beta_j]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSize:
    """What the planner needs to know of a GPU tier: hardware at one precision [index k]."""

    name: str
    memory_gb: float  # per GPU [C_k]
    compute_tflops: float  # peak per GPU [P_k]
    compute_efficiency: float  # share of the peak that serving reaches, in (0, 1]
    bandwidth_gb_s: float  # [W_k]
    price_usd_per_gpu_h: float  # [p_k]
    weight_factor: float  # on FP16 weights [nu_k]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A model on a tier with its parallel degrees: what one replica looks like [j, k, c = (n, m)].

    `tpot_target_s` is the operating point of a `batching` problem: the time per output token at which the replica is
    filled. It is None in `paper` problems.
    """

    model: str
    tier: str
    tensor_parallel: int
    pipeline_parallel: int
    tpot_target_s: float | None = None

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def pair(self) -> PairKey:
        """Model and tier: at most one configuration of a pair is deployed."""
        return (self.model, self.tier)

    @property
    def deployment_key(self) -> DeploymentKey:
        """What a replica is made of: the operating point is a matter of routing, not of hardware."""
        return DeploymentKey(self.model, self.tier, self.tensor_parallel, self.pipeline_parallel)
