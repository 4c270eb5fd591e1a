"""Churn against cost: policies re-plan under drifting demand, more or less reluctant to leave the fleet in force.

What moving costs is stated by `PlanningProblem.moving`; its `weight` is how much of that price a policy sees. The study
sweeps the weight and charges the true price, whatever the policy believed. There are no requests here: an interval
costs what its plan costs.

Demand follows a geometric random walk, of each query type its own. A policy knows the rates of the interval it plans.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

import numpy as np

from policies.judged import judged_plan
from policies.moving import Moving
from policies.random_problem import with_demand
from policies.routing import route
from policies.static import Static
from simulator.errors import InfeasibleError
from simulator.plan import Plan, PlanArrays, plan_arrays, plan_cost_usd
from simulator.policy import Policy, StoppingRule
from simulator.problem import FloatArray, PlanningProblem
from simulator.rng import stream

WALK_LIMIT = 4.0  # demand stays between a quarter of its start and four times it, or a day could end anywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One policy at one weight over one walk of the demand. Money is of the whole horizon."""

    policy: str
    weight: float | None  # None: the fleet of the first interval stays for good, only its routing is renewed
    seed: int
    rent_usd: float
    storage_usd: float
    delay_penalty_usd: float
    unmet_penalty_usd: float
    moving_usd: float  # at its true price
    replicas_started_per_h: float
    replicas_stopped_per_h: float
    gpus_started_per_h: float
    intervals_changed: int  # in which anything was started or stopped
    intervals_infeasible: int  # in which the policy had no plan and the fleet in force was routed anew
    intervals_unserved: int  # in which no routing of the fleet in force kept the limits: all demand counts as unmet
    unmet_share: float  # of all queries
    planning_s: float  # machine time: no part of the result

    @property
    def total_usd(self) -> float:
        return self.rent_usd + self.storage_usd + self.delay_penalty_usd + self.unmet_penalty_usd + self.moving_usd

    @property
    def churn_per_h(self) -> float:
        """Replicas that were started or stopped, per hour."""
        return self.replicas_started_per_h + self.replicas_stopped_per_h

    def to_dict(self) -> dict[str, Any]:
        """The result, without machine time."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "planning_s"}
        return {**named, "churn_per_h": self.churn_per_h, "total_usd": self.total_usd}


MEASURES = tuple(field.name for field in fields(Outcome) if field.name not in ("policy", "weight", "seed"))


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
    budget_usd = problem.budget_usd * interval_h / problem.period_h
    of_interval = replace(problem, period_h=interval_h, budget_usd=budget_usd)
    return [
        replace(with_demand(of_interval, factor), name=f"{problem.name}@{t * interval_h * 60:g}min")
        for t, factor in enumerate(walk)
    ]


def follow(
    policy: Policy, problems: Sequence[PlanningProblem], *, weight: float | None, stop: StoppingRule, seed: int
) -> Outcome:
    """Plan interval after interval, each from the fleet of the one before.

    The first fleet costs nothing to move to. An interval for which the policy has no plan, or for which it hands back
    the incumbent itself, keeps the fleet and routes it at least cost.

    Parameters
    ----------
    problems
        Of the intervals, all of one length, with moving terms.
    weight
        How much of the price of moving the policy sees; None to plan the first interval only.

    Raises
    ------
    InfeasibleError
        If there is no plan for the first interval.
    RunError
        If the policy fails or its plan breaks a constraint.
    """
    asked = Static(policy) if weight is None else policy
    incumbent: Plan | None = None
    money: defaultdict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    unmet, arrived, planning_s = 0.0, 0.0, 0.0
    for problem in problems:
        assert problem.moving is not None
        seen = replace(problem, moving=replace(problem.moving, weight=1.0 if weight is None else weight))
        began = time.perf_counter()
        try:
            plan, _ = judged_plan(asked, seen, incumbent=incumbent, stop=stop, seed=seed)
        except InfeasibleError:
            if incumbent is None:
                raise
            plan = incumbent
            count["infeasible"] += 1
        planning_s += time.perf_counter() - began
        arrays = plan_arrays(problem, plan)
        if plan is incumbent:
            routed = route(problem, arrays.replicas)
            count["unserved"] += routed is None
            arrays = routed or _all_unmet(arrays)
        for part, usd in plan_cost_usd(problem, arrays).items():
            money[part] += usd
        arrived += float(problem.arrival_per_h.sum())
        unmet += float(arrays.unmet @ problem.arrival_per_h)
        if incumbent is not None:
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
    hours = sum(problem.period_h for problem in problems)
    return Outcome(
        policy=policy.name,
        weight=weight,
        seed=seed,
        rent_usd=money["rental"],
        storage_usd=money["model_storage"] + money["token_storage"],
        delay_penalty_usd=money["delay_penalty"],
        unmet_penalty_usd=money["unmet_penalty"],
        moving_usd=money["moving"],
        replicas_started_per_h=count["started"] / hours,
        replicas_stopped_per_h=count["stopped"] / hours,
        gpus_started_per_h=count["gpus"] / hours,
        intervals_changed=count["changed"],
        intervals_infeasible=count["infeasible"],
        intervals_unserved=count["unserved"],
        unmet_share=unmet / arrived if arrived else 0.0,
        planning_s=planning_s,
    )


def _all_unmet(arrays: PlanArrays) -> PlanArrays:
    return PlanArrays(arrays.replicas, np.zeros_like(arrays.share), np.ones_like(arrays.unmet))


def _machines(plan: Plan) -> Counter[tuple[str, str, int, int]]:
    """Replicas by what they are made of, whatever their operating point: to change that moves nothing."""
    machines: Counter[tuple[str, str, int, int]] = Counter()
    for deployment in plan.deployments:
        c = deployment.configuration
        machines[c.model, c.tier, c.tensor_parallel, c.pipeline_parallel] += deployment.replicas
    return machines


def sweep(
    problem: PlanningProblem,
    policies: Sequence[Policy],
    weights: Sequence[float],
    *,
    intervals: int,
    interval_h: float,
    sigma: float,
    seeds: Sequence[int],
    stop: StoppingRule,
    progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """Every policy at every weight, and never moving, over the walk of every seed.

    Parameters
    ----------
    problem
        Its demand is that of the first interval; it states the moving terms.
    """
    days = {
        seed: interval_problems(
            problem, demand_walk(len(problem.query_types), intervals, sigma=sigma, seed=seed), interval_h=interval_h
        )
        for seed in seeds
    }
    runs = [(policy, weight, seed) for policy in policies for weight in (*weights, None) for seed in seeds]
    outcomes = []
    for number, (policy, weight, seed) in enumerate(runs, start=1):
        outcomes.append(follow(policy, days[seed], weight=weight, stop=stop, seed=seed))
        if progress is not None:
            progress(number / len(runs))
    return outcomes


def means(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Each policy at each weight, averaged over the seeds, in the order of the outcomes."""
    return [
        {"policy": policy, "weight": weight, **{name: fmean(getattr(o, name) for o in own) for name in _AVERAGED}}
        for policy, weight, own in _groups(outcomes)
    ]


_AVERAGED = (*MEASURES, "churn_per_h", "total_usd")


def _groups(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, float | None, list[Outcome]]]:
    for policy, weight in dict.fromkeys((o.policy, o.weight) for o in outcomes):
        yield policy, weight, [o for o in outcomes if (o.policy, o.weight) == (policy, weight)]
