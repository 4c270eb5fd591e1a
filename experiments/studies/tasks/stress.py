"""Plan at nominal, then let delay and error be worse than planned (`experiments.replay.stress`)."""

from collections.abc import Mapping
from typing import Any

from experiments import api
from experiments.replay.run import survey
from experiments.studies.tasks.problem_source import problem_source_of
from experiments.studies.tasks.setting import arrivals_of
from experiments.sweep.outcome import Outcome
from policies.registry import make_policy
from simulator.errors import InfeasibleError


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
    arriving = None
    if parameters.get("simulate") and source.scenario is not None:
        arriving = survey(source.scenario, arrivals_of(source.scenario, parameters, tuple(source.demand.tolist())))
    try:
        stressed = api.stress(
            source.problem,
            policy,
            factors=parameters["factors"],
            inflated=parameters["inflated"],
            scenario=source.scenario,
            arriving=arriving,
            engine=parameters.get("engine", "compiled"),
            stop=source.stop(parameters),
            seed=seed,
        )
    except InfeasibleError as none:
        return Outcome(rows=[{**about, "way": "rerouted", "feasible": False, "status": str(none).splitlines()[0]}])
    about |= {"gpus": stressed.plan.gpus, "status": str(stressed.plan.status)}
    return Outcome(rows=[{**about, **row} for row in stressed.rows], machine={"planning_s": stressed.planning_s})
