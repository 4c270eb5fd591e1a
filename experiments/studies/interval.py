"""How often to re-plan, with the price of moving."""

from collections.abc import Mapping
from typing import Annotated, Any

import pandas as pd
import typer

from experiments.options import Duration, ScenarioOption, duration
from experiments.show.parts import LineChart, Section, Table
from experiments.studies.shared.conduct import Asked, Design, study
from experiments.studies.shared.replays import SERVICE, arrivals, service
from experiments.studies.shared.view import cell, curve, policies_of, rows_where, values_of
from experiments.sweep.specification import Run
from simulator.errors import InputError

POLICIES = ("gh", "agh")
INTERVALS = "1m,5m,15m,1h,4h,24h"
AT_ONCE = {"engine.provisioning_s": 0.0, "engine.load_gb_per_s": 1e9}
TRUE, FREE = "moving as it is", "moving at once and for nothing"


@study(policies=POLICIES, seeds=2)
def command(
    asked: Asked,
    trace: Annotated[list[str] | None, typer.Argument(help="Trace files; none: a synthetic day.")] = None,
    scenario: ScenarioOption = "azure-2023",
    intervals: Annotated[str, typer.Option(help="Times between re-plans, comma-separated.")] = INTERVALS,
    profile: Annotated[str, typer.Option(help="Profile of the synthetic arrivals.")] = "azure-2024",
    duration: Annotated[Duration, duration("--duration", "Their length.")] = Duration("24h"),
    rate: Annotated[float, typer.Option(min=1e-6, help="Share of the profile's rate that arrives.")] = 0.05,
) -> Design:
    """Re-planning every minute to once a day, with the price of moving and, for comparison, without.

    Example: `tokenfleet study interval --policy gh --intervals 5m,1h --duration 6h --seeds 1`
    """
    names = asked.policies
    lengths = sorted({Duration(item, "--intervals").seconds for item in intervals.split(",")})
    if not lengths:
        raise InputError("--intervals: expected for instance 1m,5m,1h")
    found, files = arrivals(asked.terminal, scenario, trace, profile, duration.seconds, rate)
    runs = [
        Run(
            task="replay",
            parameters={
                **({**found, "changes": {**found.get("changes", {}), **AT_ONCE}} if setting == FREE else found),
                "interval_s": length,
                "policy": name,
                "seed": seed,
                "about": {"setting": setting},
            },
            label=f"{name}, every {length / 60:g} min, {setting}, seed {seed}",
        )
        for name in names
        for length in lengths
        for setting in (TRUE, FREE)
        for seed in range(asked.seeds)
    ]
    return Design(
        runs=runs,
        options={**found, "intervals_s": lengths, "policies": names, "seeds": asked.seeds},
        files=files,
    )


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """Cost and violations over the interval."""
    del timing, marker
    rows = []
    for policy in policies_of(frame):
        for length in values_of(frame, "interval_s"):
            own = rows_where(frame, policy=policy, interval_s=length)
            real, free = rows_where(own, setting=TRUE), rows_where(own, setting=FREE)
            rows.append(
                [
                    policy,
                    _words(length),
                    *service(real)[:4],
                    cell(real, "intervals_changed", 0),
                    cell(free, "cost_usd"),
                    cell(free, "violation_share", 2, 100),
                ]
            )
    lengths = values_of(frame, "interval_s")
    charts = [
        LineChart(
            key=f"interval-{key}",
            title=title,
            x_label="time between re-plans",
            y_label=label,
            lines=[
                curve(
                    rows_where(frame, policy=policy, setting=setting),
                    policy if setting == TRUE else f"{policy}, moving free",
                    "interval_s",
                    measure,
                    group=policy,
                    factor=factor,
                    dashed=setting == FREE,
                )
                for policy in policies_of(frame)
                for setting in (TRUE, FREE)
            ],
            log_x=True,
            from_zero=True,
            x_ticks={length: _words(length) for length in lengths},
        )
        for key, title, label, measure, factor in (
            ("cost", "Cost by the time between re-plans", "cost [USD]", "cost_usd", 1.0),
            ("violated", "Violations by the time between re-plans", "violated [%]", "violation_share", 100.0),
        )
    ]
    return [
        Section(
            title="How often to re-plan",
            tables=[
                Table(
                    title="By the time between re-plans; moving free: fleets that change at once",
                    columns=("policy", "every", *SERVICE[:4], "fleet changes", "moving free [USD]", "violated [%]"),
                    rows=rows,
                    labels=2,
                )
            ],
            charts=charts,
        )
    ]


def _words(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
