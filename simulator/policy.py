"""The policy port: what a planner must offer, and when it may stop."""

from dataclasses import dataclass
from typing import Protocol

from simulator.plan import Plan
from simulator.problem import PlanningProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """When a policy stops.

    Everything but the time limit is deterministic. A replay relies on the deterministic rules, so that its results do
    not depend on the machine; the time limit is only a safety net there, and a plan that hit it says so in its status.
    """

    time_limit_s: float | None = None
    relative_gap: float = 1e-6  # of the proven bound, for exact policies
    max_nodes: int | None = None  # of a branch-and-bound tree
    starts: int = 12  # of a multi-start heuristic
    iterations: int = 200  # of a local search, per start


class Policy(Protocol):
    """A planner. The simulator never imports one: experiments hand it in."""

    @property
    def name(self) -> str:
        """How the policy is called in tables and files."""
        ...

    def plan(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Plan:
        """Return a plan that keeps every constraint of `problem`.

        Parameters
        ----------
        problem
            What is known at this moment: forecast demand, limits and prices. Must not be changed.
        incumbent
            The plan in force, None at the first call.
        stop
            When to stop.
        seed
            Source of all randomness: the same arguments give the same plan (`seconds` aside).

        Raises
        ------
        InfeasibleError
            If no plan exists (for instance a budget too small under an unmet cap below one).
        """
        ...
