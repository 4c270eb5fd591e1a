"""One plan for the mean demand of some arrivals, kept for good, on fresh arrivals in worse and worse worlds.

Plans of policies fill replicas to the scenario's cap; *verified* plans (`experiments.verify`) are simulated, on the
arrivals that they are planned for and on further draws, until the percentiles hold. All are planned for the same
arrivals of a seed and judged on the same fresh ones, on which no plan was tried.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.measures.tally import Judgement
from experiments.replay.columns import run_columns
from experiments.replay.controller import build_problem
from experiments.replay.run import replay_plan, survey
from experiments.scenario.scenario import Scenario, slowed
from experiments.scenario.slo import PercentileSlo, count_slo
from experiments.studies.tasks.setting import arrivals_of, options_of, scenario_of
from experiments.sweep.outcome import Outcome
from experiments.verify.draws import Draws, ScenarioDraws, TraceDraws, refuse_short
from experiments.verify.loop import EFFORT, verify
from experiments.verify.sample import Sample
from experiments.verify.search import VerifyOptions
from policies.checking.checked_plan import checked_plan
from policies.registry import make_policy
from simulator.engine.results import RequestTable
from simulator.errors import InfeasibleError
from simulator.planning.plan import Plan

HOLD_OUT = 0.2  # of a trace, as `tokenfleet plan --verify` has it
SEED_SPACE = 1_000_000  # between seeds, so that no draw of one is a draw of another
FRESH = SEED_SPACE // 2  # the draw that plans are judged on: no search comes that far
TABLE_INTERVAL_S = 300.0


@dataclass(frozen=True, slots=True)
class Made:
    """A plan, or none, and what is to be said of it."""

    plan: Plan | None
    status: str


def static_plan(parameters: Mapping[str, Any]) -> Outcome:
    """One plan under every factor on delay and error; a row each.

    Parameters
    ----------
    parameters
        scenario, policy, seed, factors; optionally trace (files), duration_s, rate_factor, changes, level (of the
        percentiles), verify (`draws`, `effort`, `factor`: the plan is verified, with `policy` inside, in a world in
        which everything takes so many times as long), about.
    """
    scenario, seed = scenario_of(parameters), int(parameters["seed"])
    level = float(parameters.get("level", 0.95))
    asked = parameters.get("verify")
    policy = make_policy(parameters["policy"])
    name = policy.name
    if asked is not None:
        at = "" if asked["factor"] == 1 else f" at {asked['factor']:g}"
        name = f"verified[{policy.name}{at}]"
    draws = _draws(scenario, parameters, SEED_SPACE * seed)
    began = time.perf_counter()
    try:
        if asked is None:
            made = _planned(scenario, draws, parameters["policy"], seed)
        else:
            options = VerifyOptions(level=level, draws=int(asked["draws"]), effort=int(asked["effort"]), seed=seed)
            made = _verified(slowed(scenario, float(asked["factor"])), draws, parameters["policy"], options)
    except InfeasibleError as none:
        made = Made(None, f"no plan: {str(none).splitlines()[0]}")
    planning_s = time.perf_counter() - began
    about = {
        "problem": scenario.name,
        "policy": name,
        "seed": seed,
        "way": "simulated",
        "inflated": "both",
        "status": made.status,
        **parameters.get("about", {}),
    }
    rows = [{**about, "factor": float(factor), "feasible": False} for factor in parameters["factors"]]
    if made.plan is not None:
        trial = _FreshTrial(scenario, draws, made.plan, parameters, level)
        rows = [{**row, **trial.row(row["factor"])} for row in rows]
    return Outcome(rows=rows, machine={"planning_s": planning_s})


def _draws(scenario: Scenario, parameters: Mapping[str, Any], seed: int) -> Draws:
    if parameters.get("trace"):
        return TraceDraws(scenario, survey(scenario, arrivals_of(scenario, parameters)), hold_out=HOLD_OUT, seed=seed)
    return ScenarioDraws(
        scenario,
        seed=seed,
        duration_s=parameters.get("duration_s"),
        rate_factor=parameters.get("rate_factor"),
    )


def _planned(scenario: Scenario, draws: Draws, policy: str, seed: int) -> Made:
    """By the policy alone, for one hour of the mean demand at the scenario's cap."""
    demand = Sample.of(draws.learning).demand(scenario)
    problem = build_problem(scenario, demand, name=f"{scenario.name}@mean", period_h=1.0)
    stop = replace(scenario.file.stop.rule(), time_limit_s=None, effort=EFFORT)
    plan, _ = checked_plan(make_policy(policy), problem, incumbent=None, stop=stop, seed=seed)
    return Made(plan, str(plan.status))


def _verified(scenario: Scenario, draws: Draws, policy: str, options: VerifyOptions) -> Made:
    """The cheapest plan that was accepted, if there is one."""
    refuse_short(scenario, draws.learning, options.level)
    search = verify(scenario, draws, make_policy(policy), options)
    best, tried = search.best, len(search.tried)
    if best is None or best.acceptance is None:
        return Made(None, f"no plan was accepted, of {tried}")
    fresh = len(best.acceptance.fresh)
    return Made(best.candidate.plan, f"held on {fresh - best.acceptance.failures} of {fresh} draws, of {tried} plans")


class _FreshTrial:
    """Replays a plan on the draw that nobody saw."""

    def __init__(
        self, scenario: Scenario, draws: Draws, plan: Plan, parameters: Mapping[str, Any], level: float
    ) -> None:
        self._scenario, self._plan, self._parameters = scenario, plan, parameters
        self._arriving = survey(scenario, draws.fresh_source(FRESH))
        self._slos = [(i, slo) for i, rule in enumerate(scenario.types) for slo in rule.slos(level)]

    def row(self, factor: float) -> dict[str, Any]:
        """Columns in a world so many times slower and wronger."""
        counts = np.zeros((2, len(self._slos)))

        def take(batch: RequestTable, _: Judgement, __: npt.NDArray[np.int32]) -> None:
            counts[:] += np.array([_late_of(batch, i, slo) for i, slo in self._slos]).reshape(-1, 2).T

        options = options_of(
            self._scenario,
            self._parameters,
            interval_s=TABLE_INTERVAL_S,
            delay_factor=factor,
            error_factor=factor,
        )
        row = run_columns(replay_plan(self._scenario, self._arriving, self._plan, options, sink=take))
        for name in ("replans", "intervals", "intervals_changed", "intervals_infeasible"):
            del row[name]  # of plans that are made anew
        late, applies = counts
        allowed = np.array([slo.allowed for _, slo in self._slos])
        broken = late > applies * allowed * (1 + 1e-9)
        return {
            **row,
            "slos_broken": int(broken.sum()),
            "gpus": self._plan.gpus,
            "replicas": sum(deployment.replicas for deployment in self._plan.deployments),
        }


def _late_of(batch: RequestTable, query_type: int, slo: PercentileSlo) -> tuple[int, int]:
    count = count_slo(batch, query_type, slo)
    return count.over, count.requests
