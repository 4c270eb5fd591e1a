"""What the metrics of a run are computed from."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from experiments.measures.cost import cost_by_interval, gpu_hours
from experiments.measures.tally import Tally
from experiments.scenario.scenario import Scenario
from simulator.engine.results import RunSummary
from simulator.fleet.replicas import replicas_by_deployment
from simulator.replica.outcome import Outcome

FloatTable = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """What the controller of a run did.

    Attributes
    ----------
    plans
        How often it planned, the first plan included; none where one plan was given and stayed.
    infeasible
        Plans that no policy could make, because no fleet keeps the limits: the plan before stayed in force.
    time_limits_hit
        Plans that a time limit of the policy ended.
    """

    plans: int = 0
    infeasible: int = 0
    time_limits_hit: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A run with the tally of its requests; what several metrics need is computed once."""

    scenario: Scenario
    run: RunSummary
    tally: Tally
    planning: Planning

    @cached_property
    def cost_parts_usd(self) -> dict[str, float]:
        """Money over the whole run, by its parts."""
        parts = cost_by_interval(self.scenario, self.run, self.tally)
        return {part: float(values.sum()) for part, values in parts.items()}

    @property
    def cost_usd(self) -> float:
        return math.fsum(self.cost_parts_usd.values())

    @property
    def gpu_hours(self) -> float:
        return gpu_hours(self.run)

    def count(self, name: str) -> int:
        """Requests of the whole run, by one of the names of `tally.COUNTS`."""
        return self.tally.count(name)

    @property
    def unserved(self) -> int:
        """Requests that were not served, whatever the reason."""
        return self.count("arrived") - self.count("served")

    @property
    def violated(self) -> int:
        """Requests that were not served, or were served beyond a limit of their type."""
        return self.unserved + self.count("slo_violations")

    def share(self, part: int) -> float | None:
        """A number of requests over all that arrived; None if none did."""
        arrived = self.count("arrived")
        return part / arrived if arrived else None

    @property
    def too_large(self) -> int:
        """Requests that no replica of their route could hold."""
        return self.run.count(Outcome.REJECTED_TOO_LARGE)

    @cached_property
    def quantiles_s(self) -> dict[str, dict[str, float | None]]:
        """p50, p95 and p99 of the times of the requests that have them."""
        return {name: getattr(self.tally, name).named() for name in ("ttft_s", "tpot_s", "e2e_s")}

    @property
    def quantiles_exact(self) -> bool:
        return all(getattr(self.tally, name).exact for name in self.quantiles_s)

    @property
    def fleet_changes(self) -> int:
        """Plans that asked for another fleet than the one before; a plan may change the routing alone."""
        fleets = [replicas_by_deployment(plan) for _, plan in self.run.plans]
        return sum(before != after for before, after in pairwise(fleets))

    @cached_property
    def mean_limits(self) -> "MeanLimits":
        return mean_limits(self.scenario, self.tally)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanLimits:
    """The paper's limits on means, by query type and interval of arrival; each of shape (types, intervals).

    Means are over the served requests, NaN where there are none.
    """

    mean_e2e_s: FloatTable
    mean_error: FloatTable
    delay_broken: npt.NDArray[np.bool_]
    error_broken: npt.NDArray[np.bool_]


def mean_limits(scenario: Scenario, tally: Tally) -> MeanLimits:
    """Hold the means of the served requests of each type and interval against the limits of the type."""
    with np.errstate(invalid="ignore"):
        delay_s, error = (tally.sums[name] / tally.counts["served"] for name in ("e2e_s", "error"))
    delay_limit_s, error_limit = (
        np.array([[getattr(rule, name)] for rule in scenario.types]) for name in ("delay_slo_s", "error_slo")
    )
    return MeanLimits(
        mean_e2e_s=delay_s,
        mean_error=error,
        delay_broken=delay_s > delay_limit_s,
        error_broken=error > error_limit * (1 + 1e-9),
    )
