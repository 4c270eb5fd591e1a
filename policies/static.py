"""`static`: plan once with another policy, never again."""

from dataclasses import dataclass

from simulator.plan import Plan
from simulator.policy import Policy, StoppingRule
from simulator.problem import PlanningProblem


@dataclass(frozen=True, slots=True)
class Static:
    """Keeps the first plan of the policy inside for good (the paper's once-a-day planner)."""

    inner: Policy

    @property
    def name(self) -> str:
        return f"static[{self.inner.name}]"

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        if incumbent is not None:
            return incumbent
        return self.inner.plan(problem, incumbent=None, stop=stop, seed=seed)
