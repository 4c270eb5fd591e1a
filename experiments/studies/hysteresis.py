"""Churn against cost: how reluctant to move?"""

from collections.abc import Mapping
from typing import Annotated, Any

import pandas as pd
import typer

from experiments.options import Duration, Numbers, ProblemOption, ScenarioOption, duration, numbers
from experiments.show.parts import Line, LineChart, Section, Table
from experiments.studies.shared.conduct import Asked, Design, ground_option, study
from experiments.studies.shared.view import cell, mean_of, policies_of, rows_where, values_of
from experiments.studies.volatility import whole_intervals
from experiments.sweep.specification import Run

POLICIES = ("gh", "agh", "agh+")
NEVER = "never"


@study(policies=POLICIES, seeds=3)
def command(
    asked: Asked,
    problem: ProblemOption = None,
    scenario: ScenarioOption = "azure-2023",
    weights: Annotated[
        Numbers,
        numbers(
            "--weights", "Comma-separated: 0 ignores the price of moving, 1 is its true price, above 1 is reluctant."
        ),
    ] = Numbers((0, 0.25, 0.5, 1, 2, 4, 8)),
    sigma: Annotated[float, typer.Option(min=0, help="Of the logarithm of a rate, from interval to interval.")] = 0.04,
    interval: Annotated[Duration, duration("--interval", "Time between re-plans: 30s, 5m, 1h.")] = Duration("5m"),
    duration: Annotated[
        Duration, duration("--duration", "How long demand drifts: a whole number of intervals.")
    ] = Duration("24h"),
    provisioning: Annotated[
        float | None, typer.Option(min=0, help="Seconds to get a machine; default: the scenario's, else 60.")
    ] = None,
    load: Annotated[
        float | None, typer.Option(min=1e-9, help="GB of weights loaded per second; default: the scenario's, else 1.")
    ] = None,
    drain: Annotated[
        float | None, typer.Option(min=0, help="Seconds to drain a surplus replica; default: the longest delay SLO.")
    ] = None,
    effort: Annotated[
        int | None, typer.Option(min=1, help="How many fleets agh+ may route for each plan: more is better and slower.")
    ] = None,
) -> Design:
    """Churn against cost: re-plan under drifting demand, heeding what moving costs by more and more.

    Example: `tokenfleet study hysteresis --policy gh --policy agh+ --duration 24h --seeds 3 --out runs/hysteresis`
    """
    names = asked.policies
    step_s, steps = whole_intervals(interval, duration)
    ground, files = ground_option(problem, scenario)
    moving = {"provisioning_s": provisioning, "load_gb_per_s": load, "drain_s": drain}
    common = {
        "ground": ground,
        "sigma": sigma,
        "step_s": step_s,
        "steps": steps,
        "moving": {name: value for name, value in moving.items() if value is not None},
        "effort": effort,
    }
    runs = [
        Run(
            task="rolling_horizon",
            parameters={
                **common,
                "policy": name,
                "seed": seed,
                "weight": weight,
                "interval_s": None if weight is None else step_s,
            },
            label=f"{name}, {'never' if weight is None else f'weight {weight:g}'}, seed {seed}",
        )
        for name in names
        for weight in (*weights, None)
        for seed in range(asked.seeds)
    ]
    return Design(
        runs=runs,
        options={**common, "weights": weights, "policies": names, "seeds": asked.seeds},
        files=files,
    )


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """What each weight costs, against how much it moves."""
    del timing
    frame = frame.assign(
        churn_per_h=frame["replicas_started_per_h"] + frame["replicas_stopped_per_h"],
        penalties_usd=frame["delay_penalty_usd"] + frame["unmet_penalty_usd"],
    )
    rows, lines = [], []
    for policy in policies_of(frame):
        own = rows_where(frame, policy=policy)
        weights = values_of(own, "weight")
        for weight in [*weights, None]:
            here = rows_where(own, weight=weight)
            rows.append(
                [
                    policy,
                    NEVER if weight is None else f"{weight:g}",
                    cell(here, "cost_usd"),
                    cell(here, "rent_usd"),
                    cell(here, "penalties_usd"),
                    cell(here, "moving_usd"),
                    cell(here, "churn_per_h"),
                    cell(here, "intervals_changed", 1),
                    cell(here, "unmet_share", 2, 100),
                ]
            )
        parts = [rows_where(own, weight=weight) for weight in weights]
        lines.append(
            Line(
                name=policy,
                x=[mean_of(part, "churn_per_h") or 0.0 for part in parts],
                y=[mean_of(part, "cost_usd") for part in parts],
                labels=[f"{weight:g}" for weight in weights],
            )
        )
        most = max([*lines[-1].x, 1e-9])
        never = mean_of(rows_where(own, weight=None), "cost_usd")
        lines.append(
            Line(
                name=f"{policy}: never moves", x=[0.0, most], y=[never, never], group=policy, dashed=True, markers=False
            )
        )
    options = marker["options"]
    hours = options["steps"] * options["step_s"] / 3600
    return [
        Section(
            title="Hysteresis: churn against cost",
            text=[
                f"{frame['problem'].iloc[0]}: {hours:g} h in steps of {options['step_s'] / 60:g} min, "
                f"sigma {options['sigma']:g}. weight: how much of the price of moving a policy sees; "
                "never: the first fleet stays, routed anew by LP."
            ],
            tables=[
                Table(
                    title="By the weight of the price of moving",
                    columns=(
                        "policy",
                        "weight",
                        "total [USD]",
                        "rent",
                        "penalties",
                        "moving",
                        "churn [1/h]",
                        "fleet changes",
                        "unmet [%]",
                    ),
                    rows=rows,
                    labels=2,
                    note="Money of the whole horizon, moving at its true price. Churn: replicas started and stopped.",
                )
            ],
            charts=[
                LineChart(
                    key="hysteresis-frontier",
                    title="Churn against cost, by how much of the price of moving a policy heeds",
                    x_label="churn [replicas started or stopped per hour]",
                    y_label=f"cost of {hours:g} h [USD]",
                    lines=lines,
                )
            ],
        )
    ]
