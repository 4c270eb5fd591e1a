"""Plan at nominal, then let delay and error be worse than planned, three ways side by side.

*rerouted* (stage 2 of arXiv 2604.07472): the placement is fixed, the true delay and error are the nominal ones times a
factor, and the routing is re-optimised as an LP with the unmet penalty; what cannot be routed within the limits is
unmet. *fixed*: the plan's own routing goes on; a type whose mean delay or error is beyond its limit is violated, and so
is what goes to a deployment whose KV cache the longer stays overfill. *simulated*: the plan with its own routing is
replayed in a world that is slower and errs more by the factor, and every request is judged.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.replay.run import ReplayOptions, engine_of, reality_of, replay_plan, survey
from experiments.studies.tasks.problem_source import Ground, ground_of
from experiments.studies.tasks.replay import arrivals_of, summary_row
from experiments.sweep.outcome import Outcome
from policies.checking.checked_plan import checked_plan
from policies.heuristics.routing import route
from policies.registry import make_policy
from simulator.errors import InfeasibleError
from simulator.planning.plan import Plan, PlanArrays, plan_arrays, plan_cost_usd
from simulator.planning.problem import CapacityRows, PlanningProblem

INFLATED = {"both": (1, 1), "delay": (1, 0), "error": (0, 1)}  # whether delay, error are worse
TOLERANCE = 1e-6  # relative, as the checker's


def stress(parameters: Mapping[str, Any]) -> Outcome:
    """One policy under every factor.

    Parameters
    ----------
    parameters
        ground, seed, policy, factors, inflated (names of `INFLATED`); with `simulate` also trace, duration_s, engine.
        `time_limit_s` bounds each plan, and makes results depend on the machine.
    """
    ground = ground_of(parameters)
    policy, seed = make_policy(parameters["policy"]), int(parameters["seed"])
    about = {"problem": ground.problem.name, "policy": policy.name, "seed": seed}
    about |= {name: parameters["ground"][name] for name in ("budget_share",) if name in parameters["ground"]}
    if "setting" in parameters:
        about["setting"] = parameters["setting"]
    began = time.perf_counter()
    stop = ground.stop(parameters)
    try:
        plan, _ = checked_plan(policy, ground.problem, incumbent=None, stop=stop, seed=seed)
    except InfeasibleError as none:
        return Outcome(rows=[{**about, "way": "rerouted", "feasible": False, "status": str(none).splitlines()[0]}])
    planning_s = time.perf_counter() - began
    about |= {"gpus": plan.gpus, "status": str(plan.status)}
    arrays = plan_arrays(ground.problem, plan)
    simulated = _simulations(ground, plan, parameters) if parameters.get("simulate") else None
    rows = []
    for inflated in parameters["inflated"]:
        for factor in parameters["factors"]:
            delay, error = (1 + worse * (factor - 1) for worse in INFLATED[inflated])
            here = {**about, "inflated": inflated, "factor": float(factor)}
            rows.append({**here, "way": "rerouted", **rerouted(ground.problem, arrays, delay, error)})
            rows.append({**here, "way": "fixed", **fixed(ground.problem, arrays, delay, error)})
            if simulated is not None:
                rows.append({**here, "way": "simulated", **simulated(delay, error)})
    return Outcome(rows=rows, machine={"planning_s": planning_s})


def rerouted(problem: PlanningProblem, arrays: PlanArrays, delay: float, error: float) -> dict[str, Any]:
    """Stage 2: the fixed placement routed anew by LP; not feasible if no routing keeps the unmet caps."""
    routed = route(problem, arrays.replicas, delay_factor=delay, error_factor=error)
    if routed is None:
        return {"feasible": False}
    unmet = unmet_share(problem, routed)
    return {"feasible": True, **money(problem, routed, delay), "unmet_share": unmet, "violation_share": unmet}


def fixed(problem: PlanningProblem, arrays: PlanArrays, delay: float, error: float) -> dict[str, Any]:
    """The plan's own routing: cost as if all were served, and the share of queries whose limits do not hold."""
    share = arrays.share
    late = delay * (share * problem.delay_s).sum(axis=1) > problem.delay_slo_s * (1 + TOLERANCE)
    wrong = error * (share * problem.error).sum(axis=1) > problem.error_slo * (1 + TOLERANCE)
    kv = (share * problem.kv).sum(axis=0) * (delay if problem.capacity_rows is CapacityRows.PAPER else 1.0)
    overfull = kv > arrays.replicas * (1 + TOLERANCE)
    violated = np.where(late | wrong, share.sum(axis=1), (share * overfull).sum(axis=1))
    unmet = unmet_share(problem, arrays)
    demand = problem.arrival_per_h
    return {
        "feasible": True,
        **money(problem, arrays, delay),
        "unmet_share": unmet,
        "violation_share": min(1.0, unmet + float(violated @ demand / demand.sum())),
    }


def unmet_share(problem: PlanningProblem, arrays: PlanArrays) -> float:
    """Of all queries."""
    demand = problem.arrival_per_h
    return float(arrays.unmet @ demand / demand.sum()) if demand.sum() else 0.0


def money(problem: PlanningProblem, arrays: PlanArrays, delay: float = 1.0) -> dict[str, float]:
    """Cost of one period, with the delay penalty of a world that is slower by a factor."""
    parts = plan_cost_usd(problem, arrays)
    parts["delay_penalty"] *= delay
    return {
        "cost_usd": sum(parts.values()),
        "rent_usd": parts["rental"],
        "storage_usd": parts["model_storage"] + parts["token_storage"],
        "delay_penalty_usd": parts["delay_penalty"],
        "unmet_penalty_usd": parts["unmet_penalty"],
    }


def _simulations(ground: Ground, plan: Plan, parameters: Mapping[str, Any]) -> Any:
    """A function of the factors on delay and error that replays the plan; equal factors are replayed once."""
    scenario = ground.scenario
    assert scenario is not None  # the command says so before anything runs
    seed = int(parameters["seed"])
    arriving = survey(scenario, arrivals_of(scenario, parameters, tuple(ground.demand.tolist())))
    known: dict[tuple[float, float], dict[str, Any]] = {}

    def simulate(delay: float, error: float) -> dict[str, Any]:
        if (delay, error) not in known:
            reality = reality_of(scenario, delay_factor=delay, error_factor=error)
            chosen, functions = engine_of(scenario, parameters.get("engine", "compiled"))
            options = ReplayOptions(interval_s=300.0, seed=seed, engine=chosen, functions=functions, reality=reality)
            known[delay, error] = summary_row(replay_plan(scenario, arriving, plan, options))
        return known[delay, error]

    return simulate
