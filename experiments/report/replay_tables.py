"""The tables of replays and plans, for the terminal and for reports; and what proofs and checks say, in lines."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.measures.metrics import ABSENT, Section, look_up, metrics_in
from experiments.scenario.slo import MEASURES
from experiments.show.parts import DASH, Table
from policies.checking.plan import CheckReport
from policies.checking.proof import Effort
from policies.checking.verify import Verdict
from simulator.planning.plan import Plan, describe

REPLAY_NOTE = (
    "Query types, by interval: a query type counts once for each interval in which requests of it were served; it "
    "misses a limit where the mean of those requests is above it."
)


def replay_table(summaries: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """Every metric that a summary states, one column per policy: a reader compares along the rows."""
    rows: list[list[str]] = []
    breaks = []
    for section in Section:
        rows += [
            [metric.heading, *(metric.text(summary) for summary in summaries)]
            for metric in metrics_in(section)
            if metric.label and any(look_up(summary, metric.path, ABSENT) is not ABSENT for summary in summaries)
        ]
        breaks.append(len(rows) - 1)
    columns = ["", *(str(summary["policy"]) for summary in summaries)]
    return Table(title=title, columns=columns, rows=rows, breaks=breaks[:-1], note=REPLAY_NOTE)


def slo_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """The percentile SLOs of the query types, with what each policy made of them; those that broke stand out."""
    rows, alarms = [], set()
    for number, slos in enumerate(zip(*(summary["percentile_slos"] for summary in summaries), strict=True)):
        first = slos[0]
        limit = f"{first['percentile']} {MEASURES[first['measure']]} {first['limit_s']:g} s"
        rows.append([first["query_type"], limit, *map(_slo_cell, slos)])
        alarms |= {(number, 2 + place) for place, slo in enumerate(slos) if not slo["held"]}
    columns = ["query type", "limit", *(str(summary["policy"]) for summary in summaries)]
    return Table(title="Percentile SLOs", columns=columns, rows=rows, labels=2, alarms=alarms)


def _slo_cell(slo: Mapping[str, Any]) -> str:
    value = DASH if slo["value_s"] is None else f"{slo['value_s']:,.3f}"
    share = f"{slo['over'] / slo['requests']:.1%}" if slo["requests"] else DASH
    return f"{value} s, {share} beyond"


def plan_table(plan: Plan, parts: Mapping[str, float]) -> Table:
    """Deployments with the query types that go to them, and the cost by its parts."""
    rows = []
    for deployment in plan.deployments:
        c = deployment.configuration
        served = [f"{r.query_type} {r.share:.1%}" for r in plan.routing if (r.model, r.tier) == c.pair]
        gpus = str(c.gpus * deployment.replicas)
        rows.append([describe(c), ", ".join(served), str(deployment.replicas), gpus])
    served_rows = len(rows)
    rows += [["unmet", f"{name} {share:.1%}", "", ""] for name, share in plan.unmet]
    return Table(
        title=f"{plan.policy} on {plan.problem}",
        columns=["deployment", "query types (share)", "replicas", "GPUs"],
        rows=rows,
        labels=2,
        alarms={(row, 0) for row in range(served_rows, len(rows))},
        note=", ".join(f"{part.replace('_', ' ')} {value:.4f}" for part, value in parts.items()) + " USD",
    )


def plan_lines(plan: Plan, effort: Effort | None, period_h: float) -> list[str]:
    """Cost, bound, gap and seconds of a plan, and what the proof took."""
    bound = "none proven" if plan.bound_usd is None else f"{plan.bound_usd:.6f} USD, gap {plan.gap:.4%}"
    lines = [f"cost {plan.cost_usd:.6f} USD per {period_h:g} h; bound {bound}; {plan.status}"]
    if effort is not None:
        lines.append(
            f"configurations {effort.configurations:,}, {effort.configurations_left:,} after fixing; "
            f"root bound {effort.root_bound_usd:.6f} USD, {effort.nodes:,} nodes branched on"
        )
    seconds = "" if plan.seconds is None else f"planned in {plan.seconds:.2f} s; "
    return [*lines, f"{seconds}the checker accepts the plan"]


def verdict_lines(verdict: Verdict, report: CheckReport | None) -> list[str]:
    """What the proof of a bound is worth, and how far the plan is from it."""
    if not verdict.accepted:
        return [f"certificate refused: {verdict.reason}"]
    lines = [f"certificate accepted: no plan costs less than {verdict.bound_usd:.6f} USD ({verdict.nodes:,} nodes)"]
    if report is not None:
        gap = (report.cost_usd - verdict.bound_usd) / max(abs(report.cost_usd), 1e-12)
        lines.append(f"the plan is at most {max(gap, 0.0):.4%} above the cheapest there is")
    return lines


def check_lines(report: CheckReport) -> list[str]:
    """The checker's verdict, a line each."""
    if report.accepted:
        return [f"accepted: every constraint holds; cost {report.cost_usd:.6f} USD"]
    return [f"refused: {len(report.violations)} broken", *(f"  {violation}" for violation in report.violations)]
