"""What a policy that proves its bound gives besides the plan."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from policies.checking.certificate import Certificate
from simulator.planning.plan import Plan
from simulator.planning.policy import Policy, StoppingRule
from simulator.planning.problem import PlanningProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What a proof took.

    Attributes
    ----------
    root_bound_usd
        Bound before any branching.
    configurations, configurations_left
        Of the problem, and those that a better plan may still use after fixing at the root.
    nodes
        Nodes of the tree that were branched on.
    """

    root_bound_usd: float
    configurations: int
    configurations_left: int
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A plan, the certificate of its bound, and what both took."""

    plan: Plan
    certificate: Certificate
    effort: Effort


@runtime_checkable
class Prover(Policy, Protocol):
    """A policy that can show why no plan costs less than its bound."""

    def prove(self, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int) -> Proof:
        """Like `plan`, with the certificate that `policies.checking.verify.verify` accepts."""
        ...
