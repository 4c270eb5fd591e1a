"""`tokenfleet study frontier`: what does it cost to violate less? Policies and their headroom, simulated."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from experiments.options import parse_duration_s, parse_factors, parse_numbers
from experiments.show.parts import Line, LineChart, Section, Table
from experiments.studies.conduct import (
    ClusterOption,
    JobsOption,
    JsonOption,
    OutOption,
    PolicyOption,
    ResumeOption,
    SeedsOption,
    conduct,
    policy_files,
    policy_names,
    refuse_other_folder,
)
from experiments.studies.replays import SERVICE, arrivals, changed, service
from experiments.studies.view import mean_of, policies_of, rows_where, values_of
from experiments.sweep.specification import Run
from experiments.terminal import ScenarioOption, Terminal
from simulator.errors import InputError

POLICIES = ("gh", "agh", "agh+", "headroom[1.3:agh]")
CAPS = "0.3,0.4,0.5,0.6,0.7,0.85,1"


def command(
    context: typer.Context,
    trace: Annotated[list[str] | None, typer.Argument(help="Trace files; none: the scenario's arrivals.")] = None,
    policy: PolicyOption = None,
    scenario: ScenarioOption = "azure-2023",
    caps: Annotated[
        str, typer.Option(help="Limits on the planned load of a replica, comma-separated: headroom.")
    ] = CAPS,
    factors: Annotated[str, typer.Option(help="How much worse the world is than planned.")] = "1.0,1.3",
    interval: Annotated[str, typer.Option(help="Time between re-plans.")] = "5m",
    seeds: SeedsOption = 3,
    out_dir: OutOption = None,
    resume: ResumeOption = True,
    jobs: JobsOption = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cost against violations, over policies and the headroom that they plan with.

    Example: `tokenfleet study frontier --policy gh --caps 0.4,0.7,1 --seeds 1 --out runs/frontier`
    """
    terminal: Terminal = context.obj
    refuse_other_folder(out_dir)
    names = policy_names(terminal, policy, POLICIES)
    limits, stress = parse_numbers(caps, "--caps"), parse_factors(factors)
    if not limits or not all(0 < cap <= 1 for cap in limits):
        raise InputError("--caps: expected numbers above 0 and up to 1")
    found, files = arrivals(terminal, scenario, trace, None, None, None)
    interval_s = parse_duration_s(interval, "--interval")
    runs = [
        Run(
            task="replay",
            parameters={
                **changed(found, limits__cap=cap),
                "interval_s": interval_s,
                "policy": name,
                "seed": seed,
                "delay_factor": factor,
                "error_factor": factor,
                "about": {"setting": f"cap {cap:g}", "inflated": "both", "factor": factor},
            },
            label=f"{name}, cap {cap:g}, factor {factor:g}, seed {seed}",
        )
        for name in names
        for cap in limits
        for factor in stress
        for seed in range(seeds)
    ]
    conduct(
        terminal,
        "frontier",
        runs,
        options={
            **found,
            "caps": limits,
            "factors": stress,
            "policies": names,
            "interval_s": interval_s,
            "seeds": seeds,
        },
        files=[*files, *policy_files(names)],
        view=view,
        out_dir=out_dir,
        resume=resume,
        jobs=jobs,
        cluster=cluster,
        as_json=as_json,
    )


def view(frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any]) -> list[Section]:
    """A point for each policy and headroom."""
    del timing, marker
    charts, tables, text = [], [], []
    for factor in values_of(frame, "factor"):
        here = rows_where(frame, factor=factor)
        settings = list(dict.fromkeys(here["setting"]))
        rows, lines, points = [], [], []
        for policy in policies_of(here):
            own = [rows_where(here, policy=policy, setting=setting) for setting in settings]
            rows += [[policy, setting, *service(part)] for setting, part in zip(settings, own, strict=True)]
            xy = [(mean_of(part, "cost_usd") or 0.0, 100 * (mean_of(part, "violation_share") or 0.0)) for part in own]
            points += [(policy, setting, *point) for setting, point in zip(settings, xy, strict=True)]
            lines.append(Line(name=policy, x=[x for x, _ in xy], y=[y for _, y in xy], labels=settings))
        text += _best(points, factor)
        tables.append(
            Table(
                title="At nominal" if factor == 1 else f"In a world {factor:g} times worse",
                columns=("policy", "headroom", *SERVICE),
                rows=rows,
                labels=2,
                note="cap: limit on the planned load of a replica; the smaller, the more headroom",
            )
        )
        charts.append(
            LineChart(
                key=f"frontier-{factor:g}".replace(".", "_"),
                title="Cost against violations" + ("" if factor == 1 else f", in a world {factor:g} times worse"),
                x_label="cost [USD]",
                y_label="violated [%]",
                lines=lines,
                from_zero=True,
            )
        )
    return [Section(title="The frontier of cost and violations", text=text, tables=tables, charts=charts)]


def _best(points: list[tuple[str, str, float, float]], factor: float) -> list[str]:
    """The cheapest that keeps violations under a few round figures."""
    where = "At nominal" if factor == 1 else f"At {factor:g} times the delay and error"
    found = []
    for most in (1.0, 5.0):
        kept = [point for point in points if point[3] <= most]
        if kept:
            policy, setting, cost, share = min(kept, key=lambda point: point[2])
            found.append(
                f"{where}, the cheapest with at most {most:g} % violated is {policy} at {setting}: {cost:.2f} USD, "
                f"{share:.2f} %."
            )
        else:
            least = points[int(np.argmin([point[3] for point in points]))]
            found.append(
                f"{where}, none has at most {most:g} % violated; the least is {least[3]:.2f} % "
                f"({least[0]}, {least[1]})."
            )
    return found
