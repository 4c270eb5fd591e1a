"""The report of a replay, from its run directory."""

from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from experiments.measures.agreement import agreement_table, agreement_words
from experiments.replay.directory import MARKER
from experiments.replay.store import AGREEMENT
from experiments.show.parts import AreaChart, Chart, Document, Flow, FlowChart, Line, LineChart, Section, Table
from experiments.sweep.folder import read_json
from simulator.errors import InputError
from simulator.planning.files import read_plan
from simulator.planning.plan import Deployment, Plan
from simulator.units import SECONDS_PER_H

LEVELS = [round(0.005 * n, 3) for n in range(200)] + [0.999, 1.0]
BINS = 1000  # for each power of ten: a quantile is found to 0.23 %
COLUMNS = {
    "intervals": ["policy", "interval_start_s", "arrived", "served", "slo_violations"],
    "rentals": ["policy", "tier", "gpus", "price_usd_per_h", "rent_s", "end_s"],
}
AGREEMENT_COLUMNS = ["policy", *AGREEMENT]
MOST_POINTS = 400


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
    intervals, rentals = (_parquet(directory / f"{name}.parquet", columns) for name, columns in COLUMNS.items())
    end_s = float(rentals["end_s"].max()) if len(rentals) else np.inf
    over_time = _over_time(intervals, marker["options"]["interval_s"], end_s)
    sections = [
        Section(title="Money and service", text=(), tables=[_table(summaries)], charts=over_time),
        Section(title="GPUs over time", charts=_gpus(rentals)),
        Section(title="Latency", charts=_latency(directory / "requests.parquet", summaries)),
        _agreement(directory, marker),
        Section(
            title="The plan",
            text=["Query types, the deployments that serve them and their GPUs; as wide as the share of the demand."],
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


def _parquet(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError) as error:
        why = str(error).partition("\n")[0]
        told = "is missing: the run directory is not whole" if not path.exists() else f"cannot be read: {why}"
        raise InputError(f"{path}: {told}") from None


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
    frame = _parquet(directory / "agreement.parquet", AGREEMENT_COLUMNS)
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


def _table(summaries: list[dict[str, Any]]) -> Table:
    rows = []
    for s in summaries:
        violated = _violated(s)
        rows.append(
            [
                str(s["policy"]),
                f"{s['cost_usd']:,.2f}",
                f"{s['gpu_hours']:,.1f}",
                f"{s['served']:,} of {s['arrived']:,}",
                "-" if violated is None else f"{100 * violated:.2f}",
                *(
                    ", ".join("-" if s[key][q] is None else f"{s[key][q] * scale:,.2f}" for q in ("p50", "p95"))
                    for key, scale in (("ttft_s", 1), ("tpot_s", 1000), ("e2e_s", 1))
                ),
            ]
        )
    times = [f"{name} p50, p95 [{unit}]" for name, unit in (("TTFT", "s"), ("TPOT", "ms"), ("E2E", "s"))]
    columns = ("policy", "cost [USD]", "GPU h", "served", "violated [%]", *times)
    return Table(
        title="All policies",
        columns=columns,
        rows=rows,
        note="violated: not served, or served beyond a limit of its type",
    )


def _over_time(intervals: pd.DataFrame, interval_s: float, end_s: float) -> list[Chart]:
    lines = []
    for policy, own in intervals.groupby("policy", sort=False):
        sums = own.groupby("interval_start_s")[["arrived", "served", "slo_violations"]].sum()
        arrived = sums["arrived"].to_numpy(dtype=float)
        broken = (sums["slo_violations"] + sums["arrived"] - sums["served"]).to_numpy(dtype=float)
        y = [100 * b / a if a else None for a, b in zip(arrived, broken, strict=True)]
        starts = sums.index.to_numpy(dtype=float)
        x = np.append(starts, min(starts[-1] + interval_s, end_s)) / SECONDS_PER_H  # the last one has a width too
        lines.append(Line(name=str(policy), x=x.tolist(), y=[*y, y[-1]], steps=True, markers=False))
    return [
        LineChart(
            key="violations-over-time",
            title="Violations over time",
            x_label="time [h]",
            y_label="violated [% of arrivals of the interval]",
            lines=lines,
            from_zero=True,
        )
    ]


def _gpus(rentals: pd.DataFrame) -> list[Chart]:
    end_s = float(rentals["end_s"].max()) if len(rentals) else 0.0
    totals, charts = [], []
    spent = []
    for number, (policy, own) in enumerate(rentals.groupby("policy", sort=False)):
        times = np.unique(np.concatenate([own["rent_s"], own["end_s"]]))
        if len(times) > MOST_POINTS:
            times = np.linspace(times[0], times[-1], MOST_POINTS)

        def rented(part: pd.DataFrame, at: Any = times) -> list[float | None]:
            begin, stop = part["rent_s"].to_numpy()[:, None], part["end_s"].to_numpy()[:, None]
            return list(((begin <= at) & (at < stop)).T.astype(float) @ part["gpus"].to_numpy(dtype=float))

        x = (times / SECONDS_PER_H).tolist()
        totals.append(Line(name=str(policy), x=x, y=rented(own), steps=True, markers=False))
        areas = {str(tier): rented(part) for tier, part in own.groupby("tier", sort=False)}
        charts.append(
            AreaChart(
                key=f"gpus-{number}",  # names of policies may differ in nothing that a file name can hold
                title=f"GPUs of {policy} by tier",
                x_label="time [h]",
                y_label="GPUs rented",
                x=x,
                areas=areas,
            )
        )
        grid = np.linspace(min(0.0, float(times[0])), end_s, 200)
        seconds = np.clip(grid[None, :], own["rent_s"].to_numpy()[:, None], own["end_s"].to_numpy()[:, None])
        price = own["price_usd_per_h"].to_numpy()[:, None]
        usd = (price * (seconds - own["rent_s"].to_numpy()[:, None])).sum(axis=0) / SECONDS_PER_H
        spent.append(Line(name=str(policy), x=(grid / SECONDS_PER_H).tolist(), y=usd.tolist(), markers=False))
    return [
        LineChart(
            key="gpus-over-time", title="GPUs rented", x_label="time [h]", y_label="GPUs", lines=totals, from_zero=True
        ),
        LineChart(
            key="rent-over-time", title="Rent spent", x_label="time [h]", y_label="rent so far [USD]", lines=spent,
            from_zero=True,
        ),
        *charts,
    ]  # fmt: skip


def _latency(path: Path, summaries: list[dict[str, Any]]) -> list[Chart]:
    """Distribution functions; DuckDB counts the requests in bins, so that none is held in memory."""
    if not path.exists():
        raise InputError(f"{path}: is missing: the run directory is not whole")
    charts: list[Chart] = []
    with duckdb.connect() as base:
        for measure, title, unit, scale in (
            ("ttft_s", "Time to first token", "s", 1.0),
            ("tpot_s", "Time per output token", "ms", 1000.0),
            ("e2e_s", "End-to-end delay", "s", 1.0),
        ):
            lines = []
            for summary in summaries:
                found = _quantiles(base, path, measure, str(summary["policy"]))
                if found:
                    x, y = zip(*((value * scale, 100 * level) for value, level in found if value > 0), strict=True)
                    lines.append(Line(name=str(summary["policy"]), x=list(x), y=list(y), markers=False))
            charts.append(
                LineChart(
                    key=measure.removesuffix("_s"),
                    title=title,
                    x_label=f"{title.lower()} [{unit}]",
                    y_label="served requests up to there [%]",
                    lines=lines,
                    log_x=True,
                )
            )
    return charts


def _quantiles(base: duckdb.DuckDBPyConnection, path: Path, measure: str, policy: str) -> list[tuple[float, float]]:
    query = (
        f"select max({measure}), count(*) from read_parquet(?) where policy = ? and {measure} > 0 "
        f"group by floor({BINS} * log10({measure})) order by 1"
    )
    try:
        rows = base.execute(query, [str(path), policy]).fetchall()
    except duckdb.Error as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if not rows:
        return []
    values, counts = zip(*rows, strict=True)
    up_to = np.cumsum(counts)
    found = np.searchsorted(up_to, np.ceil(np.multiply(LEVELS, up_to[-1])))
    return [(float(values[place]), level) for place, level in zip(found, LEVELS, strict=True)]


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
    total = sum(rates.values()) or 1.0
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
        title=f"{plan.policy}: the fleet in force longest ({kept} intervals)",
        columns=columns,
        flows=flows,
        note="demand as the scenario expects it",
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
