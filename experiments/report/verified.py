"""A verified plan in words and tables."""

from collections.abc import Sequence
from dataclasses import asdict

from experiments.measures.agreement import agreement_table, agreement_words
from experiments.scenario.slo import MEASURES
from experiments.show.parts import Table
from experiments.verify.acceptance import CONFIDENCE
from experiments.verify.alternatives import LITTLE, Alternative
from experiments.verify.verdict import Replayed, SloVerdict, Verdict


def verdict_words(verdict: Verdict) -> list[str]:
    """A line on the plan, on how far its planner was off, and on deployments that stand nearly empty."""
    told = []
    if verdict.cost_usd_per_h is not None and verdict.held_share is not None:
        told.append(
            f"verified: {verdict.cost_usd_per_h:.3f} USD/h as simulated while requests arrive; every SLO held on "
            f"{verdict.fresh_draws - verdict.fresh_failed} of {verdict.fresh_draws} fresh draws: it holds on at least "
            f"{verdict.held_share:.1%} of all draws ({CONFIDENCE:.0%} confidence, whatever else was tried)"
        )
        if verdict.replayed is not None:
            told.append(_replayed_words(verdict.replayed))
        told.append(agreement_words([asdict(row) for row in verdict.agreement]))
    if verdict.emptiest is not None:
        name, load = verdict.emptiest
        told.append(
            f"{name} is filled to {load:.0%} of its limit, below {LITTLE:.0%}: static headroom is the wrong tool "
            "for such bursts; what else there is, and its price:"
        )
    return told


def _replayed_words(replayed: Replayed) -> str:
    serving_usd = replayed.cost_usd - replayed.start_up_usd - replayed.drain_usd
    return (
        f"`replay --plan` of all these arrivals costs {replayed.cost_usd:.3f} USD: {serving_usd:.3f} in the "
        f"{replayed.horizon_s / 60:g} min in which requests arrive, {replayed.start_up_usd:.3f} to start the fleet "
        f"before, {replayed.drain_usd:.3f} to drain it after"
    )


def verdict_tables(verdict: Verdict) -> list[Table]:
    """The late requests by SLO, planned against simulated, and the alternatives: each where there is something."""
    made = []
    if verdict.slos:
        made.append(_slo_table(verdict.slos, verdict.fresh_draws, verdict.guard))
    if verdict.agreement:
        made.append(agreement_table([asdict(row) for row in verdict.agreement], title="Planned against simulated"))
    if verdict.alternatives:
        made.append(_alternatives_table(verdict.alternatives))
    return made


def _slo_table(slos: Sequence[SloVerdict], draws: int, guard: float) -> Table:
    def percent(share: float | None) -> str:
        return "-" if share is None else f"{100 * share:.2f}"

    return Table(
        title="Requests beyond each limit [%]",
        columns=("query type", "limit", "may be", "learned", "held out", "fresh (95 % interval)", "worst"),
        rows=[
            (
                slo.query_type,
                f"{slo.percentile} {MEASURES[slo.measure]} {slo.limit_s:g} s",
                percent(slo.may_be_late),
                percent(slo.learned_from),
                percent(slo.held_out),
                f"{percent(slo.fresh_mean)} ({percent(slo.fresh_low)}-{percent(slo.fresh_high)})",
                percent(slo.fresh_worst),
            )
            for slo in slos
        ],
        labels=2,
        note=f"learned: where the plan was learned from; fresh: mean and worst of {draws} draws that no plan was tried "
        f"on before; limits are taken as {guard:g} of what is stated",
    )


def _alternatives_table(others: Sequence[Alternative]) -> Table:
    return Table(
        title="Instead of headroom",
        columns=("way", "basis", "USD/h", "late at worst [%]", "SLOs hold there"),
        rows=[
            (o.way, o.basis, f"{o.cost_usd_per_h:.2f}", f"{100 * o.late_share:.2f}", "yes" if o.holds else "no")
            for o in others
        ],
        labels=2,
    )
