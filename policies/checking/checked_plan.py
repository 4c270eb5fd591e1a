"""Ask a policy for a plan and let the checker judge the answer, in the one way that every command uses."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from policies.checking.plan import CheckReport, check
from policies.checking.proof import Proof, Prover
from simulator.errors import RunError, TokenfleetError
from simulator.planning.plan import Plan
from simulator.planning.policy import Policy, StoppingRule
from simulator.planning.problem import PlanningProblem


def checked_plan(
    policy: Policy, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int
) -> tuple[Plan, CheckReport | None]:
    """The policy's plan with the checker's report; an incumbent that is kept is not checked again (report None).

    Raises
    ------
    InfeasibleError
        If the policy says that there is no plan.
    RunError
        If the policy raises anything else, or its plan breaks a constraint: both are defects of the policy.
    """
    with _as_defect(policy):
        plan = policy.plan(problem, incumbent=incumbent, stop=stop, seed=seed)
        if incumbent is not None and plan is incumbent:
            return plan, None
        report = check(problem, plan)
    return plan, _accepted(policy, problem, report)


def checked_proof(
    policy: Prover, problem: PlanningProblem, *, incumbent: Plan | None, stop: StoppingRule, seed: int
) -> tuple[Proof, CheckReport]:
    """Like `checked_plan`, with the certificate of the bound; raises the same errors."""
    with _as_defect(policy):
        proof = policy.prove(problem, incumbent=incumbent, stop=stop, seed=seed)
        report = check(problem, proof.plan)
    return proof, _accepted(policy, problem, report)


@contextmanager
def _as_defect(policy: Policy) -> Iterator[None]:
    """Whatever a policy raises besides our own errors is its defect."""
    try:
        yield
    except TokenfleetError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.filename}, line {frame.lineno}"
        raise RunError(f"policy {policy.name} raised {type(error).__name__}: {error} ({place})") from error


def _accepted(policy: Policy, problem: PlanningProblem, report: CheckReport) -> CheckReport:
    if not report.accepted:
        broken = "\n  ".join(map(str, report.violations))
        raise RunError(f"policy {policy.name} broke the constraints of {problem.name}:\n  {broken}")
    return report
