"""The `constant` delay model: the per-token constants of arXiv 2604.07472, derived from the catalog."""

from dataclasses import dataclass

from simulator.catalog import LlmModel, Tier
from simulator.delay.port import StepCost, TwoPhaseDelay
from simulator.errors import InputError
from simulator.units import BYTES_PER_GB

GFLOP_PER_TFLOP = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantDelay:
    """FLOPs over compute and bytes over bandwidth, both divided by TP.

    With N parameters, compute P, bandwidth W, weights B at factor nu, n (TP) and m (PP), a request takes::

        D = h dpre / n + f (ddec / n + (m - 1) hop)
        dpre = 2 N / (P mfu)        ddec = max(nu B / (W mbu), batch 2 N / (P mfu))

    and a step a + b prefill tokens + c sequences + d context tokens with::

        a = nu B / (n W mbu) + (m - 1) hop      b = c = 2 N / (n P mfu)      d = KV bytes per token / (n W mbu)

    A step passes through the m stages one after the other, without micro-batches in between: PP adds memory and hops
    and makes no step faster. A request takes the larger of memory and compute time at a reference batch, a step their
    sum at its own batch, because only a sum is affine. Communication within a TP group is left out; the hop is the
    tier's.

    Attributes
    ----------
    mfu
        Share of the peak compute that matrix products reach, in (0, 1].
    mbu
        Share of the peak memory bandwidth that decoding reaches, in (0, 1].
    batch
        Sequences that decode together in the compute term of `request_delay`.

    Notes
    -----
    The defaults are those of this project's benchmark problems (0.5, 0.6 and 32; hops of 1.5 ms over PCIe and 0.3 ms
    over NVLink are in the catalog). They are assumed, not fitted: on public measurements this form errs by 30-57 % in
    decode.
    """

    mfu: float = 0.5
    mbu: float = 0.6
    batch: float = 32.0

    def __post_init__(self) -> None:
        problems = [
            f"delay model constant: {name} is {value}, expected above 0 and at most 1"
            for name, value in (("mfu", self.mfu), ("mbu", self.mbu))
            if not 0 < value <= 1
        ]
        if not self.batch >= 1:
            problems.append(f"delay model constant: batch is {self.batch}, expected at least 1")
        if problems:
            raise InputError(problems)

    def request_delay(self, model: LlmModel, tier: Tier, n: int, m: int) -> TwoPhaseDelay:
        """See `DelayModel`: the delay in a batch of `batch`."""
        compute_s = self._compute_s_per_token(model, tier)
        decode_s = max(self._weights_s(model, tier), self.batch * compute_s)
        return TwoPhaseDelay(
            prefill_s_per_token=compute_s / n,
            decode_s_per_token=decode_s / n + (m - 1) * tier.hop_s,
        )

    def step_cost(self, model: LlmModel, tier: Tier, n: int, m: int) -> StepCost:
        """See `DelayModel`."""
        compute_s = self._compute_s_per_token(model, tier) / n
        kv_gb_per_token = model.kv_bytes_per_token / BYTES_PER_GB
        return StepCost(
            base_s=self._weights_s(model, tier) / n + (m - 1) * tier.hop_s,
            prefill_s_per_token=compute_s,
            decode_s_per_sequence=compute_s,
            context_s_per_token=kv_gb_per_token / (n * tier.bandwidth_gb_s * self.mbu),
        )

    def _compute_s_per_token(self, model: LlmModel, tier: Tier) -> float:
        """Two FLOPs per parameter and token, on one GPU."""
        return 2 * model.parameters_b / (GFLOP_PER_TFLOP * tier.compute_tflops * self.mfu)

    def _weights_s(self, model: LlmModel, tier: Tier) -> float:
        """Time in which one GPU reads all weights once [s]."""
        return model.weights_gb * tier.weight_factor / (tier.bandwidth_gb_s * self.mbu)
