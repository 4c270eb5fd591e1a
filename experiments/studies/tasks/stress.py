"""Plan at nominal, then let delay and error be worse than planned (`experiments.replay.stress`)."""

import time
from collections.abc import Mapping
from typing import Any

from experiments.replay.run import ReplayOptions, survey
from experiments.replay.stress import Simulate, simulated, stressed
from experiments.studies.tasks.problem_source import ProblemSource, problem_source_of
from experiments.studies.tasks.setting import arrivals_of, options_of
from experiments.sweep.outcome import Outcome
from policies.checking.checked_plan import checked_plan
from policies.registry import make_policy
from simulator.errors import InfeasibleError
from simulator.planning.plan import Plan


def stress(parameters: Mapping[str, Any]) -> Outcome:
    """One policy under every factor.

    Parameters
    ----------
    parameters
        ground, seed, policy, factors, inflated (names of `INFLATED`); with `simulate` also trace, duration_s, engine.
        `time_limit_s` bounds each plan, and makes results depend on the machine.
    """
    source = problem_source_of(parameters)
    policy, seed = make_policy(parameters["policy"]), int(parameters["seed"])
    about = {"problem": source.problem.name, "policy": policy.name, "seed": seed}
    about |= {name: parameters["ground"][name] for name in ("budget_share",) if name in parameters["ground"]}
    if "setting" in parameters:
        about["setting"] = parameters["setting"]
    began = time.perf_counter()
    try:
        plan, _ = checked_plan(policy, source.problem, incumbent=None, stop=source.stop(parameters), seed=seed)
    except InfeasibleError as none:
        return Outcome(rows=[{**about, "way": "rerouted", "feasible": False, "status": str(none).splitlines()[0]}])
    planning_s = time.perf_counter() - began
    about |= {"gpus": plan.gpus, "status": str(plan.status)}
    rows = stressed(
        source.problem,
        plan,
        factors=parameters["factors"],
        inflated=parameters["inflated"],
        simulate=_simulation(source, plan, parameters) if parameters.get("simulate") else None,
    )
    return Outcome(rows=[{**about, **row} for row in rows], machine={"planning_s": planning_s})


def _simulation(source: ProblemSource, plan: Plan, parameters: Mapping[str, Any]) -> Simulate:
    scenario = source.scenario
    assert scenario is not None  # the command says so before anything runs
    arriving = survey(scenario, arrivals_of(scenario, parameters, tuple(source.demand.tolist())))

    def options_at(delay: float, error: float) -> ReplayOptions:
        return options_of(scenario, parameters, interval_s=300.0, delay_factor=delay, error_factor=error)

    return simulated(scenario, arriving, plan, options_at)
