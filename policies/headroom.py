"""`headroom`: plan for a world that is worse than expected, route in the one that is.

The policy inside plans with delay and error inflated by a factor; the demand is then routed anew over that fleet by LP
at the nominal delay and error, so that nothing is dropped at nominal for the sake of worse times. A type that no
configuration could serve at the factor is planned for at the largest factor at which one can.
"""

import time
from dataclasses import dataclass, replace

import numpy as np

from policies.routing import route
from simulator.errors import InfeasibleError
from simulator.plan import Plan, build_plan, plan_arrays
from simulator.policy import Policy, StoppingRule
from simulator.problem import CapacityRows, FloatArray, PlanningProblem


@dataclass(frozen=True, slots=True)
class Headroom:
    """The fleet that `inner` plans at `factor` times the delay and the error, routed at nominal."""

    factor: float
    inner: Policy

    @property
    def name(self) -> str:
        return f"headroom[{self.factor:g}:{self.inner.name}]"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Plan at the factor, route at nominal.

        Raises
        ------
        InfeasibleError
            If there is no plan at the factor, or its fleet cannot be routed at nominal.
        """
        began = time.perf_counter()
        worse = inflated(problem, self.factor)
        made = self.inner.plan(worse, incumbent=incumbent, stop=stop, seed=seed)
        if made is incumbent:
            return made
        arrays = route(problem, plan_arrays(worse, made).replicas)
        if arrays is None:
            raise InfeasibleError(
                f"the fleet planned at {self.factor:g} times the delay and error serves no nominal demand"
            )
        seconds = time.perf_counter() - began
        return build_plan(problem, arrays, policy=self.name, status=made.status, seconds=seconds)


def inflated(problem: PlanningProblem, factor: float) -> PlanningProblem:
    """The problem with delay and error times the factor, or as much of it as each type can bear."""
    most = np.minimum(
        _ratio(problem.delay_slo_s[:, None], problem.delay_s), _ratio(problem.error_slo[:, None], problem.error)
    )
    best = np.where(problem.allowed, most, 0.0).max(axis=1, initial=0.0)
    of_type = np.clip(np.minimum(factor, best), 1.0, None)[:, None]
    # Under `paper` rows the KV cache holds the tokens in flight, which are as many more as requests stay longer.
    kv = problem.kv * (of_type if problem.capacity_rows is CapacityRows.PAPER else 1.0)
    return replace(problem, delay_s=problem.delay_s * of_type, error=problem.error * of_type, kv=kv)


def _ratio(limit: FloatArray, value: FloatArray) -> FloatArray:
    return np.asarray(np.divide(limit, value, out=np.full(value.shape, np.inf), where=value > 0))
