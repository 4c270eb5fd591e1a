"""A world that is slower than a delay model says, for planner and engine alike."""

from dataclasses import dataclass

from simulator.catalog import LlmModel, Tier
from simulator.delay.port import DelayModel, StepCost, TwoPhaseDelay


@dataclass(frozen=True, slots=True)
class SlowedDelay:
    """`inner` with every time multiplied by `factor`, above 0."""

    inner: DelayModel
    factor: float

    def request_delay(self, model: LlmModel, tier: Tier, n: int, m: int) -> TwoPhaseDelay:
        """See `simulator.delay.DelayModel`."""
        delay = self.inner.request_delay(model, tier, n, m)
        return TwoPhaseDelay(
            prefill_s_per_token=self.factor * delay.prefill_s_per_token,
            decode_s_per_token=self.factor * delay.decode_s_per_token,
        )

    def step_cost(self, model: LlmModel, tier: Tier, n: int, m: int) -> StepCost:
        """See `simulator.delay.DelayModel`."""
        return self.inner.step_cost(model, tier, n, m).scaled(self.factor)
