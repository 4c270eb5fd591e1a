"""Plan one problem, or find the smallest budget under which everything is served."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.replay.stress import money, rerouted, unmet_share
from experiments.studies.tasks.problem_source import problem_source_of
from experiments.sweep.outcome import Outcome
from policies.checking.checked_plan import checked_plan
from policies.registry import make_policy
from simulator.errors import InfeasibleError, RunError
from simulator.planning.plan import Plan, plan_arrays
from simulator.planning.policy import Policy, StoppingRule
from simulator.planning.problem import PlanningProblem

SERVED = 1e-6  # an unmet share below this is none
RESOLUTION = 0.005  # of the budget: how close a critical budget is found
MOST = 16.0  # budgets: what is not served with that many never will be


def plan(parameters: Mapping[str, Any]) -> Outcome:
    """One plan of one policy; one row.

    Parameters
    ----------
    parameters
        ground, seed, policy, time_limit_s (None: none), about.
    """
    source = problem_source_of(parameters)
    problem, stop = source.problem, source.stop(parameters)
    policy, seed = make_policy(parameters["policy"]), int(parameters["seed"])
    about = {"problem": problem.name, "policy": policy.name, "seed": seed, **parameters.get("about", {})}
    began = time.perf_counter()
    try:
        made, _ = checked_plan(policy, problem, incumbent=None, stop=stop, seed=seed)
    except InfeasibleError as error:
        row = {"feasible": False, "status": f"no plan: {_first_line(error)}"}
    except RunError as error:
        row = {"feasible": False, "status": f"refused by the checker: {_first_line(error)}"}
    else:
        row = _row(problem, made)
    return Outcome(rows=[{**about, **row}], machine={"planning_s": time.perf_counter() - began})


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[1].strip() if len(lines) > 1 else lines[0]


def _row(problem: PlanningProblem, made: Plan) -> dict[str, Any]:
    arrays = plan_arrays(problem, made)
    return {
        "feasible": True,
        "status": str(made.status),
        **money(problem, arrays),
        "bound_usd": made.bound_usd,
        "gap": made.gap,
        "unmet_share": unmet_share(problem, arrays),
        "gpus": made.gpus,
        "replicas": sum(deployment.replicas for deployment in made.deployments),
    }


def critical_budget(parameters: Mapping[str, Any]) -> Outcome:
    """The smallest budget, to half a percent of the problem's, under which the policy serves all demand.

    The first row is the plan under it (`way` planned), the others are that plan under stress, routed anew.

    Found by bisection between no budget and the first double of the problem's that serves all; a heuristic need not be
    monotone, so what is found is a budget that serves all next to one that does not.

    Parameters
    ----------
    parameters
        ground, seed, policy, factors (of the stress), about.
    """
    problem = problem_source_of(parameters).problem
    policy, seed = make_policy(parameters["policy"]), int(parameters["seed"])
    began = time.perf_counter()
    high = 1.0
    while _serving(policy, problem, high, seed) is None and high <= MOST:
        high *= 2
    stressed: list[dict[str, Any]] = []
    row: dict[str, Any] = {"feasible": False, "status": f"not all is served with {MOST:g} budgets"}
    if high <= MOST:
        low = 0.0 if high == 1.0 else high / 2
        while high - low > RESOLUTION:
            middle = (low + high) / 2
            low, high = (low, middle) if _serving(policy, problem, middle, seed) else (middle, high)
        made = _serving(policy, problem, high, seed)
        assert made is not None
        row = {**_row(problem, made), "budget_share": high}
        tight, arrays = replace(problem, budget_usd=problem.budget_usd * high), plan_arrays(problem, made)
        stressed = [
            {
                "way": "rerouted",
                "inflated": "both",
                "factor": factor,
                "budget_share": high,
                **rerouted(tight, arrays, factor, factor),
            }
            for factor in parameters.get("factors", ())
        ]
    about = {"problem": problem.name, "policy": policy.name, "seed": seed, **parameters.get("about", {})}
    rows = [{**about, "way": "planned", **row}, *({**about, **part} for part in stressed)]
    return Outcome(rows=rows, machine={"planning_s": time.perf_counter() - began})


def _serving(policy: Policy, problem: PlanningProblem, share: float, seed: int) -> Plan | None:
    """A plan under this share of the budget that serves all demand, None if the policy finds none."""
    tight = replace(problem, budget_usd=problem.budget_usd * share)
    try:
        made, _ = checked_plan(policy, tight, incumbent=None, stop=StoppingRule(), seed=seed)
    except InfeasibleError:
        return None
    return made if unmet_share(tight, plan_arrays(tight, made)) < SERVED else None
