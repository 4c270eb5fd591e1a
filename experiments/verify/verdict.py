"""What a search for a verified plan found, in numbers; the reports have words and tables for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.measures.agreement import Agreement, Simulated, agreements, expected_of
from experiments.measures.cost import fleet_cost_by_phase
from experiments.replay.run import ReplayOptions, engine_of, replay_plan
from experiments.scenario.demand import ArrivedSums
from experiments.scenario.scenario import Scenario
from experiments.verify.acceptance import CONFIDENCE
from experiments.verify.alternatives import Alternative, alternatives, emptiest
from experiments.verify.draws import Draws
from experiments.verify.search import Search, Tried, VerifyOptions
from simulator.planning.plan import Plan

REPLAY_INTERVAL_S = 300.0  # the interval of `tokenfleet replay`, so that sums are rounded alike
NORMAL = 1.96  # half of a 95 % interval of a mean, in standard errors


@dataclass(frozen=True, slots=True, kw_only=True)
class SloVerdict:
    """One SLO of the plan: the share of requests beyond the limit, at each place where it was tried.

    `limit_s` is what is stated; shares are of requests beyond `Verdict.guard` times it. `fresh_low` and `fresh_high`
    are the 95 % interval of the mean over the fresh draws.
    """

    query_type: str
    percentile: str
    measure: str
    limit_s: float
    may_be_late: float
    learned_from: float
    held_out: float | None
    fresh_mean: float | None
    fresh_low: float | None
    fresh_high: float | None
    fresh_worst: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What all that arrives costs under the plan [USD]: what `tokenfleet replay --plan` says of it.

    Attributes
    ----------
    horizon_s
        For how long requests arrive.
    start_up_usd, drain_usd
        What the fleet costs before and after that, within `cost_usd`.
    """

    horizon_s: float
    cost_usd: float
    start_up_usd: float
    drain_usd: float


def replayed(scenario: Scenario, draws: Draws, plan: Plan, seed: int) -> Replayed:
    """Replay a plan against all that arrives."""
    engine, functions = engine_of(scenario)
    options = ReplayOptions(interval_s=REPLAY_INTERVAL_S, seed=seed, engine=engine, functions=functions)
    run = replay_plan(scenario, draws.arriving, plan, options)
    start_up_usd, _, drain_usd = fleet_cost_by_phase(scenario, run.result)
    cost_usd = run.summary["cost_usd"]
    assert isinstance(cost_usd, float)
    return Replayed(horizon_s=run.result.horizon_s, cost_usd=cost_usd, start_up_usd=start_up_usd, drain_usd=drain_usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is told of a search.

    Attributes
    ----------
    cost_usd_per_h
        On what was learned from, while requests arrive (`Trial.cost_usd_per_h`).
    replayed
        The same plan against all that arrives, with start-up and drain.
    failure
        Why nothing was accepted, empty if something was.
    held_share
        On what share of all draws the plan holds at least, at `CONFIDENCE`; None without a plan.
    """

    failure: str
    cost_usd_per_h: float | None
    replayed: Replayed | None
    held_share: float | None
    fresh_draws: int
    fresh_failed: int
    guess: str
    guard: float
    tried: int
    simulations: int
    slos: Sequence[SloVerdict]
    agreement: Sequence[Agreement]
    emptiest: tuple[str, float] | None
    alternatives: Sequence[Alternative]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "confidence": CONFIDENCE}


def verdict_of(scenario: Scenario, draws: Draws, search: Search, options: VerifyOptions) -> Verdict:
    """Sum up a search; alternatives are priced where static headroom is the wrong tool, or nothing was accepted."""
    best, at = search.best, search.best or search.closest
    empty = emptiest(scenario, search)
    acceptance = None if best is None else best.acceptance
    return Verdict(
        failure=_failure(scenario, search, at, options.guard) if best is None else "",
        cost_usd_per_h=None if best is None else best.trial.cost_usd_per_h,
        replayed=None if best is None else replayed(scenario, draws, best.candidate.plan, options.seed),
        held_share=acceptance.held_share if acceptance is not None else None,
        fresh_draws=len(acceptance.fresh) if acceptance is not None else 0,
        fresh_failed=acceptance.failures if acceptance is not None else 0,
        guess=str(search.guess),
        guard=options.guard,
        tried=len(search.tried),
        simulations=search.bench.simulations,
        slos=[] if best is None else _slos(scenario, best),
        agreement=_agreement(scenario, search, at) if at is not None else [],
        emptiest=empty,
        alternatives=alternatives(scenario, draws, search, options.seed) if best is None or empty is not None else [],
    )


def _failure(scenario: Scenario, search: Search, at: Tried | None, guard: float) -> str:
    if at is None or at.failed is None or at.failed.worst is None:
        return f"no plan was accepted, of {len(search.tried)}"
    index, count = at.failed.worst
    return (
        f"no plan was accepted, of {len(search.tried)}; the closest, {at.trial.cost_usd_per_h:.3f} USD/h, leaves "
        f"{count.share:.1%} of {scenario.types[index].name} beyond {guard:g} times {count.slo} on {at.failed.draw} "
        f"({count.slo.allowed:.1%} may be)"
    )


def _slos(scenario: Scenario, best: Tried) -> list[SloVerdict]:
    acceptance = best.acceptance
    assert acceptance is not None
    rows = []
    for place, (index, count) in enumerate(best.trial.counts):
        fresh = np.array([late[place] for late in acceptance.fresh_late])
        half = NORMAL * fresh.std(ddof=1) / np.sqrt(len(fresh)) if len(fresh) > 1 else 0.0
        rows.append(
            SloVerdict(
                query_type=scenario.types[index].name,
                percentile=count.slo.percentile,
                measure=count.slo.measure,
                limit_s=count.slo.limit_s,
                may_be_late=count.slo.allowed,
                learned_from=count.share,
                held_out=acceptance.held_out_late[place] if acceptance.held_out_late else None,
                fresh_mean=float(fresh.mean()) if len(fresh) else None,
                fresh_low=max(0.0, float(fresh.mean() - half)) if len(fresh) else None,
                fresh_high=float(fresh.mean() + half) if len(fresh) else None,
                fresh_worst=float(fresh.max()) if len(fresh) else None,
            )
        )
    return rows


def _agreement(scenario: Scenario, search: Search, at: Tried) -> list[Agreement]:
    simulated = Simulated(scenario)
    simulated.add(at.trial.run.requests)
    requests = at.trial.run.requests
    counted = ArrivedSums(len(scenario.types), 1.0, search.sample.horizon_s)
    counted.add(requests.arrival_s, requests.query_type, requests.input_tokens, requests.output_tokens)
    said = expected_of(scenario, counted.arrived(), at.candidate.plan)
    return agreements(at.trial.run, simulated, [(0.0, said)])
