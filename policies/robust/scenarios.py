"""The worlds that a robust plan is held against: planning problems with other delays, errors and demands.

Whatever the world, the fleet is there and the demand is routed anew over it at least cost. Away from nominal any demand
may stay unmet at its penalty: the caps are limits on what is planned, and a fleet that cannot keep them in a bad world
shall be dearer there, not forbidden.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from policies.checking.random_problem import with_demand, with_types
from policies.limits import Protection
from policies.robust.inflation import bearable, inflated, worse
from simulator.planning.problem import CapacityRows, DemandQuantiles, FloatArray, PlanningProblem

FACTORS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)  # on delay and error
FACTOR_WEIGHTS = np.array([32, 16, 8, 4, 2, 1]) / 63  # each half as likely as the one before
DEMAND_LEVELS = (0.1, 0.9)  # quantiles of the demand that are planned for beside the planned demand itself
PLANNED_WEIGHT = 0.5  # of the planned demand; the quantiles share the rest
DEMAND_SPREAD = 0.1  # sigma of the logarithm of the demand, where the problem says nothing of it
NORMAL_QUANTILE = 1.2815515655446004  # of level 0.9, of the standard normal distribution


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """A world and how likely it is.

    Attributes
    ----------
    problem
        The planning problem as it is in this world.
    weight
        Its probability. The nominal world may have none: it is looked at all the same.
    demand
        Shape (types,): factor on the planned demand.
    protection
        Cases that the routing has to bear at once, beside what `problem` says.
    """

    problem: PlanningProblem
    weight: float
    demand: FloatArray
    protection: Protection | None = None
    _relaxed: dict[int, PlanningProblem] = field(default_factory=dict)

    def relaxed(self, deployments: int) -> tuple[int, PlanningProblem]:
        """A problem without the protection in which no fleet of that size costs more, and a number that names it.

        The `gamma` deployments that hurt a row most hurt it by gamma / D of what all D would at least, so that
        everything may be worse by that part of the factor.
        """
        if self.protection is None:
            return 0, self.problem
        if deployments not in self._relaxed:
            part = min(1.0, self.protection.gamma / max(deployments, 1))
            factor = 1 + part * (self.protection.factor - 1)
            # the KV cache is in `problem` as it is in the worst case
            self._relaxed[deployments] = replace(worse(self.problem, factor), kv=self.problem.kv)
        return deployments, self._relaxed[deployments]


def nominal(problem: PlanningProblem, weight: float) -> Scenario:
    """The world as planned, with its unmet caps."""
    return Scenario(problem=problem, weight=weight, demand=np.ones(len(problem.query_types)))


def box(problem: PlanningProblem, factor: float) -> list[Scenario]:
    """Everything slower and wronger by the factor, or as much of it as a type can bear."""
    return [nominal(problem, 0.0), _away(inflated(problem, factor), 1.0)]


def budgeted(problem: PlanningProblem, gamma: float, factor: float) -> list[Scenario]:
    """Of each type's deployments any gamma slower and wronger by the factor, or as much of it as the type can bear.

    A KV cache is overfull in the worst case of its own deployment: it is one of those that are slower, for every type.
    """
    protection = Protection(gamma, bearable(problem, factor))
    kv = problem.kv
    if problem.capacity_rows is CapacityRows.PAPER:
        kv = kv * (1 + min(gamma, 1.0) * (protection.factor - 1))[:, None]
    return [nominal(problem, 0.0), _away(replace(problem, kv=kv), 1.0, protection=protection)]


def spread(problem: PlanningProblem) -> list[Scenario]:
    """Every factor on delay and error with every demand, each at the product of their weights."""
    types = len(problem.query_types)
    scenarios = [nominal(problem, PLANNED_WEIGHT * float(FACTOR_WEIGHTS[0]))]
    for demand, likely in demands(problem):
        for factor, weight in zip(FACTORS, FACTOR_WEIGHTS, strict=True):
            if factor == 1 and (demand == 1).all():
                continue  # the nominal one
            here = worse(with_demand(problem, demand), np.full(types, factor))
            scenarios.append(_away(here, likely * float(weight), demand=demand))
    total = math.fsum(s.weight for s in scenarios)
    return [replace(s, weight=s.weight / total) for s in scenarios]


def demands(problem: PlanningProblem) -> list[tuple[FloatArray, float]]:
    """Factors on the demand of the types, shape (types,), with their weights: the planned one, and its quantiles.

    Each quantile stands for the probabilities that are nearest to its level; all types are at the same level at once.
    """
    types = len(problem.query_types)
    known = problem.demand_quantiles
    if known is None:
        factor = np.exp(DEMAND_SPREAD * NORMAL_QUANTILE * np.array([-1.0, 1.0]))
        known = DemandQuantiles(levels=DEMAND_LEVELS, factor=np.repeat(factor[:, None], types, axis=1))
    levels = np.array(known.levels)
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    weights = (1 - PLANNED_WEIGHT) * np.diff(edges)
    planned = (np.ones(types), PLANNED_WEIGHT)
    return [planned, *zip(known.factor, weights.tolist(), strict=True)]


def widest(problem: PlanningProblem, scenarios: list[Scenario]) -> PlanningProblem:
    """The problem with the largest demand of any scenario: a deployment that is of no use there is of none in any.

    Nor is one that another one can replace there: in all scenarios delays and errors of a type are in the same ratio,
    and less demand leaves more room.
    """
    most = np.max([scenario.demand for scenario in scenarios], axis=0)
    return free(with_demand(problem, most))


def free(problem: PlanningProblem) -> PlanningProblem:
    """The problem in which all demand may stay unmet."""
    return with_types(problem, unmet_cap=1.0)


def _away(
    problem: PlanningProblem, weight: float, *, demand: FloatArray | None = None, protection: Protection | None = None
) -> Scenario:
    demand = np.ones(len(problem.query_types)) if demand is None else demand
    return Scenario(problem=free(problem), weight=weight, demand=demand, protection=protection)
