"""The report of a replay, from its run directory."""

import math
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from experiments.measures.agreement import agreement_table, agreement_words
from experiments.replay.directory import MARKER
from experiments.replay.store import AGREEMENT
from experiments.report.replay_figures import ReplayCharts, read_table
from experiments.report.replay_tables import replay_table
from experiments.show.parts import Chart, Document, Flow, FlowChart, Section, Table
from experiments.sweep.folder import read_json
from simulator.errors import InputError
from simulator.planning.files import read_plan
from simulator.planning.plan import Deployment, Plan

AGREEMENT_COLUMNS = ["policy", *AGREEMENT]


def replay_document(directory: Path) -> Document:
    """Money, service, GPUs, latency and the plan, policy by policy.

    Raises
    ------
    InputError
        If files of the directory are missing or damaged.
    """
    marker, summary = read_json(directory / MARKER), read_json(directory / "summary.json")
    try:
        return _document(directory, marker, summary["runs"])
    except (KeyError, TypeError) as error:  # both were written whole: somebody has changed them
        raise InputError(f"{directory}: {MARKER} or summary.json is damaged ({error!r})") from error


def _document(directory: Path, marker: Mapping[str, Any], summaries: list[dict[str, Any]]) -> Document:
    if not summaries:
        raise InputError(f"{directory / 'summary.json'}: holds no runs: the run directory is not whole")
    charts = ReplayCharts(directory)
    sections = [
        Section(
            title="Money and service",
            tables=[replay_table(summaries, title="All policies")],
            charts=[*charts.money(), *charts.service()],
        ),
        Section(title="The fleet", charts=charts.fleet()),
        Section(title="Latency", charts=charts.latency()),
        _agreement(directory, marker),
        Section(
            title="The plan",
            text=[
                "Which deployments serve which query types, and on which GPUs: of each policy the plan whose fleet "
                "stayed longest."
            ],
            charts=_plans(directory, marker, summaries),
        ),
    ]
    if "step_times" in marker:
        sections.append(Section(title="How far step times can be trusted", tables=[_evidence(marker["step_times"])]))
    return Document(
        title=f"Replay of {', '.join(map(str, marker['trace']['names']))}",
        summary=_words(summaries, marker),
        sections=sections,
        specification=marker,
    )


def _words(summaries: list[dict[str, Any]], marker: Mapping[str, Any]) -> list[str]:
    options = marker["options"]
    planned = "one plan throughout" if options.get("plan") else f"re-planned every {options['interval_s'] / 60:g} min"
    requests = f"{marker['trace']['requests']:,} requests"
    lines = [f"{requests}, scenario {marker['scenario']['name']}, {planned}, seed {options['seed']}."]
    cost = {str(s["policy"]): float(s["cost_usd"]) for s in summaries}
    share = {str(s["policy"]): violated for s in summaries if (violated := _violated(s)) is not None}
    if len(cost) > 1:
        lines[0] += " One run for each policy: differences within the luck of one seed are not told apart here."
    lines.append(_extremes("Cost", "Cheapest", "dearest", cost, lambda usd: f"{usd:,.2f} USD"))
    if share:
        what = "requests not served, or beyond a limit of their type"
        lines.append(_extremes(what.capitalize(), f"Fewest {what}", "most", share, lambda part: f"{part:.2%}"))
    return lines


def _agreement(directory: Path, marker: Mapping[str, Any]) -> Section:
    """Whether the planner knew what the simulation would show."""
    frame = read_table(directory / "agreement.parquet", AGREEMENT_COLUMNS)
    rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    words = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        own = [row for row in rows if row["policy"] == policy]
        words.append(f"{policy}: {agreement_words(own)}" if len(frame["policy"].unique()) > 1 else agreement_words(own))
    if marker["options"].get("plan"):
        planned = "for the arrivals that came, window by window"
    else:
        planned = "for the demand that was forecast, a mean over the plans in force, which knows nothing of bursts"
    note = (
        f"planned: {planned}; load: share of a replica's time that the work of its requests takes; TPOT and delay: "
        "means over requests"
    )
    table = agreement_table(rows, title="Load, TPOT and delay of each deployment", note=note)
    return Section(title="Planned against simulated", text=words, tables=[table])


def _extremes(what: str, least: str, most: str, values: Mapping[str, float], show: Callable[[float], str]) -> str:
    """Who has least and who has most, as far as the numbers that are shown tell the policies apart."""
    shown = {policy: show(value) for policy, value in values.items()}
    low, high = show(min(values.values())), show(max(values.values()))
    if low == high:
        return f"{what}: {low}{' for every policy' if len(values) > 1 else ''}."
    lowest = " and ".join(policy for policy, text in shown.items() if text == low)
    highest = " and ".join(policy for policy, text in shown.items() if text == high)
    return f"{least}: {lowest}, {low}; {most}: {highest}, {high}."


def _violated(summary: Mapping[str, Any]) -> float | None:
    return None if summary["goodput_share"] is None else 1.0 - summary["goodput_share"]


def _plans(directory: Path, marker: Mapping[str, Any], summaries: list[dict[str, Any]]) -> list[Chart]:
    """The plan that was in force longest, of each policy."""
    rates = {t["name"]: t["expected"]["arrival_per_h"] for t in marker["scenario"]["query_types"]}
    charts: list[Chart] = []
    for number, summary in enumerate(summaries):
        plans = [read_plan(path) for path in sorted((directory / "plans").glob(f"{number}-*/*.json"))]
        if not plans:
            told = f"no plans: the run directory is not whole, those of {summary['policy']} are missing"
            raise InputError(f"{directory / 'plans'}: {told}")
        plan, kept = _longest(plans)
        charts.append(plan_chart(plan, rates, key=f"plan-{number}", kept=f"{kept} of {len(plans)}"))
    return charts


def _longest(plans: list[Plan]) -> tuple[Plan, int]:
    """The plan whose fleet stayed for most intervals in a row, and how many."""
    runs = [list(group) for _, group in groupby(plans, key=lambda plan: plan.deployments)]
    most = max(runs, key=len)
    return most[0], len(most)


def plan_chart(plan: Plan, rates: Mapping[str, float], *, key: str, kept: str) -> FlowChart:
    """A plan as a picture: query types, deployments, GPUs; widths are shares of all queries."""
    total = math.fsum(rates.values()) or 1.0
    of_pair = {d.configuration.pair: _deployment(d) for d in plan.deployments}
    flows, through = [], dict.fromkeys(of_pair.values(), 0.0)
    for route in plan.routing:
        value = rates.get(route.query_type, 0.0) * route.share / total
        name = of_pair[route.model, route.tier]
        through[name] += value
        flows.append(Flow(source=route.query_type, target=name, value=value, text=f"{route.share:.1%}"))
    for query_type, share in plan.unmet:
        flows.append(Flow(source=query_type, target="unmet", value=rates.get(query_type, 0.0) * share / total))
    gpus: dict[str, int] = {}
    for d in plan.deployments:
        gpus[d.configuration.tier] = gpus.get(d.configuration.tier, 0) + d.configuration.gpus * d.replicas
    names = {tier: f"{number} GPU{'s' if number > 1 else ''} {tier}" for tier, number in gpus.items()}
    for d in plan.deployments:
        name = of_pair[d.configuration.pair]
        flows.append(Flow(source=name, target=names[d.configuration.tier], value=through[name]))
    flows = [flow for flow in flows if flow.value > 0]
    used = {flow.source for flow in flows} | {flow.target for flow in flows}
    columns = (
        ("query types", [name for name in rates if name in used]),
        ("deployments", [name for name in [*of_pair.values(), "unmet"] if name in used]),
        ("GPUs", [name for name in names.values() if name in used]),
    )
    return FlowChart(
        key=key,
        title=f"{plan.policy}: the fleet that stayed longest ({kept} intervals)",
        columns=columns,
        flows=flows,
        note="Widths are shares of the demand that the scenario expects.",
    )


def _deployment(deployment: Deployment) -> str:
    c = deployment.configuration
    parallel = f"TP{c.tensor_parallel}" + (f" PP{c.pipeline_parallel}" if c.pipeline_parallel > 1 else "")
    return f"{deployment.replicas} x {c.model} {c.tier} {parallel}"


def _evidence(rows: list[dict[str, Any]]) -> Table:
    errors = [name for name in rows[0] if name.endswith("_mape")]

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    return Table(
        title="Step times by GPU tier: where they come from and their mean error",
        columns=("tier", "evidence", "basis", *(f"{name.removesuffix('_mape')} [%]" for name in errors)),
        rows=[[r["tier"], r["evidence"], str(r["basis"]), *(percent(r[name]) for name in errors)] for r in rows],
        labels=3,
        note="measured: fitted to measurements of this tier; composed: to kernels; extrapolated: from another tier",
    )
