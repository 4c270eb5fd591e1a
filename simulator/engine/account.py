"""The account of a run: what left it, in exact integers, and what each replica did over its life."""

import numpy as np

from simulator.engine.results import Rental, RequestTable
from simulator.fleet.replicas import RentedReplica
from simulator.replica.outcome import Outcome
from simulator.ticks import TICKS_PER_S

WORD = 2**64
"""An integral of ticks over a long run is beyond 64 bits: both sides of Little's law are taken modulo this."""


class Account:
    """Keeps the account of the batches that were given away."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(Outcome), dtype=np.int64)
        self._served_ticks = 0
        self._in_flight_arrivals: list[int] = []
        self.rows = 0

    def take(self, batch: RequestTable) -> None:
        assert batch.first_request == self.rows
        self.rows += len(batch)
        self._counts += np.bincount(batch.outcome, minlength=len(Outcome))
        served = batch.served
        stays = batch.finish_tick[served] - batch.arrival_tick[served]
        self._served_ticks = (self._served_ticks + int(stays.sum())) % WORD  # a sum in int64 is exact modulo 2^64
        self._in_flight_arrivals += batch.arrival_tick[batch.outcome == Outcome.IN_FLIGHT].tolist()

    def counts(self) -> dict[Outcome, int]:
        return {outcome: int(self._counts[outcome]) for outcome in Outcome}

    def stay_ticks(self, end: int) -> int:
        """Ticks that served requests spent in the system and that those in flight have spent by `end`, modulo 2^64."""
        return self._served_ticks + sum(end - arrival for arrival in self._in_flight_arrivals)


def rental_of(replica: RentedReplica) -> Rental:
    """What a replica that has ended leaves in the results."""
    assert replica.end_tick is not None
    return Rental(
        replica=replica.number,
        deployment=replica.deployment,
        gpus=replica.offer.gpus,
        price_usd_per_h=replica.offer.price_usd_per_h,
        rent_s=replica.rent_tick / TICKS_PER_S,
        ready_s=replica.ready_tick / TICKS_PER_S,
        end_s=replica.end_tick / TICKS_PER_S,
        kv_capacity_tokens=replica.offer.spec.kv_capacity_tokens,
        kv_peak_tokens=replica.service.kv_peak_tokens,
        preemptions=replica.service.preemptions,
        steps=replica.service.steps,
    )
