"""The lower bound of every policy: the demand of each interval is known, the fleet changes at once and for nothing, and
the plan of each interval is exact.

It is a bound on the *planned* cost: queues, which only a simulation shows, can make the same fleet cost more.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.replay.controller import build_problem
from experiments.replay.run import horizon_of
from experiments.replay.stress import money
from experiments.scenario.demand import true_demand
from experiments.studies.tasks.setting import arriving_of, scenario_of
from experiments.sweep.outcome import Outcome
from policies.checking.checked_plan import checked_plan
from policies.registry import make_policy
from simulator.planning.plan import plan_arrays
from simulator.planning.policy import StoppingRule
from simulator.units import SECONDS_PER_H


def oracle(parameters: Mapping[str, Any]) -> Outcome:
    """Sum of the exact plans of all intervals; one row, `bound_usd` being the sum of the proven bounds.

    Parameters
    ----------
    parameters
        As those of a replay; policy is `exact` unless stated.
    """
    scenario = scenario_of(parameters)
    arriving = arriving_of(scenario, parameters)
    interval_s = float(parameters["interval_s"])
    policy = make_policy(parameters.get("policy", "exact"))
    margin = scenario.file.forecast.margin
    total: dict[str, float] = {}
    bound, gpu_hours, unmet, arrived = 0.0, 0.0, 0.0, 0.0
    demands = true_demand(scenario, arriving.source, interval_s, horizon_of(arriving.survey.span_s))
    stop = StoppingRule(relative_gap=scenario.file.stop.relative_gap)
    for number, (demand, length_s) in enumerate(demands):
        planned = replace(demand, arrival_per_h=demand.arrival_per_h * margin)
        period_h = length_s / SECONDS_PER_H
        problem = build_problem(scenario, planned, name=f"{scenario.name}@{number * interval_s:g}s", period_h=period_h)
        plan, _ = checked_plan(policy, problem, incumbent=None, stop=stop, seed=int(parameters["seed"]))
        arrays = plan_arrays(problem, plan)
        for name, value in money(problem, arrays).items():
            total[name] = total.get(name, 0.0) + value
        bound += plan.cost_usd if plan.bound_usd is None else plan.bound_usd
        gpu_hours += plan.gpus * period_h
        unmet += float(arrays.unmet @ problem.arrival_per_h) * period_h
        arrived += float(problem.arrival_per_h.sum()) * period_h
    row = {
        "problem": scenario.name,
        "policy": policy.name,
        "seed": int(parameters["seed"]),
        "way": "planned",
        "interval_s": interval_s,
        "feasible": True,
        **total,
        "bound_usd": bound,
        "gpu_hours": gpu_hours,
        "unmet_share": unmet / arrived if arrived else 0.0,
        "intervals": len(demands),
        **parameters.get("about", {}),
    }
    return Outcome(rows=[row])
