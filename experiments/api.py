"""tokenfleet from Python, in one import: `replay`, `plan`, `verify` and `stress` as functions over values.

    import experiments.api as tokenfleet

The command line calls the same functions. Scenarios come from `load_scenario`, requests from `arrivals`, problems from
`read_problem` or `problem_of`; a policy is a name, or an object of the user's own (`simulator.planning.policy.Policy`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.options import trace_files
from experiments.replay.columns import run_columns
from experiments.replay.controller import nominal_problem
from experiments.replay.run import (
    Arriving,
    BatchSink,
    ReplayOptions,
    ReplayRun,
    engine_of,
    reality_of,
    replay_plan,
    replay_policy,
    survey,
)
from experiments.scenario.arrivals import stand_in
from experiments.scenario.functions import UserFunctions
from experiments.scenario.scenario import Scenario, load_scenario, slowed, with_changes, with_delay_model, with_forecast
from policies.checking.checked_plan import checked_plan, checked_proof
from policies.checking.plan import CheckReport, check
from policies.checking.proof import Proof, Prover
from policies.registry import make_policy
from simulator.engine import ChosenEngine, Process
from simulator.planning.files import read_plan, read_problem, write_plan
from simulator.planning.plan import Plan, describe
from simulator.planning.policy import Policy, StoppingRule
from simulator.planning.problem import PlanningProblem

if TYPE_CHECKING:  # heavy: imported where they work
    import pandas as pd

    from experiments.verify.search import VerifyOptions
    from experiments.verify.verified import Verified

__all__ = [
    "Arriving",
    "Plan",
    "Planned",
    "PlanningProblem",
    "Policy",
    "ReplayRun",
    "Scenario",
    "StoppingRule",
    "Stressed",
    "arrivals",
    "check",
    "describe",
    "load_scenario",
    "plan",
    "problem_of",
    "read_plan",
    "read_problem",
    "replay",
    "slowed",
    "stress",
    "table",
    "verify",
    "with_changes",
    "with_delay_model",
    "with_forecast",
    "write_plan",
]


def arrivals(
    scenario: Scenario,
    files: Sequence[str] = (),
    *,
    seed: int = 0,
    duration_s: float | None = None,
    rate_factor: float | None = None,
) -> Arriving:
    """Requests of a trace, looked at as a whole, to be replayed as often as needed.

    Parameters
    ----------
    files
        Trace files, each as `PATH` or `SOURCE=PATH`. Without any, the arrivals that the scenario names stand in: drawn
        with `seed`, for `duration_s`, at `rate_factor` times their rate (None: what the scenario says).

    Raises
    ------
    InputError
        If a file is bad, or has requests that match no query type of the scenario.

    Examples
    --------
    >>> import experiments.api as tokenfleet
    >>> scenario = tokenfleet.load_scenario("azure-2023")
    >>> tokenfleet.arrivals(scenario, duration_s=60).survey.sources
    ('conv', 'code')
    """
    if files:
        return survey(scenario, trace_files(list(files)))
    return survey(scenario, stand_in(scenario, seed=seed, duration_s=duration_s, rate_factor=rate_factor))


def replay(
    scenario: Scenario,
    policy: str | Policy | Plan,
    arriving: Arriving | None = None,
    *,
    interval_s: float = 300.0,
    seed: int = 0,
    engine: str | ChosenEngine = "compiled",
    functions: UserFunctions | None = None,
    delay_factor: float = 1.0,
    error_factor: float = 1.0,
    token_log: bool = False,
    processes: Sequence[Process] = (),
    sink: BatchSink | None = None,
    progress: Callable[[float], None] | None = None,
) -> ReplayRun:
    """Replay requests against the fleet that a policy plans anew at each interval, or against one plan that stays.

    Parameters
    ----------
    policy
        A policy, by name or as an object, or a plan.
    arriving
        From `arrivals`; None for the scenario's own.
    interval_s
        Time between re-plans; with a plan it only structures the tables.
    functions
        The user's step time, admission and router; None for those that the scenario names.
    delay_factor, error_factor
        How much slower and more wrong the world is than the planner knows.
    token_log
        Whether every step is logged.
    processes
        SimPy processes of the user that run beside the fleet.
    sink
        Gets every batch of requests as soon as all of them have left.
    progress
        Called with the share of the horizon that is done.

    Returns
    -------
    ReplayRun
        Its `summary` holds money, SLOs and latency by name; `table` makes a frame of several.

    Raises
    ------
    InputError
        If no plan can keep the limits, or the plan does not fit the scenario.

    Examples
    --------
    >>> import experiments.api as tokenfleet
    >>> scenario = tokenfleet.load_scenario("azure-2023")
    >>> run = tokenfleet.replay(scenario, "gh", tokenfleet.arrivals(scenario, duration_s=60))
    >>> run.summary["arrived"] == run.summary["served"] > 100
    True
    """
    chosen, stated = engine_of(scenario, engine) if isinstance(engine, str) else (engine, None)
    options = ReplayOptions(
        interval_s=interval_s,
        seed=seed,
        engine=chosen,
        functions=functions or stated or UserFunctions(),
        reality=reality_of(scenario, delay_factor=delay_factor, error_factor=error_factor),
        token_log=token_log,
        processes=tuple(processes),
    )
    arriving = arriving or arrivals(scenario, seed=seed)
    if isinstance(policy, Plan):
        return replay_plan(scenario, arriving, policy, options, sink=sink, progress=progress)
    return replay_policy(scenario, arriving, _policy(policy), options, sink=sink, progress=progress)


def table(runs: Sequence[ReplayRun]) -> "pd.DataFrame":
    """Replays as a frame, a row each, by policy; the columns are those of docs/results.md."""
    import pandas as pd

    rows = [{"policy": run.policy, "seed": run.seed, **run_columns(run)} for run in runs]
    return pd.DataFrame(rows).set_index("policy")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planned:
    """A plan that the independent checker accepted, and its problem; `proof` where the policy proves a bound."""

    problem: PlanningProblem
    plan: Plan
    report: CheckReport
    proof: Proof | None = None


def problem_of(scenario: Scenario, arriving: Arriving | None = None, *, period_h: float = 1.0) -> PlanningProblem:
    """The planning problem of a period: for the mean demand of some requests, or for what the scenario expects."""
    if arriving is None:
        return nominal_problem(scenario, period_h=period_h)
    from experiments.verify.sample import mean_problem

    return mean_problem(scenario, arriving, period_h=period_h)


def plan(
    problem: PlanningProblem | Scenario,
    policy: str | Policy = "agh",
    *,
    stop: StoppingRule | None = None,
    seed: int = 0,
) -> Planned:
    """Plan once, and have the plan checked.

    Parameters
    ----------
    problem
        A planning problem, or a scenario: what it expects of one hour.
    stop
        When the policy may stop; None: when it has nothing left to do.

    Raises
    ------
    InfeasibleError
        If there is no plan.
    RunError
        If the policy fails, or its plan breaks a constraint.

    Examples
    --------
    >>> import experiments.api as tokenfleet
    >>> planned = tokenfleet.plan(tokenfleet.load_scenario("paper-base"), "gh")
    >>> planned.report.accepted, planned.plan.gpus > 0
    (True, True)
    """
    problem = nominal_problem(problem) if isinstance(problem, Scenario) else problem
    planner, stop = _policy(policy), stop or StoppingRule()
    if isinstance(planner, Prover):
        proof, report = checked_proof(planner, problem, incumbent=None, stop=stop, seed=seed)
        return Planned(problem=problem, plan=proof.plan, report=report, proof=proof)
    made, accepted = checked_plan(planner, problem, incumbent=None, stop=stop, seed=seed)
    assert accepted is not None  # only an incumbent that stays is not checked again
    return Planned(problem=problem, plan=made, report=accepted)


def verify(
    scenario: Scenario,
    policy: str | Policy = "agh+",
    arriving: Arriving | None = None,
    *,
    hold_out: float = 0.2,
    options: "VerifyOptions | None" = None,
    tell: Callable[[str], None] = lambda _: None,
) -> "Verified":
    """Find the cheapest plan whose simulated percentiles hold on requests that it never saw (docs/headroom.md).

    Parameters
    ----------
    policy
        Plans, again and again, at the headroom that simulations ask for.
    arriving
        What is learned from, and what is held out; None for the scenario's own arrivals, drawn anew as often as needed.
    hold_out
        Last share of the time of a trace that nothing is learned from.
    options
        Percentile, guard, draws, effort and seed.
    tell
        Gets a line for each plan that was tried.

    Raises
    ------
    InputError
        If the scenario has no queues, the trace is too short for its percentiles, an SLO is below what any hardware
        can do, or no plan keeps the other limits.

    Examples
    --------
    >>> import experiments.api as tokenfleet
    >>> from experiments.verify.search import VerifyOptions
    >>> changes = {"synthetic.profile": "expected", "synthetic.duration_s": 900.0}
    >>> scenario = tokenfleet.with_changes(tokenfleet.load_scenario("azure-2023"), changes)
    >>> found = tokenfleet.verify(scenario, options=VerifyOptions(draws=10, effort=1))
    >>> found.plan is not None, found.verdict.fresh_draws >= 10
    (True, True)
    """
    from experiments.verify.draws import ScenarioDraws, TraceDraws
    from experiments.verify.search import VerifyOptions
    from experiments.verify.verified import refuse_unverifiable, verified

    refuse_unverifiable(scenario)
    options = options or VerifyOptions()
    draws = (
        ScenarioDraws(scenario, seed=options.seed)
        if arriving is None
        else TraceDraws(scenario, arriving, hold_out=hold_out, seed=options.seed)
    )
    return verified(scenario, draws, _policy(policy), options, tell)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stressed:
    """A plan in worse and worse worlds: a row for each factor, for what is worse, and for each way of bearing it.

    `rows` hold `way` (`rerouted`, `fixed` or `simulated`), `inflated`, `factor` and columns of docs/results.md.
    """

    plan: Plan
    planning_s: float
    rows: Sequence[dict[str, Any]]


def stress(
    problem: PlanningProblem | Scenario,
    policy: str | Policy = "agh",
    *,
    factors: Sequence[float] = (1.0, 1.1, 1.25, 1.5),
    inflated: Sequence[str] = ("both",),
    scenario: Scenario | None = None,
    arriving: Arriving | None = None,
    engine: str = "compiled",
    stop: StoppingRule | None = None,
    seed: int = 0,
) -> Stressed:
    """Plan at nominal, then let delay and error be worse than planned: re-routed, with the plan's routing, simulated.

    Parameters
    ----------
    problem
        A planning problem, or a scenario: what it expects of one hour.
    factors
        By how much delay and error are worse.
    inflated
        What is worse: `both`, `delay`, `error`, or several of them.
    scenario, arriving
        What the plan is simulated in, and on which requests; without requests nothing is simulated.

    Raises
    ------
    InfeasibleError
        If there is no plan at nominal.

    Examples
    --------
    >>> import experiments.api as tokenfleet
    >>> stressed = tokenfleet.stress(tokenfleet.load_scenario("paper-base"), "gh", factors=(1.0, 1.5))
    >>> [row["factor"] for row in stressed.rows if row["way"] == "rerouted"]
    [1.0, 1.5]
    """
    from experiments.replay.stress import simulated, stressed

    if isinstance(problem, Scenario):
        scenario, problem = problem, nominal_problem(problem)
    began = time.perf_counter()
    made = plan(problem, policy, stop=stop, seed=seed).plan
    planning_s = time.perf_counter() - began
    simulate = None
    if scenario is not None and arriving is not None:
        simulate = simulated(scenario, arriving, made, seed=seed, engine=engine)
    rows = stressed(problem, made, factors=factors, inflated=inflated, simulate=simulate)
    return Stressed(plan=made, planning_s=planning_s, rows=rows)


def _policy(policy: str | Policy) -> Policy:
    return make_policy(policy) if isinstance(policy, str) else policy
