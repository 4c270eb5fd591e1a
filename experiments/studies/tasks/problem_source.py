"""The planning problem that a run stands on: of a scenario, of a problem file, or drawn at random.

Parameters of every task that plans::

    ground = {"scenario": NAME} or {"problem": PATH} or {"random": [types, models, tiers]}
             and optionally: period_h, delay_model (of scenarios), spread, budget_share, penalty_factor

`spread` is the sigma of a lognormal factor, with mean one, on the demand of each type: seed 0 is the problem as it is
stated, every other seed draws anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.replay.controller import nominal_problem
from experiments.scenario.scenario import Scenario
from experiments.studies.tasks.setting import scenario_of
from policies.checking.random_problem import random_problem, with_demand
from simulator.planning.files import read_problem
from simulator.planning.policy import StoppingRule
from simulator.planning.problem import FloatArray, PlanningProblem
from simulator.rng import stream


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSource:
    """`scenario` is None unless the problem is of one; `demand` is the factor on each type's demand, shape (types,)."""

    problem: PlanningProblem
    scenario: Scenario | None
    demand: FloatArray

    def stop(self, parameters: Mapping[str, Any]) -> StoppingRule:
        """The stopping rule of the scenario, else one of proven optima; a time limit only where one is asked for."""
        rule = StoppingRule() if self.scenario is None else self.scenario.file.stop.rule()
        rule = replace(rule, time_limit_s=parameters.get("time_limit_s"), effort=parameters.get("effort"))
        return replace(rule, relative_gap=parameters.get("relative_gap", rule.relative_gap))


def problem_source_of(parameters: Mapping[str, Any]) -> ProblemSource:
    """The problem of a run, with the demand of its seed.

    Raises
    ------
    InputError
        If the scenario or the file is bad.
    """
    asked, seed = parameters["ground"], int(parameters["seed"])
    scenario = scenario_of(asked) if "scenario" in asked else None
    if scenario is not None:
        problem = nominal_problem(scenario, period_h=float(asked.get("period_h", 1.0)))
    elif "random" in asked:
        types, models, tiers = asked["random"]
        problem = random_problem(types, models, tiers, seed, name=f"random-{types}x{models}x{tiers}-seed{seed}")
    else:
        problem = _file(asked["problem"])
    demand = demand_draw(len(problem.query_types), float(asked.get("spread", 0.0)), seed)
    problem = with_demand(problem, demand)
    if "budget_share" in asked:
        problem = replace(problem, budget_usd=problem.budget_usd * float(asked["budget_share"]))
    if "penalty_factor" in asked:
        problem = _with_penalty(problem, float(asked["penalty_factor"]))
    return ProblemSource(problem=problem, scenario=scenario, demand=demand)


def demand_draw(types: int, spread: float, seed: int) -> FloatArray:
    """Factors on the demand of the types, with mean one; all one for seed 0, which is the problem as stated."""
    if seed == 0 or spread == 0:
        return np.ones(types)
    return np.exp(spread * stream(seed, "study-demand").standard_normal(types) - spread**2 / 2)


def _with_penalty(problem: PlanningProblem, factor: float) -> PlanningProblem:
    query_types = tuple(
        replace(q, unmet_penalty_usd_per_query=q.unmet_penalty_usd_per_query * factor) for q in problem.query_types
    )
    return replace(problem, query_types=query_types)


@lru_cache(maxsize=8)
def _file(path: str) -> PlanningProblem:
    return read_problem(Path(path))
