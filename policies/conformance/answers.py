"""The checks of what a policy answers: feasible plans, true statements, in its name, and the problem as it was."""

import tempfile
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import numpy as np

from policies.checking.plan import TOLERANCE
from policies.conformance.bench import (
    Bench,
    Broken,
    above,
    difference,
    keep,
    may_serve_nothing,
    one_line,
    report_on,
)
from simulator.errors import InfeasibleError
from simulator.planning.files import read_plan, write_plan
from simulator.planning.plan import Plan, PlanStatus
from simulator.planning.problem import PlanningProblem


def feasible(bench: Bench) -> str:
    """Plans keep every constraint, and there is one where to serve nothing is allowed."""
    planned = missed = none = 0
    for problem in bench.problems():
        with bench.trial(problem.name):
            try:
                plan = bench.first_plan(problem)
            except InfeasibleError as error:
                if may_serve_nothing(problem):
                    raise Broken(
                        f"expected a plan, as all demand may stay unmet, it raised InfeasibleError: {one_line(error)}"
                    ) from None
                if bench.optimum_usd(problem) is None:
                    none += 1
                else:
                    missed += 1
            else:
                keep(problem, plan, stated=False)
                planned += 1
    text = f"planned {planned} of {bench.count} random problems, every constraint kept"
    text += f"; {none} proven to have no plan" if none else ""
    return text + (f"; missed a plan of {missed}, which `exact` has" if missed else "")


def honest(bench: Bench) -> str:
    """Cost, bound and status say what is so."""
    judged = bounds = proven = 0
    for problem, plan in bench.plans():
        with bench.trial(problem.name):
            judged += 1
            cost_usd = report_on(problem, plan).cost_usd
            if above(abs(plan.cost_usd - cost_usd), 0.0, TOLERANCE * max(1.0, abs(cost_usd))):
                raise Broken(
                    f"expected the cost that the checker finds, {cost_usd:.9g} USD, it said {plan.cost_usd:.9g}"
                )
            optimum_usd = bench.optimum_usd(problem)
            if optimum_usd is None:
                continue  # the plan breaks a constraint: the first check tells
            if plan.bound_usd is not None:
                bounds += 1
                if above(plan.bound_usd, optimum_usd):
                    raise Broken(
                        f"expected a bound of at most the optimum, {optimum_usd:.9g} USD, it said {plan.bound_usd:.9g}"
                    )
            if plan.status is PlanStatus.OPTIMAL:
                proven += 1
                if above(cost_usd, optimum_usd):
                    raise Broken(
                        f"expected the optimum, {optimum_usd:.9g} USD, of a plan of status optimal, "
                        f"it costs {cost_usd:.9g}"
                    )
    return f"{judged} costs as the checker finds them; {bounds} bounds and {proven} optima stated, each of them true"


def pure(bench: Bench) -> str:
    """Neither the problem nor the incumbent is changed."""
    incumbents = 0
    for problem in bench.problems():
        if incumbents == 5:
            break
        with bench.trial(problem.name):
            before = _content(problem)
            try:
                plan = bench.plan(problem)
            except InfeasibleError:
                continue
            _unchanged("the problem", before, _content(problem))
            incumbents += 1
            plan_before = repr(plan)
            try:
                bench.plan(problem, incumbent=plan)
            except InfeasibleError:
                continue
            _unchanged("the problem", before, _content(problem))
            if repr(plan) != plan_before:
                raise Broken(f"expected the incumbent as it was: {difference(plan_before, repr(plan))}")
    return f"{bench.trials} problems and {incumbents} incumbents are as they were, to the byte"


def _content(problem: PlanningProblem) -> dict[str, str | bytes]:
    """All that a policy could change: fields, and what is derived and kept."""
    derived = [name for name, value in vars(PlanningProblem).items() if isinstance(value, cached_property)]
    values = {name: getattr(problem, name) for name in (*(field.name for field in fields(problem)), *derived)}
    return {name: v.tobytes() if isinstance(v, np.ndarray) else repr(v) for name, v in values.items()}


def _unchanged(what: str, before: dict[str, str | bytes], after: dict[str, str | bytes]) -> None:
    changed = [name for name, content in before.items() if after[name] != content]
    if changed:
        raise Broken(f"expected {what} as it was, it changed {', '.join(changed)}")


def name(bench: Bench) -> str:
    """The plan names its policy and its problem, and survives a plan file."""
    policy_name = bench.policy.name
    with bench.trial("the policy"):
        if not isinstance(policy_name, str) or not policy_name.strip():
            raise Broken(f"expected a name that is a text and not empty, found {policy_name!r}")
    with tempfile.TemporaryDirectory() as folder:
        for problem, plan in bench.plans():
            with bench.trial(problem.name):
                if plan.policy != policy_name:
                    raise Broken(f"expected a plan of policy {policy_name!r}, it says {plan.policy!r}")
                if plan.problem != problem.name:
                    raise Broken(f"expected a plan of problem {problem.name!r}, it says {plan.problem!r}")
                _survives_a_file(plan, Path(folder) / "plan.json")
    return f"plans say {policy_name!r} and come back from a plan file as they were"


def _survives_a_file(plan: Plan, path: Path) -> None:
    try:
        write_plan(path, plan)
        back = read_plan(path)
    except Exception as error:  # numbers of another kind, not-a-number, shares below zero
        raise Broken(f"expected a plan that a file can hold: {type(error).__name__}: {one_line(error)}") from None
    if back != plan:
        other = [f.name for f in fields(plan) if getattr(plan, f.name) != getattr(back, f.name)]
        raise Broken(f"expected the same plan back from a plan file, another came in {', '.join(other)}")
