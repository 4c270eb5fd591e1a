"""`headroom`: plan for a world that is worse than expected, route in the one that is.

The policy inside plans with delay and error inflated by a factor; the demand is then routed anew over that fleet by LP
at the nominal delay and error, so that nothing is dropped at nominal for the sake of worse times. A type that no
configuration could serve at the factor is planned for at the largest factor at which one can.
"""

import time
from dataclasses import dataclass

from policies.heuristics.routing import route
from policies.robust.inflation import inflated
from simulator.errors import InfeasibleError
from simulator.planning.plan import Plan, build_plan, plan_arrays
from simulator.planning.policy import Policy, StoppingRule, demand_levels
from simulator.planning.problem import PlanningProblem


@dataclass(frozen=True, slots=True)
class Headroom:
    """The fleet that `inner` plans at `factor` times the delay and the error, routed at nominal."""

    factor: float
    inner: Policy

    @property
    def name(self) -> str:
        return f"headroom[{self.factor:g}:{self.inner.name}]"

    @property
    def demand_levels(self) -> tuple[float, ...]:
        return demand_levels(self.inner)

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
