"""The checks of what a policy must cope with: little time, any incumbent, problems without a plan, little to plan."""

import time
from dataclasses import replace

import numpy as np

from policies.checking.random_problem import random_problem, restricted, with_demand, with_types
from policies.conformance.bench import Bench, Broken, accept, may_serve_nothing, one_line, refuse_silence
from simulator.errors import InfeasibleError, RunError
from simulator.planning.plan import Plan
from simulator.planning.problem import MovingTerms, PlanningProblem
from simulator.rng import stream

TRIES = 3  # of a run that took too long: another process may have been in the way
INFEASIBLE_LIMIT_S = 1.0
SHORTEST_S, SHORTEST_MAY_TAKE_S = 0.001, 1.0
MOVING = MovingTerms(provisioning_s=600.0, load_gb_per_s=0.5, drain_s=120.0)


def time_limit(bench: Bench) -> str:
    """An answer comes in time, whether there is a plan or not, on a problem that takes many a policy longer."""
    problem = random_problem(types=15, models=10, tiers=10, seed=bench.seed)
    capped = replace(with_types(problem, unmet_cap=0.1), name=f"{problem.name}-capped")
    broke = replace(with_types(problem, unmet_cap=0.0), name=f"{problem.name}-without-plan", budget_usd=0.0)
    runs = [
        *((which, limit_s, 1.1 * limit_s + 0.2) for limit_s in bench.limits_s for which in (problem, broke)),
        *((which, SHORTEST_S, SHORTEST_MAY_TAKE_S) for which in (problem, capped)),
    ]
    longest_s = dict.fromkeys((limit_s for _, limit_s, _ in runs), 0.0)
    for which, limit_s, may_take_s in runs:
        with bench.trial(f"{which.name}, limit {limit_s:g} s"):
            longest_s[limit_s] = max(longest_s[limit_s], _seconds(bench, which, limit_s, may_take_s))
    told = (f"at most {seconds:.2f} s of {limit_s:g} s" for limit_s, seconds in longest_s.items())
    return f"answered in time: {', '.join(told)}"


def _seconds(bench: Bench, problem: PlanningProblem, limit_s: float, may_take_s: float) -> float:
    """Seconds that an accepted plan took, or where none need exist another answer; the shortest of a few tries."""
    shortest_s = float("inf")
    for _ in range(TRIES):
        started = time.perf_counter()
        plan = None
        try:
            plan = bench.plan(problem, time_limit_s=limit_s, patience_s=10 * may_take_s + 5.0)
        except (InfeasibleError, RunError) as error:
            if may_serve_nothing(problem):
                raise
            refuse_silence(error)
        took_s = time.perf_counter() - started
        if plan is not None:
            accept(problem, plan)
        shortest_s = min(shortest_s, took_s)
        if shortest_s <= may_take_s:
            return shortest_s
        if took_s > 2 * may_take_s:  # no other process is that much in the way
            break
    raise Broken(f"expected an answer after at most {may_take_s:.3g} s, it took {shortest_s:.3g} s")


def incumbent(bench: Bench) -> str:
    """Any incumbent is taken: its own plan, one of other demand or another catalog, and moving may have a price."""
    unchanged = 0
    for number in range(2):
        problem = bench.free_problem(number)
        with bench.trial(problem.name):
            first = bench.first_plan(problem)
            accept(problem, first)
            draw = stream(bench.seed, f"conformance-demand-{number}")
            other = with_demand(problem, draw.choice([0.95, 1.05], size=len(problem.query_types)))
            for now, what in (
                (problem, "its own plan"),
                (other, "its plan for 5 % other demand"),
                (replace(problem, moving=MOVING), "its own plan, moving priced"),
                (replace(other, moving=MOVING), "its plan for 5 % other demand, moving priced"),
            ):
                unchanged += _after(bench, now, first, what)
            for now in (problem, replace(problem, moving=MOVING)):
                stranger = _of_another_catalog(first)
                if _after(bench, now, stranger, "a plan of another catalog"):
                    raise Broken("expected a plan of this problem, it kept the incumbent of another catalog")
    with bench.trial("moving priced, no incumbent"):
        problem = replace(bench.free_problem(0), moving=MOVING)
        accept(problem, bench.plan(problem))
    note = f" (kept as it was {unchanged} times, which is not judged)" if unchanged else ""
    return (
        f"planned on from {bench.trials - 1} plans of its own, with moving free and priced, and from strange ones{note}"
    )


def _after(bench: Bench, problem: PlanningProblem, before: Plan, what: str) -> bool:
    """Plan with an incumbent; whether it was kept as it is, which no command judges again."""
    try:
        plan = bench.plan(problem, incumbent=before)
        if plan is before:
            return True
        accept(problem, plan)
    except (Broken, InfeasibleError, RunError) as error:
        told = str(error) if isinstance(error, Broken) else f"it raised {type(error).__name__}: {one_line(error)}"
        raise Broken(f"with {what} as incumbent, {told}") from None
    return False


def _of_another_catalog(plan: Plan) -> Plan:
    """The plan with models that no problem here has."""
    deployments = (
        replace(d, configuration=replace(d.configuration, model=f"other-{d.configuration.model}"))
        for d in plan.deployments
    )
    routing = (replace(route, model=f"other-{route.model}") for route in plan.routing)
    return replace(plan, deployments=tuple(deployments), routing=tuple(routing))


def infeasible(bench: Bench) -> str:
    """That there is no plan is told."""
    for number in range(2):
        problem = with_types(bench.free_problem(number), unmet_cap=0.0)
        no_time = with_types(problem, delay_slo_s=1e-9)
        for which, what in ((replace(problem, budget_usd=0.0), "no budget"), (no_time, "a delay SLO of a nanosecond")):
            with bench.trial(f"{problem.name} with {what} and no unmet demand allowed"):
                try:
                    plan = bench.plan(which, time_limit_s=INFEASIBLE_LIMIT_S)
                except InfeasibleError as error:
                    refuse_silence(error)
                except RunError as error:
                    raise Broken(f"expected an InfeasibleError, it raised RunError: {one_line(error)}") from None
                else:
                    raise Broken(f"expected an InfeasibleError, it returned a plan of {plan.cost_usd} USD")
    return f"raised InfeasibleError with a message for {bench.trials} problems without a plan"


def empty(bench: Bench) -> str:
    """Little to plan is a problem like any other."""
    problem = bench.free_problem(0)
    types, configurations = len(problem.query_types), len(problem.configurations)
    nobody = np.zeros(types)
    cases = {
        "no demand of one type": with_demand(problem, np.where(np.arange(types) == 0, 0.0, 1.0)),
        "no demand at all": with_demand(problem, nobody),
        "no demand at all, none unmet": with_types(with_demand(problem, nobody), unmet_cap=0.0),
        "one type": restricted(problem, [0], range(configurations)),
        "one configuration": restricted(problem, range(types), [configurations // 2]),
        "one type, one configuration": restricted(problem, [0], [configurations // 2]),
        "unmet demand cheaper than any rent": with_types(problem, unmet_penalty_usd_per_query=1e-9),
        "no budget": replace(problem, budget_usd=0.0),
        "arrays in Fortran's order": replace(
            problem,
            delay_s=np.asfortranarray(problem.delay_s),
            load=np.asfortranarray(problem.load),
            kv=np.asfortranarray(problem.kv),
        ),
    }
    for what, case in cases.items():
        with bench.trial(f"{problem.name}, {what}"):
            try:
                accept(case, bench.plan(case))
            except InfeasibleError:
                if may_serve_nothing(case):
                    raise
    return f"accepted plans for {len(cases)} borderline problems: {'; '.join(cases)}"
