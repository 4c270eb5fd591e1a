"""Cost against violations: what robustness is worth.

Three parts: *analytic* (a plan under stress, re-routed by LP), *static* (one plan for the mean demand, kept and
simulated; plans verified by simulation take part) and *replanned* (simulated, with plans made anew every few minutes).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
import typer

from experiments.options import Duration, Numbers, ScenarioOption, duration, factors, numbers
from experiments.scenario.scenario import load_scenario
from experiments.show.parts import Line, LineChart, Section, Table, merged
from experiments.studies.shared.cheapest import VERIFIED, cheapest, named
from experiments.studies.shared.conduct import Asked, Design, study
from experiments.studies.shared.replays import SERVICE, arrivals, changed, service
from experiments.studies.shared.view import (
    cell,
    curve,
    estimate,
    mean_of,
    options_of,
    policies_of,
    rows_where,
    values_of,
)
from experiments.sweep.specification import Run
from simulator.errors import InputError

ROBUST = ("robust[box=1.3:agh+]", "robust[gamma=1,1.3:agh+]", "robust[cvar=0.9:agh+]")
ANALYTIC, STATIC, REPLANNED = "analytic", "static", "replanned"
POLICIES = {
    ANALYTIC: ("exact", "gh", "agh", *ROBUST),
    STATIC: ("exact", "gh", "agh", *ROBUST),
    REPLANNED: ("gh", "agh", "agh+"),
}
RISING = Numbers((1.0, 1.1, 1.2, 1.3, 1.4, 1.5))
FACTORS = {ANALYTIC: RISING, STATIC: RISING, REPLANNED: Numbers((1.0, 1.3))}
GROUND = {"scenario": "paper-base", "period_h": 24.0, "spread": 0.1}  # of the analytic part
VERIFIER = "agh+"
VERIFIED_AT = (1.0, 1.3)  # how many times slower the worlds are that plans are verified in


@study(policies=(), seeds=3)
def command(
    asked: Asked,
    trace: Annotated[list[str] | None, typer.Argument(help="Trace files; none: the scenario's arrivals.")] = None,
    parts: Annotated[
        str, typer.Option(help=f"Which: {ANALYTIC} (on paper-base), {STATIC}, {REPLANNED}; comma-separated.")
    ] = ",".join(POLICIES),
    scenario: ScenarioOption = "azure-2023",
    caps: Annotated[
        Numbers, numbers("--caps", "Limits on the planned load of a replica, comma-separated: headroom.")
    ] = Numbers((0.3, 0.4, 0.5, 0.7, 1)),
    factors: Annotated[
        Numbers | None,
        factors(
            "--factors", f"How much worse the world is than planned; default: 1.0 to 1.5, {REPLANNED} 1.0 and 1.3."
        ),
    ] = None,
    verified: Annotated[bool, typer.Option(help=f"Verified plans ({VERIFIER}) in the {STATIC} part.")] = True,
    draws: Annotated[int, typer.Option(min=2, help="Fresh draws that a verified plan has to pass.")] = 20,
    effort: Annotated[int, typer.Option(min=1, help="Cheaper fleets that are simulated to verify a plan.")] = 15,
    interval: Annotated[Duration, duration("--interval", f"Time between plans in the {REPLANNED} part.")] = Duration(
        "5m"
    ),
    duration: Annotated[
        Duration | None,
        duration("--duration", "Length of the arrivals, where there is no trace; default: the scenario's."),
    ] = None,
) -> Design:
    """Cost against violations in worlds worse than planned: analytic, of kept plans, and re-planned.

    Example: `tokenfleet study frontier --parts static --policy gh --caps 0.4,0.7,1 --seeds 1 --out runs/frontier`
    """
    wanted = [part.strip() for part in parts.split(",")]
    unknown = [part for part in wanted if part not in POLICIES]
    if unknown:
        raise InputError(f"--parts: {unknown[0]!r} is none of {', '.join(POLICIES)}")
    if not all(0 < cap <= 1 for cap in caps):
        raise InputError("--caps: expected numbers above 0 and up to 1")
    found, files = arrivals(asked.terminal, scenario, trace, None, duration.seconds if duration else None, None)
    world = load_scenario(scenario)
    if STATIC in wanted and verified and not world.has_queues:
        asked.terminal.note(f"scenario {world.name} has no queues: no plan of it is verified")
        verified = False
    chosen = _Chosen(
        found=found,
        names={part: asked.policies or list(POLICIES[part]) for part in wanted},
        factors={part: factors or FACTORS[part] for part in wanted},
        caps=caps,
        interval_s=interval.seconds,
        verify={"draws": draws, "effort": effort} if verified else None,
        seeds=asked.seeds,
    )
    return Design(
        runs=[run for part in POLICIES if part in wanted for run in RUNS[part](chosen)],
        options={
            **found,
            "cap": world.file.limits.cap,
            "parts": wanted,
            "caps": caps,
            "factors": chosen.factors,
            "policies": chosen.names,
            "interval_s": chosen.interval_s,
            "verify": chosen.verify,
            "seeds": chosen.seeds,
        },
        files=files,
    )


# -- the runs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The options; names of policies and factors by part, `verify` None for no verified plans."""

    found: Mapping[str, Any]
    names: Mapping[str, Sequence[str]]
    factors: Mapping[str, Sequence[float]]
    caps: Sequence[float]
    interval_s: float
    verify: Mapping[str, int] | None
    seeds: int


def _analytic(chosen: _Chosen) -> list[Run]:
    common = {"ground": GROUND, "factors": chosen.factors[ANALYTIC], "inflated": ["both"], "simulate": False}
    return [
        Run(
            task="stress",
            parameters={**common, "policy": name, "seed": seed},
            label=f"{ANALYTIC}: {name}, seed {seed}",
        )
        for name in chosen.names[ANALYTIC]
        for seed in range(chosen.seeds)
    ]


def _static(chosen: _Chosen) -> list[Run]:
    common = {"factors": chosen.factors[STATIC]}
    runs = [
        Run(
            task="static_plan",
            parameters={
                **changed(chosen.found, limits__cap=cap),
                **common,
                "policy": name,
                "seed": seed,
                "about": {"setting": _cap(cap)},
            },
            label=f"{STATIC}: {name}, cap {cap:g}, seed {seed}",
        )
        for name in chosen.names[STATIC]
        for cap in chosen.caps
        for seed in range(chosen.seeds)
    ]
    if chosen.verify is not None:
        runs += [
            Run(
                task="static_plan",
                parameters={
                    **chosen.found,
                    **common,
                    "policy": VERIFIER,
                    "verify": {**chosen.verify, "factor": factor},
                    "seed": seed,
                    "about": {"setting": VERIFIED},
                },
                label=f"{STATIC}: verified at {factor:g}, seed {seed}",
            )
            for factor in VERIFIED_AT
            for seed in range(chosen.seeds)
        ]
    return runs


def _replanned(chosen: _Chosen) -> list[Run]:
    return [
        Run(
            task="replay",
            parameters={
                **changed(chosen.found, limits__cap=cap),
                "interval_s": chosen.interval_s,
                "policy": name,
                "seed": seed,
                "delay_factor": factor,
                "error_factor": factor,
                "about": {"setting": _cap(cap), "inflated": "both", "factor": factor},
            },
            label=f"{name}, cap {cap:g}, factor {factor:g}, seed {seed}",
        )
        for name in chosen.names[REPLANNED]
        for cap in chosen.caps
        for factor in chosen.factors[REPLANNED]
        for seed in range(chosen.seeds)
    ]


RUNS: Mapping[str, Callable[[_Chosen], list[Run]]] = {ANALYTIC: _analytic, STATIC: _static, REPLANNED: _replanned}


def _cap(cap: float) -> str:
    return f"cap {cap:g}"


def _utilisation(setting: str) -> str:
    """A setting as tables and charts show it."""
    return setting.removeprefix("cap ")


# -- what is shown ----------------------------------------------------------------------------------------------------


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """A section for each part that was run."""
    del timing
    options = options_of(marker)
    simulated = rows_where(frame, way="simulated")
    kept = simulated[simulated["interval_s"].isna()]
    anew = simulated[simulated["interval_s"].notna()]
    sections = []
    routed = rows_where(frame, way="rerouted")
    if len(routed):
        sections.append(_analytic_section(routed, rows_where(frame, way="fixed")))
    if len(kept):
        sections.append(_static_section(kept, options))
    if len(anew):
        sections.append(_replanned_section(anew))
    return sections


def _analytic_section(routed: pd.DataFrame, fixed: pd.DataFrame) -> Section:
    policies, factors = policies_of(routed), values_of(routed, "factor")
    rows = [
        [
            policy,
            f"{factor:g}",
            cell(own := rows_where(routed, policy=policy, factor=factor), "cost_usd"),
            cell(own, "unmet_share", 2, 100),
            cell(rows_where(fixed, policy=policy, factor=factor), "violation_share", 1, 100),
        ]
        for policy in policies
        for factor in factors
    ]
    charts = [
        LineChart(
            key="frontier-analytic",
            title="Cost against what stays unmet, from the least factor to the worst",
            x_label="cost [USD a day]",
            y_label="unmet [%]",
            lines=merged([_through_factors(rows_where(routed, policy=policy), policy) for policy in policies]),
            from_zero=True,
        ),
        *_over_factors(routed, policies, "analytic", "re-routed by LP", "unmet [%]"),
    ]
    return Section(
        title="Analytic: plans under stress, re-routed",
        text=cheapest(routed, "Analytic", "unmet", by_setting=False),
        tables=[
            Table(
                title="Plans made at nominal, re-routed by LP where delay and error are worse (paper-base, a day)",
                columns=("policy", "factor", "cost [USD]", "unmet [%]", "own routing: violated [%]"),
                rows=rows,
                labels=2,
                note="Own routing: queries whose mean limits or memory do not hold if nothing is re-routed.",
            )
        ],
        charts=charts,
    )


KEPT = ("SLOs broken", "GPUs")


def _static_section(kept: pd.DataFrame, options: Mapping[str, Any]) -> Section:
    factors = values_of(kept, "factor")
    shown = sorted({factors[0], factors[len(factors) // 2], factors[-1]})
    failed = kept[~kept["feasible"].astype(bool)]
    text = cheapest(kept, "Static, simulated", "violated", by_setting=True)
    for policy, setting, status in dict.fromkeys(
        zip(failed["policy"], failed["setting"], failed["status"], strict=True)
    ):
        text.append(f"{named(policy, setting)}: {status}; its means are over the other seeds.")
    tables, charts = _by_setting(kept, shown, STATIC, "kept")
    settings = [setting for setting in dict.fromkeys(kept["setting"]) if setting != VERIFIED]
    at = _cap(float(options["cap"])) if _cap(float(options["cap"])) in settings else next(iter(settings), VERIFIED)
    beside = kept[kept["setting"].isin((at, VERIFIED))]
    charts += _over_factors(
        beside,
        policies_of(beside),
        "static",
        f"kept, target utilisation {_utilisation(at)} or verified",
        "violated [%]",
    )
    return Section(
        title="Static: one plan for the mean demand, kept and simulated", text=text, tables=tables, charts=charts
    )


def _replanned_section(anew: pd.DataFrame) -> Section:
    tables, charts = _by_setting(anew, values_of(anew, "factor"), "", "re-planned")
    return Section(
        title="Re-planned: the frontier of cost and violations",
        text=cheapest(anew, "Re-planned, simulated", "violated", by_setting=True),
        tables=tables,
        charts=charts,
    )


def _by_setting(
    frame: pd.DataFrame, factors: Sequence[float], key: str, words: str
) -> tuple[list[Table], list[LineChart]]:
    """For each factor a table and a chart in which a line leads through the headroom of a policy."""
    tables, charts = [], []
    counted = bool(frame["slos_broken"].notna().any())
    for factor in factors:
        rows, lines = [], []
        here = rows_where(frame, factor=factor)
        for policy in policies_of(here):
            mine = rows_where(here, policy=policy)
            settings = list(dict.fromkeys(mine["setting"]))
            own = [rows_where(mine, setting=setting) for setting in settings]
            for setting, part in zip(settings, own, strict=True):
                more = [cell(part, "slos_broken", 1), cell(part, "gpus", 1)] if counted else []
                rows.append([policy, _utilisation(setting), *service(part), *more])
            lines.append(_line(own, policy, [_utilisation(setting) for setting in settings]))
        where = "At nominal" if factor == 1 else f"In a world {factor:g} times worse"
        tables.append(
            Table(
                title=f"{where}, {words}",
                columns=("policy", "target utilisation", *SERVICE, *(KEPT if counted else ())),
                rows=rows,
                labels=2,
                note="Target utilisation: the limit on the planned load of a replica; the smaller it is, the more "
                "headroom the fleet has.",
            )
        )
        charts.append(
            LineChart(
                key=f"frontier-{key}{'-' if key else ''}{factor:g}".replace(".", "_"),
                title=f"Cost against violations, {words}"
                + ("" if factor == 1 else f", in a world {factor:g} times worse"),
                x_label="cost [USD]",
                y_label="violated [%]",
                lines=lines,
                from_zero=True,
            )
        )
    return tables, charts


def _through_factors(own: pd.DataFrame, policy: str) -> Line:
    factors = values_of(own, "factor")
    ends = {factors[0], factors[-1]} if factors else set()
    labels = [f"{factor:g}" if factor in ends else "" for factor in factors]
    return _line([rows_where(own, factor=factor) for factor in factors], policy, labels)


def _line(points: Sequence[pd.DataFrame], name: str, labels: Sequence[str]) -> Line:
    """A point of means for each frame that has any, with the band of its violations."""
    known = [
        (cost, shares, label)
        for frame, label in zip(points, labels, strict=True)
        if (cost := mean_of(frame, "cost_usd")) is not None
        and (shares := estimate((100 * frame["violation_share"]).tolist())) is not None
    ]
    banded = any(shares.low is not None for _, shares, _ in known)
    return Line(
        name=name,
        x=[cost for cost, _, _ in known],
        y=[shares.mean for _, shares, _ in known],
        low=[shares.mean if shares.low is None else shares.low for _, shares, _ in known] if banded else None,
        high=[shares.mean if shares.high is None else shares.high for _, shares, _ in known] if banded else None,
        labels=[label for _, _, label in known],
    )


def _over_factors(frame: pd.DataFrame, policies: Sequence[str], key: str, words: str, share: str) -> list[LineChart]:
    """Cost and violations over the factor, with bands."""
    return [
        LineChart(
            key=f"frontier-{key}-{measure}",
            title=f"{title} by how much worse the world is, {words}",
            x_label="factor on delay and error",
            y_label=label,
            lines=merged(
                [curve(rows_where(frame, policy=policy), policy, "factor", column, factor=scale) for policy in policies]
            ),
            from_zero=True,
        )
        for measure, title, label, column, scale in (
            ("cost", "Cost", "cost [USD]", "cost_usd", 1.0),
            ("violated", "Violations", share, "violation_share", 100.0),
        )
    ]
