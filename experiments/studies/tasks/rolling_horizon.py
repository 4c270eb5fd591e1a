"""Re-plan under demand that drifts, interval by interval: no requests, an interval costs what its plan costs.

What moving costs is stated by `PlanningProblem.moving`; its `weight` is how much of that price a policy sees. The bill
always has the true price. Demand follows a geometric random walk, of each query type its own. A policy knows the rates
of the moment at which it plans; until it plans again the fleet stays, and is routed anew by LP as demand drifts.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.studies.tasks.problem_source import problem_source_of
from experiments.sweep.outcome import Outcome
from policies.checking.checked_plan import checked_plan
from policies.checking.random_problem import with_demand
from policies.heuristics.moving import Moving
from policies.heuristics.routing import route
from policies.registry import make_policy
from simulator.errors import InfeasibleError
from simulator.planning.plan import Plan, PlanArrays, plan_arrays, plan_cost_usd
from simulator.planning.policy import Policy, StoppingRule
from simulator.planning.problem import FloatArray, MovingTerms, PlanningProblem
from simulator.rng import stream
from simulator.units import SECONDS_PER_H

WALK_LIMIT = 4.0  # demand stays between a quarter of its start and four times it, or a day could end anywhere


def rolling_horizon(parameters: Mapping[str, Any]) -> Outcome:
    """One policy over one walk of the demand; one row. Money is of the whole horizon.

    Parameters
    ----------
    parameters
        ground, seed, policy, sigma (per step), step_s, steps, interval_s (a whole number of steps; None: planned once),
        weight, moving (provisioning_s, load_gb_per_s, drain_s; what is missing is the problem's), charge_moving
        (whether `cost_usd` holds it), effort, relative_gap, about.
    """
    source = problem_source_of(parameters)
    problem = source.problem
    policy, seed = make_policy(parameters["policy"]), int(parameters["seed"])
    problem = replace(problem, moving=terms_of(problem, parameters.get("moving", {})))
    steps, step_s, interval_s = int(parameters["steps"]), float(parameters["step_s"]), parameters["interval_s"]
    walk = demand_walk(len(problem.query_types), steps, sigma=float(parameters["sigma"]), seed=seed)
    problems = interval_problems(problem, walk, interval_h=step_s / SECONDS_PER_H)
    every = steps if interval_s is None else round(float(interval_s) / step_s)
    weight = parameters.get("weight", 1.0)
    row, planning_s = walk_along(
        policy,
        problems,
        weight=1.0 if weight is None else float(weight),
        every=every,
        stop=source.stop(parameters),
        seed=seed,
    )
    if parameters.get("charge_moving", True):
        row["cost_usd"] += row["moving_usd"]
    about = {
        "problem": problem.name,
        "policy": policy.name,
        "seed": seed,
        "sigma": float(parameters["sigma"]),
        "interval_s": interval_s,
        "weight": weight,
        **parameters.get("about", {}),
    }
    return Outcome(rows=[{**about, **row}], machine={"planning_s": planning_s})


def terms_of(problem: PlanningProblem, asked: Mapping[str, float]) -> MovingTerms:
    """What the problem states, else a minute to get a machine, 1 GB/s, and its longest delay SLO to drain."""
    stated = problem.moving or MovingTerms(
        provisioning_s=60.0, load_gb_per_s=1.0, drain_s=float(problem.delay_slo_s.max())
    )
    return replace(stated, **asked)


def demand_walk(types: int, intervals: int, *, sigma: float, seed: int) -> FloatArray:
    """Shape (intervals, types): arrival rates relative to the first interval.

    Each step multiplies a rate by exp(sigma N(0, 1) - sigma^2 / 2), whose mean is one, and clips it to `WALK_LIMIT`.
    """
    steps = stream(seed, "study-hysteresis").standard_normal((intervals, types))
    walk = np.ones((intervals, types))
    for t in range(1, intervals):
        walk[t] = walk[t - 1] * np.exp(sigma * steps[t] - sigma**2 / 2)
        walk[t] = np.clip(walk[t], 1 / WALK_LIMIT, WALK_LIMIT)
    return walk


def interval_problems(problem: PlanningProblem, walk: FloatArray, *, interval_h: float) -> list[PlanningProblem]:
    """The problem of each interval: its own demand, and the share of the budget that its length gives."""
    of_interval = of_length(problem, interval_h)
    return [
        replace(with_demand(of_interval, factor), name=f"{problem.name}@{t * interval_h * 60:g}min")
        for t, factor in enumerate(walk)
    ]


def of_length(problem: PlanningProblem, period_h: float) -> PlanningProblem:
    """The same problem for a period of another length."""
    return replace(problem, period_h=period_h, budget_usd=problem.budget_usd * period_h / problem.period_h)


def walk_along(
    policy: Policy, problems: Sequence[PlanningProblem], *, weight: float, every: int, stop: StoppingRule, seed: int
) -> tuple[dict[str, Any], float]:
    """Plan every so many steps, each time from the fleet in force; give the columns of the row and the planning time.

    The first fleet costs nothing to move to. Where the policy has no plan, or hands back the incumbent itself, and in
    the steps between two plans, the fleet stays and is routed at least cost.

    Parameters
    ----------
    problems
        Of the steps, all of one length, with moving terms.
    weight
        How much of the price of moving the policy sees.

    Raises
    ------
    InfeasibleError
        If there is no plan for the first step.
    RunError
        If the policy fails or its plan breaks a constraint.
    """
    incumbent: Plan | None = None
    money: defaultdict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    unmet, arrived, planning_s, gpu_hours = 0.0, 0.0, 0.0, 0.0
    for number, problem in enumerate(problems):
        assert problem.moving is not None
        plan = incumbent
        if number % every == 0:
            period_h = problem.period_h * min(every, len(problems) - number)
            seen = replace(of_length(problem, period_h), moving=replace(problem.moving, weight=weight))
            began = time.perf_counter()
            try:
                plan, _ = checked_plan(policy, seen, incumbent=incumbent, stop=stop, seed=seed)
            except InfeasibleError:
                if incumbent is None:
                    raise
                count["infeasible"] += 1
            planning_s += time.perf_counter() - began
        assert plan is not None
        arrays = plan_arrays(problem, plan)
        if plan is incumbent:
            routed = route(problem, arrays.replicas)
            count["unserved"] += routed is None
            arrays = routed or _all_unmet(arrays)
        for part, usd in plan_cost_usd(problem, arrays).items():
            money[part] += usd
        arrived += float(problem.arrival_per_h.sum())
        unmet += float(arrays.unmet @ problem.arrival_per_h)
        gpu_hours += plan.gpus * problem.period_h
        if incumbent is not None and plan is not incumbent:
            before, after = _machines(incumbent), _machines(plan)
            started, stopped = after - before, before - after
            if started or stopped:
                truth = replace(problem, moving=replace(problem.moving, weight=1.0))
                money["moving"] += Moving.of(truth, incumbent).cost_usd(arrays.replicas)
            count["changed"] += bool(started or stopped)
            count["started"] += started.total()
            count["stopped"] += stopped.total()
            count["gpus"] += sum(tensor * pipeline * more for (_, _, tensor, pipeline), more in started.items())
        incumbent = plan
    hours = math.fsum(problem.period_h for problem in problems)
    parts = {
        "rent_usd": money["rental"],
        "storage_usd": money["model_storage"] + money["token_storage"],
        "delay_penalty_usd": money["delay_penalty"],
        "unmet_penalty_usd": money["unmet_penalty"],
    }
    unmet_share = unmet / arrived if arrived else 0.0
    row = {
        "feasible": True,
        "cost_usd": math.fsum(parts.values()),
        **parts,
        "moving_usd": money["moving"],
        "unmet_share": unmet_share,
        "violation_share": unmet_share,
        "gpu_hours": gpu_hours,
        "intervals": len(problems),
        "intervals_changed": count["changed"],
        "intervals_infeasible": count["infeasible"],
        "intervals_unserved": count["unserved"],
        "replicas_started_per_h": count["started"] / hours,
        "replicas_stopped_per_h": count["stopped"] / hours,
        "gpus_started_per_h": count["gpus"] / hours,
    }
    return row, planning_s


def _all_unmet(arrays: PlanArrays) -> PlanArrays:
    return PlanArrays(arrays.replicas, np.zeros_like(arrays.share), np.ones_like(arrays.unmet))


def _machines(plan: Plan) -> Counter[tuple[str, str, int, int]]:
    """Replicas by what they are made of, whatever their operating point: to change that moves nothing."""
    machines: Counter[tuple[str, str, int, int]] = Counter()
    for deployment in plan.deployments:
        c = deployment.configuration
        machines[c.model, c.tier, c.tensor_parallel, c.pipeline_parallel] += deployment.replicas
    return machines
