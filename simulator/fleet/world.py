"""What it means to rent a replica in the realised world: catalog, delay model and reality put together."""

from dataclasses import dataclass

from simulator.catalog import Catalog, kv_capacity_tokens
from simulator.delay import DelayModel
from simulator.fleet.reality import Reality
from simulator.fleet.replicas import DeploymentKey, ReplicaOffer
from simulator.replica.disciplines import Discipline, ReplicaSpec
from simulator.replica.extension import Admission, CustomStep, StepTime
from simulator.ticks import to_ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Makes the offer of a replica of any configuration.

    Attributes
    ----------
    provisioning_s
        From the order of a machine until it is there.
    load_gb_per_s
        Rate at which weights are loaded, per replica.
    token_budget
        Most tokens of one engine step (`batching`).
    step_time, admission
        The user's own functions, see `simulator.replica.extension`.
    """

    catalog: Catalog
    delay_model: DelayModel
    discipline: Discipline
    reality: Reality
    provisioning_s: float
    load_gb_per_s: float
    token_budget: int = 2048
    memory_utilisation: float = 0.9
    step_time: StepTime | None = None
    admission: Admission | None = None

    def offer(self, key: DeploymentKey) -> ReplicaOffer:
        """Terms of one replica; `Reality.delay_factor` slows every coefficient, not the start-up."""
        model_name, tier_name, n, m = key
        model, tier = self.catalog.models[model_name], self.catalog.tiers[tier_name]
        factor = self.reality.delay_factor
        delay = self.delay_model.request_delay(model, tier, n, m)
        cost = self.delay_model.step_cost(model, tier, n, m).scaled(factor)
        return ReplicaOffer(
            spec=ReplicaSpec(
                discipline=self.discipline,
                step=cost.ticks(),
                prefill_ticks_per_token=to_ticks(delay.prefill_s_per_token * factor),
                decode_ticks_per_token=to_ticks(delay.decode_s_per_token * factor),
                kv_capacity_tokens=kv_capacity_tokens(model, tier, n, m, self.memory_utilisation),
                token_budget=self.token_budget,
                step_time=None if self.step_time is None else CustomStep(self.step_time, cost),
                admission=self.admission,
            ),
            startup_ticks=to_ticks(self.provisioning_s + model.weights_gb * tier.weight_factor / self.load_gb_per_s),
            gpus=n * m,
            price_usd_per_h=n * m * tier.price_usd_per_gpu_h,
        )
