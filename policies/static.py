"""`static`: plan once with another policy, never again."""

from dataclasses import dataclass, replace

from simulator.planning.plan import Plan
from simulator.planning.policy import Policy, StoppingRule, demand_levels
from simulator.planning.problem import PlanningProblem


@dataclass(frozen=True, slots=True)
class Static:
    """Keeps the first plan of the policy inside for good (the paper's once-a-day planner)."""

    inner: Policy

    @property
    def name(self) -> str:
        return f"static[{self.inner.name}]"

    @property
    def demand_levels(self) -> tuple[float, ...]:
        return demand_levels(self.inner)

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """The first plan, or `incumbent` as long as the problem still offers what it deploys."""
        known = problem.configuration_index
        if incumbent is not None and all(d.configuration in known for d in incumbent.deployments):
            return incumbent
        return replace(self.inner.plan(problem, incumbent=None, stop=stop, seed=seed), policy=self.name)
