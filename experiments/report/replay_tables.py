"""Tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.scenario.slo import MEASURES
from experiments.show.parts import DASH
from policies.checking.plan import CheckReport
from policies.checking.proof import Effort
from policies.checking.verify import Verdict
from simulator.planning.plan import Plan, describe


def _number(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def replay_table(summaries: Sequence[Mapping[str, Any]], machines: Sequence[Mapping[str, float]]) -> Table:
    """One column per policy: a reader compares along the rows, and a narrow terminal still holds it."""
    table = Table()
    table.add_column("", style="bold", no_wrap=True)
    for summary in summaries:
        table.add_column(escape(str(summary["policy"])), justify="right")

    def row(label: str, values: Sequence[str], section: bool = False) -> None:
        table.add_row(Text(label), *values, end_section=section)  # text: a unit like [s] is no markup

    row("cost [USD]", [_number(s["cost_usd"]) for s in summaries])
    for part in summaries[0]["cost_parts_usd"]:
        row(f"  {part.replace('_', ' ')}", [_number(s["cost_parts_usd"][part]) for s in summaries])
    row("GPU-hours", [_number(s["gpu_hours"]) for s in summaries], section=True)
    for key in ("arrived", "served", "rejected", "failed", "in_flight"):
        row(key.replace("_", " "), [f"{s[key]:,}" for s in summaries])
    row("out of SLO", [f"{s['slo_violations']:,} ({_share(s['slo_violations'], s['arrived'])})" for s in summaries])
    row(
        "  late type-intervals",
        [f"{s['type_intervals_delay_broken']} of {s['type_intervals']}" for s in summaries],
    )
    row("  error type-intervals", [f"{s['type_intervals_error_broken']} of {s['type_intervals']}" for s in summaries])
    if "percentile_slos" in summaries[0]:
        held = [[slo["held"] for slo in s["percentile_slos"]] for s in summaries]
        row("  percentile SLOs broken", [f"{own.count(False)} of {len(own)}" for own in held])
    goodput = [DASH if s["goodput_share"] is None else f"{s['goodput_share']:.1%}" for s in summaries]
    row("goodput (within SLO)", goodput, section=True)
    for name, key, unit, scale in (
        ("TTFT", "ttft_s", "s", 1),
        ("TPOT", "tpot_s", "ms", 1000),
        ("E2E", "e2e_s", "s", 1),
    ):
        for quantile in summaries[0][key]:
            values = [s[key][quantile] for s in summaries]
            cells = [DASH if value is None else f"{value * scale:,.2f}" for value in values]
            row(f"{name} {quantile} [{unit}]", cells, section=quantile == list(summaries[0][key])[-1])
    row("re-plans", [str(s["replans"]) for s in summaries])
    row("  that changed the fleet", [str(s["fleet_changes"]) for s in summaries])
    row("planning [s]", [_number(m["planning_s"]) for m in machines])
    row("engine [CPU s]", [_number(m["engine_cpu_s"]) for m in machines])
    row("no plan, incumbent kept", [str(s["infeasible_replans"]) for s in summaries])
    row("time limit hit", [str(s["time_limits_hit"]) for s in summaries])
    return table


def slo_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """The percentile SLOs of the query types, with what each policy made of them."""
    table = Table(title="percentile SLOs", title_justify="left")
    table.add_column("query type")
    table.add_column("limit")
    for summary in summaries:
        table.add_column(escape(f"{summary['policy']}"), justify="right")
    for rows in zip(*(summary["percentile_slos"] for summary in summaries), strict=True):
        first = rows[0]
        name = f"{first['percentile']} {MEASURES[first['measure']]} {first['limit_s']:g} s"
        cells = [
            Text(
                f"{_number(row['value_s'], 3)} s, {_share(row['over'], row['requests'])} beyond",
                style="" if row["held"] else "red",
            )
            for row in rows
        ]
        table.add_row(escape(first["query_type"]), name, *cells)
    return table


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else DASH


def plan_table(plan: Plan, parts: Mapping[str, float]) -> Table:
    """Deployments with the query types that go to them, and the cost by its parts."""
    table = Table(title=escape(f"{plan.policy} on {plan.problem}"), title_justify="left")
    table.add_column("deployment")
    table.add_column("replicas", justify="right")
    table.add_column("GPUs", justify="right")
    table.add_column("query types (share)")
    for deployment in plan.deployments:
        c = deployment.configuration
        served = [f"{r.query_type} {r.share:.1%}" for r in plan.routing if (r.model, r.tier) == c.pair]
        table.add_row(
            escape(describe(c)), str(deployment.replicas), str(c.gpus * deployment.replicas), escape(", ".join(served))
        )
    for name, share in plan.unmet:
        table.add_row(Text("unmet", style="red"), "", "", escape(f"{name} {share:.1%}"))
    table.caption = ", ".join(f"{part.replace('_', ' ')} {value:.4f}" for part, value in parts.items()) + " USD"
    table.caption_justify = "left"
    return table


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
