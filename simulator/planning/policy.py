"""The policy port: what a planner must offer, and when it may stop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from simulator.planning.plan import Plan
from simulator.planning.problem import PlanningProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProgress:
    """How far a search has come: the best plan and the proven bound so far, None where there is none yet."""

    seconds: float  # since the search began
    cost_usd: float | None
    bound_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """When a policy stops, and whom it tells meanwhile.

    Everything but the time limit is deterministic. A replay relies on the deterministic rules, so that its results do
    not depend on the machine; the time limit is only a safety net there, and a plan that hit it says so in its status.
    """

    time_limit_s: float | None = None
    relative_gap: float = 1e-6  # of the proven bound, for exact policies
    max_nodes: int | None = None  # of a branch-and-bound tree
    effort: int | None = None  # of a search that could go on for ever: how many fleets it routes, or bounds instead
    starts: int = 12  # of a multi-start heuristic
    iterations: int = 200  # of a local search, per start
    # Called with each better plan or bound that an exact policy finds; it must not change the search.
    report: Callable[[SearchProgress], None] | None = field(default=None, compare=False, repr=False)


class Policy(Protocol):
    """A planner. The simulator never imports one: experiments hand it in.

    A policy that plans for more than one demand may have an attribute `demand_levels`, a tuple of levels between 0 and
    1: problems of a forecast then say what these quantiles of the demand are (`PlanningProblem.demand_quantiles`).
    """

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


def demand_levels(policy: Policy) -> tuple[float, ...]:
    """Levels of the demand's quantiles that the policy heeds; most heed none."""
    levels: tuple[float, ...] = getattr(policy, "demand_levels", ())
    return levels
