"""What it costs to leave the fleet in force: hysteresis for policies that re-plan.

A replica that is added is paid while it is provisioned and loads its weights; one that is given up is paid until the
new ones are ready and its last requests are done. Both are small sums that a plan for the coming period alone does not
see, and without them a small change of demand turns the fleet over.

    sum_a start_usd_a max(0, r_a - r0_a) + stop_usd_a max(0, r0_a - r_a)

with r0 the replicas in force. start_usd is the rent of the start-up: provisioning and loading the weights. A surplus
replica waits for its successors (taken as a start-up like its own, for want of knowing which they are) and then
drains: stop_usd. Problems without terms of moving, and a first plan, cost nothing to move to.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from simulator.catalog.configuration import Configuration
from simulator.planning.plan import Plan
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem
from simulator.units import SECONDS_PER_H


@dataclass(frozen=True, slots=True)
class Moving:
    """The fleet in force, and the price of each replica more or less.

    Attributes
    ----------
    in_force
        Shape (configurations,): replicas of this model, tier, TP and PP that are there, whatever their operating
        point: to change that moves no replica.
    start_usd, stop_usd
        Shape (configurations,): of one replica.
    leaving_usd
        Of giving up everything in force.
    """

    in_force: IntArray
    start_usd: FloatArray
    stop_usd: FloatArray
    leaving_usd: float
    free: bool  # nothing that a plan could do costs anything

    @classmethod
    def of(cls, problem: PlanningProblem, incumbent: Plan | None) -> Self:
        """What is in force but unknown to the problem has to be given up whatever the plan, and does not count."""
        in_force, terms = np.zeros(len(problem.configurations), dtype=np.int64), problem.moving
        if incumbent is None or terms is None:
            nothing = np.zeros(len(in_force))
            return cls(in_force, nothing, nothing, 0.0, free=True)
        rent_usd_per_s = terms.weight * problem.rent_usd / (problem.period_h * SECONDS_PER_H)
        startup_s = terms.provisioning_s + problem.model_storage_gb / terms.load_gb_per_s
        start_usd, stop_usd = rent_usd_per_s * startup_s, rent_usd_per_s * (startup_s + terms.drain_s)
        there = {_hardware(d.configuration): d.replicas for d in incumbent.deployments}
        leaving_usd = 0.0
        for a, configuration in enumerate(problem.configurations):
            replicas = there.get(_hardware(configuration), 0)
            if replicas and not (in_force[problem.pair_index == problem.pair_index[a]] > 0).any():
                leaving_usd += float(stop_usd[a]) * replicas
            in_force[a] = replicas
        return cls(in_force, start_usd, stop_usd, leaving_usd, free=not (start_usd.any() or leaving_usd))

    @classmethod
    def none(cls, problem: PlanningProblem) -> Self:
        """Nothing is in force."""
        return cls.of(problem, None)

    def cost_usd(self, replicas: IntArray) -> float:
        """Of moving to a fleet, shape (configurations,), with at most one configuration of each (model, tier)."""
        a = np.flatnonzero(replicas)
        return self.leaving_usd + float(self.option_usd(a, replicas[a]).sum())

    def option_usd(self, configuration: IntArray, replicas: IntArray) -> FloatArray:
        """What each (configuration, replicas) adds to the cost of giving up everything in force."""
        before = self.in_force[configuration]
        more = np.maximum(replicas - before, 0)
        kept = np.minimum(replicas, before)
        option_usd: FloatArray = self.start_usd[configuration] * more - self.stop_usd[configuration] * kept
        return option_usd


def fleet_in_force(problem: PlanningProblem, incumbent: Plan | None) -> IntArray:
    """Shape (configurations,): replicas of the plan in force, as far as the problem knows and allows them."""
    replicas = np.zeros(len(problem.configurations), dtype=np.int64)
    there = {} if incumbent is None else {d.configuration: d.replicas for d in incumbent.deployments}
    taken = set()
    for a, configuration in enumerate(problem.configurations):
        pair = int(problem.pair_index[a])
        if configuration in there and pair not in taken:
            replicas[a] = min(there[configuration], problem.max_replicas)
            taken.add(pair)
    return replicas


def _hardware(configuration: Configuration) -> tuple[str, str, int, int]:
    c = configuration
    return c.model, c.tier, c.tensor_parallel, c.pipeline_parallel
