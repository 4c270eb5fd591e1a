"""Why a heuristic could not serve a query type: the reason in the words of the problem.

A type that no configuration can serve is a matter of its own limits. Otherwise it is something that the types share,
and the limit to blame is the one whose absence would let the same heuristic succeed.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from policies.heuristics.placement import within
from simulator.planning.plan import PlanArrays
from simulator.planning.problem import FloatArray, IntArray, PlanningProblem

CAP_TOLERANCE = 1e-7
UNLIMITED_REPLICAS = 10**6

Planner = Callable[[PlanningProblem], PlanArrays | None]


def over_cap(problem: PlanningProblem, unmet: FloatArray) -> IntArray:
    """Types whose unmet share (types,) exceeds its cap."""
    return np.flatnonzero(unmet > problem.unmet_cap + CAP_TOLERANCE)


def explain(problem: PlanningProblem, short: IntArray, policy: str, plan: Planner) -> list[str]:
    """One message per reason.

    Parameters
    ----------
    short
        Types left with too much unmet demand.
    policy
        Name of the policy that failed.
    plan
        Runs it on a variant of the problem; its plan may break unmet caps, None if it has none.
    """
    own = {int(i): _own_reason(problem, int(i)) for i in short}
    messages = [f"problem {problem.name}: {reason}" for reason in own.values() if reason is not None]
    shared = np.array([i for i, reason in own.items() if reason is None], dtype=np.int64)
    if len(shared):
        names = ", ".join(problem.query_types[i].name for i in shared)
        messages.append(f"problem {problem.name}: {_shared_reason(problem, shared, policy, plan)} (short: {names})")
    return messages


def _own_reason(problem: PlanningProblem, i: int) -> str | None:
    """Why no single configuration could serve type `i`, None if one could."""
    query_type, allowed = problem.query_types[i], problem.allowed[i]
    must = 1.0 - query_type.unmet_cap
    who = f"query type {query_type.name} cannot be served"
    if query_type.unmet_cap > 0:
        who = f"at least {must:.3g} of query type {query_type.name} must be served, but it cannot be"
    delay_slo, error_slo = (
        f"its delay SLO of {query_type.delay_slo_s:g} s",
        f"its error SLO of {query_type.error_slo:g}",
    )
    if not allowed.any():
        return f"{who}: no configuration may serve it"
    fast = allowed & within(problem.delay_s[i] * must, problem.delay_slo_s[i])
    good = allowed & within(problem.error[i] * must, problem.error_slo[i])
    if not fast.any():
        fastest_s = problem.delay_s[i, allowed].min()
        return f"{who}: nothing keeps {delay_slo}; the fastest configuration takes {fastest_s:.4g} s"
    if not good.any():
        lowest = problem.error[i, allowed].min()
        return f"{who}: nothing keeps {error_slo}; the lowest error of a configuration is {lowest:.4g}"
    if not (fast & good).any():
        return f"{who}: no single configuration keeps both {delay_slo} and {error_slo}; mixtures are not searched"
    return None


def _shared_reason(problem: PlanningProblem, short: IntArray, policy: str, plan: Planner) -> str:
    """Which shared limit keeps the types from being served, found by lifting one at a time."""

    def serves(arrays: PlanArrays | None) -> bool:
        return arrays is not None and len(np.intersect1d(over_cap(problem, arrays.unmet), short)) == 0

    unlimited = plan(replace(problem, budget_usd=np.inf))
    if unlimited is not None and serves(unlimited):
        return (
            f"the budget of {problem.budget_usd:g} USD per {problem.period_h:g} h is too small to keep the unmet caps: "
            f"without it {policy} would spend {_spending_usd(problem, unlimited):.2f} USD"
        )
    if serves(plan(replace(problem, storage_capacity_gb=np.inf))):
        return f"the storage of {problem.storage_capacity_gb:g} GB is too small for {policy} to keep the unmet caps"
    if serves(plan(replace(problem, max_replicas=UNLIMITED_REPLICAS))):
        return f"max_replicas = {problem.max_replicas} per deployment is too few for {policy} to keep the unmet caps"
    return (
        f"{policy} finds no plan that keeps the unmet caps under a budget of {problem.budget_usd:g} USD, "
        f"{problem.storage_capacity_gb:g} GB of storage and {problem.max_replicas} replicas per deployment together"
    )


def _spending_usd(problem: PlanningProblem, arrays: PlanArrays) -> float:
    """What a plan takes from the budget: rent and storage."""
    storage_usd = problem.model_storage_usd @ (arrays.replicas > 0) + problem.token_storage_usd @ arrays.share.sum(
        axis=1
    )
    return float(problem.rent_usd @ arrays.replicas + storage_usd)
