"""A verified plan: what a search found, checked, with its verdict."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from experiments.scenario.scenario import Scenario
from experiments.verify.draws import Draws, refuse_short
from experiments.verify.loop import verify
from experiments.verify.search import VerifyOptions
from experiments.verify.verdict import Verdict, verdict_of
from policies.checking.plan import CheckReport, check
from simulator.errors import InputError, RunError
from simulator.planning.plan import Plan
from simulator.planning.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verified:
    """What a search for a verified plan came to.

    Attributes
    ----------
    plan, report
        The cheapest plan that was accepted, with what the checker found; None if there is none (`Verdict.failure`).
    silent
        Query types without any request: nothing is verified of them.
    """

    plan: Plan | None
    report: CheckReport | None
    verdict: Verdict
    silent: Sequence[str]


def refuse_unverifiable(scenario: Scenario) -> None:
    """Refuse a scenario in which requests never wait for one another.

    Raises
    ------
    InputError
        If its capacity or its discipline is another than `batching`.
    """
    if not scenario.has_queues:
        raise InputError(
            f"--verify: scenario {scenario.name} has no queues to verify: it takes `batching` capacity and discipline"
        )


def verified(
    scenario: Scenario,
    draws: Draws,
    policy: Policy,
    options: VerifyOptions,
    tell: Callable[[str], None] = lambda _: None,
) -> Verified:
    """Search for the cheapest plan that holds, sum the search up, and have the plan checked.

    Raises
    ------
    InputError
        As `experiments.verify.loop.verify`, or if the arrivals are too few for the percentiles.
    RunError
        If the checker refuses the plan: a defect.
    """
    began = time.perf_counter()
    silent = refuse_short(scenario, draws.learning, options.level)
    if silent:
        tell(f"no request of {', '.join(silent)}: nothing is verified of them")
    search = verify(scenario, draws, policy, options, tell)
    verdict = verdict_of(scenario, draws, search, options)
    if search.best is None:
        return Verified(plan=None, report=None, verdict=verdict, silent=silent)
    best = search.best.candidate
    report = check(best.problem, best.plan)
    if not report.accepted:
        raise RunError("the checker refuses the plan: " + "; ".join(map(str, report.violations)))
    plan = replace(best.plan, seconds=time.perf_counter() - began)
    return Verified(plan=plan, report=report, verdict=verdict, silent=silent)
