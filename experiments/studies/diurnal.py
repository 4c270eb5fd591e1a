"""A week with its days and nights."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import pandas as pd
import typer

from experiments.options import Duration, ScenarioOption, duration
from experiments.show.parts import Line, LineChart, Section, Table
from experiments.studies.shared.conduct import Asked, Design, study
from experiments.studies.shared.replays import SERVICE, arrivals, service
from experiments.studies.shared.view import curve, mean_of, policies_of, rows_where
from experiments.sweep.specification import Run

POLICIES = ("static[agh]", "gh", "agh")
PROFILE = "azure-2024"
PART_S = 3600.0


@study(policies=POLICIES, seeds=1)
def command(
    asked: Asked,
    trace: Annotated[list[str] | None, typer.Argument(help="Trace files; none: the synthetic week.")] = None,
    scenario: ScenarioOption = "azure-2023",
    interval: Annotated[Duration, duration("--interval", "Time between re-plans: 30s, 5m, 1h.")] = Duration("15m"),
    forecast: Annotated[
        str, typer.Option(help="Forecaster (`tokenfleet list forecasters`), NAME or NAME:p90.")
    ] = "adaptive",
    duration: Annotated[Duration, duration("--duration", "Length of the synthetic arrivals.")] = Duration("7d"),
    rate: Annotated[float, typer.Option(min=1e-6, help="Share of the published rate that arrives.")] = 0.05,
) -> Design:
    """The week of Azure 2024 (synthetic from its published curves), re-planned all week or planned once.

    Example: `tokenfleet study diurnal --duration 1d --policy gh --out runs/diurnal`
    """
    names = asked.policies
    found, files = arrivals(asked.terminal, scenario, trace, PROFILE, duration.seconds, rate)
    common = {**found, "interval_s": interval.seconds, "forecast": forecast, "every_s": PART_S}
    runs = [
        Run(task="replay", parameters={**common, "policy": name, "seed": seed}, label=f"{name}, seed {seed}")
        for name in names
        for seed in range(asked.seeds)
    ]
    return Design(
        runs=runs,
        options={**common, "policies": names, "seeds": asked.seeds},
        files=files,
    )


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """The whole, and hour by hour."""
    del timing
    whole, hours = frame[frame["time_s"].isna()], frame[frame["time_s"].notna()]
    hours = hours.assign(day=hours["time_s"] / 86400)
    rows = [[policy, *service(rows_where(whole, policy=policy))] for policy in policies_of(whole)]
    first = policies_of(whole)[0]
    base = mean_of(rows_where(whole, policy=first), "cost_usd")
    text = []
    for policy in policies_of(whole)[1:]:
        cost = mean_of(rows_where(whole, policy=policy), "cost_usd")
        if base and cost:
            text.append(f"{policy} costs {cost / base - 1:+.1%} against {first}.")

    def lines(measure: str, factor: float = 1.0) -> list[Line]:
        return [
            _plain(curve(rows_where(hours, policy=policy), policy, "day", measure, factor=factor))
            for policy in policies_of(hours)
        ]

    requests = int(mean_of(whole, "arrived") or 0)
    charts = [
        LineChart(
            key=f"diurnal-{key}",
            title=title,
            x_label="day",
            y_label=label,
            lines=lines(measure, factor),
            from_zero=True,
        )
        for key, title, label, measure, factor in (
            ("gpus", "GPUs over the week", "GPUs rented, mean of the hour", "gpus", 1.0),
            ("cost", "Cost by the hour", "cost [USD/h]", "cost_usd", 1.0),
            ("violated", "Violations by the hour", "violated [%]", "violation_share", 100.0),
        )
    ]
    load = rows_where(hours, policy=first)
    charts.append(
        LineChart(
            key="diurnal-demand",
            title="Demand by the hour",
            x_label="day",
            y_label="requests per hour",
            lines=[_plain(curve(load, "arrivals", "day", "arrived"))],
            from_zero=True,
        )
    )
    options = marker["options"]
    return [
        Section(
            title="A week, with its nights",
            text=[
                f"{requests:,} requests; re-planned every {options['interval_s'] / 60:g} min on the forecast "
                f"{options['forecast']}; static plans once.",
                *text,
            ],
            tables=[Table(title="The whole horizon", columns=("policy", *SERVICE), rows=rows)],
            charts=charts,
        )
    ]


def _plain(line: Line) -> Line:
    """Hours are many: no markers."""
    return replace(line, markers=False)
