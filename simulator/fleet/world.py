"""What it means to rent a replica in the realised world: catalog, delay model and reality put together."""

from dataclasses import dataclass

from simulator.catalog import Catalog
from simulator.catalog.configuration import DeploymentKey
from simulator.delay import DelayModel
from simulator.fleet.reality import Reality
from simulator.fleet.replicas import ReplicaOffer
from simulator.replica.extension import Admission, CustomStep, StepTime
from simulator.replica.port import Discipline, NominalReplica, ReplicaSpec
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
    slots
        Most requests in service on a replica (`static`), None for as many as its KV cache holds.
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
    slots: int | None = None
    memory_utilisation: float = 0.9
    step_time: StepTime | None = None
    admission: Admission | None = None

    def offer(self, key: DeploymentKey) -> ReplicaOffer:
        """Terms of one replica; `Reality.delay_factor` slows every coefficient, not the start-up."""
        model, tier = self.catalog.models[key.model], self.catalog.tiers[key.tier]
        factor = self.reality.delay_factor
        nominal = NominalReplica.of(
            self.catalog,
            self.delay_model,
            key,
            memory_utilisation=self.memory_utilisation,
            token_budget=self.token_budget,
            slots=self.slots,
        )
        delay, cost = nominal.request_delay, nominal.step.scaled(factor)
        return ReplicaOffer(
            spec=ReplicaSpec(
                discipline=self.discipline,
                step=cost.ticks(),
                prefill_ticks_per_token=to_ticks(delay.prefill_s_per_token * factor),
                decode_ticks_per_token=to_ticks(delay.decode_s_per_token * factor),
                kv_capacity_tokens=nominal.kv_capacity_tokens,
                token_budget=nominal.token_budget,
                slots=nominal.slots,
                step_time=None if self.step_time is None else CustomStep(self.step_time, cost),
                admission=self.admission,
            ),
            startup_ticks=to_ticks(self.provisioning_s + model.weights_gb * tier.weight_factor / self.load_gb_per_s),
            gpus=key.gpus,
            price_usd_per_h=key.gpus * tier.price_usd_per_gpu_h,
        )
