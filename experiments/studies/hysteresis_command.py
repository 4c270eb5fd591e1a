"""`tokenfleet study hysteresis`: its options, its table and its files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.options import parse_duration_s
from experiments.scenario import EngineChoice, load_scenario
from experiments.store import MARKER, refuse_existing, run_directory, to_json, versions
from experiments.stress import nominal_problem
from experiments.studies.hysteresis import Outcome, means, sweep
from experiments.terminal import (
    JsonOption,
    OutOption,
    OverwriteOption,
    PolicyOption,
    ProblemOption,
    ScenarioOption,
    Terminal,
)
from simulator.errors import InputError
from simulator.files import read_problem
from simulator.policy import StoppingRule
from simulator.problem import MovingTerms, PlanningProblem

DEFAULT_POLICIES = ["gh", "agh", "agh+"]
SECONDS_PER_H = 3600.0
WHOLE = 1e-9  # relative: rounding in a duration over an interval

ROWS = (  # label, measure, digits, factor, whether a section ends; labels are short: a narrow terminal holds the table
    ("total [USD]", "total_usd", 2, 1, False),
    ("  rent", "rent_usd", 2, 1, False),
    ("  storage", "storage_usd", 2, 1, False),
    ("  delay penalty", "delay_penalty_usd", 2, 1, False),
    ("  unmet penalty", "unmet_penalty_usd", 2, 1, False),
    ("  moving", "moving_usd", 2, 1, True),
    ("churn [1/h]", "churn_per_h", 2, 1, False),
    ("  started", "replicas_started_per_h", 2, 1, False),
    ("  stopped", "replicas_stopped_per_h", 2, 1, False),
    ("GPUs started/h", "gpus_started_per_h", 2, 1, False),
    ("fleet changes", "intervals_changed", 1, 1, True),
    ("no plan", "intervals_infeasible", 1, 1, False),
    ("unserved", "intervals_unserved", 1, 1, False),
    ("unmet [%]", "unmet_share", 2, 100, False),
    ("planning [s]", "planning_s", 1, 1, False),
)


def command(
    context: typer.Context,
    policy: PolicyOption = None,
    problem: ProblemOption = None,
    scenario: ScenarioOption = "azure-2023",
    weights: Annotated[
        str,
        typer.Option(help="Comma-separated: 0 ignores what moving costs, 1 is its true price, above 1 is reluctant."),
    ] = "0,0.25,0.5,1,2,4,8",
    sigma: Annotated[float, typer.Option(min=0, help="Of the logarithm of a rate, from interval to interval.")] = 0.04,
    interval: Annotated[str, typer.Option(help="Time between re-plans: 30s, 5m, 1h.")] = "5m",
    duration: Annotated[str, typer.Option(help="How long demand drifts: a whole number of intervals.")] = "24h",
    seeds: Annotated[int, typer.Option(min=1, help="Walks of the demand: seeds 0, 1, ...")] = 3,
    provisioning: Annotated[
        float | None, typer.Option(min=0, help="Seconds to get a machine; default: the scenario's, else 60.")
    ] = None,
    load: Annotated[
        float | None, typer.Option(help="GB of weights loaded per second; default: the scenario's, else 1.")
    ] = None,
    drain: Annotated[
        float | None, typer.Option(min=0, help="Seconds to drain a surplus replica; default: the longest delay SLO.")
    ] = None,
    effort: Annotated[
        int | None, typer.Option(min=1, help="How many fleets agh+ may route for each plan: more is better and slower.")
    ] = None,
    out_dir: OutOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Churn against cost: re-plan under drifting demand, heeding what moving costs by more and more.

    Example: `tokenfleet study hysteresis --policy gh --policy agh+ --duration 24h --seeds 3 --out runs/hysteresis`
    """
    terminal: Terminal = context.obj
    asked = parse_weights(weights)
    interval_s, duration_s = parse_duration_s(interval, "--interval"), parse_duration_s(duration, "--duration")
    intervals = round(duration_s / interval_s)
    if intervals < 1 or abs(intervals * interval_s - duration_s) > WHOLE * duration_s:
        raise InputError(f"--duration: {duration} is no whole number of intervals of {interval}")
    if not math.isfinite(sigma):
        raise InputError(f"--sigma: {sigma} is no number")
    if out_dir is not None:
        refuse_existing(out_dir, overwrite=overwrite)
    policies = terminal.make_policies(policy, DEFAULT_POLICIES)
    data, stop = _problem_and_rule(problem, scenario)
    terms = _terms(data, provisioning, load, drain)
    with terminal.progress_bars() as bars:
        outcomes = sweep(
            replace(data, moving=terms),
            policies,
            asked,
            intervals=intervals,
            interval_h=interval_s / SECONDS_PER_H,
            sigma=sigma,
            seeds=range(seeds),
            stop=replace(stop, effort=effort),
            progress=bars.start("hysteresis"),
        )
    averaged = means(outcomes)
    options = {
        "policies": [item.name for item in policies],
        "weights": asked,
        "sigma": sigma,
        "interval_s": interval_s,
        "intervals": intervals,
        "seeds": list(range(seeds)),
        "provisioning_s": terms.provisioning_s,
        "load_gb_per_s": terms.load_gb_per_s,
        "drain_s": terms.drain_s,
        "effort": effort,
    }
    walks = f"{seeds} walk" + "s" * (seeds > 1)
    setting = f"{data.name}: {walks} of {intervals} intervals of {interval_s / 60:g} min, sigma {sigma:g}"
    if out_dir is not None:
        with run_directory(out_dir, overwrite=overwrite) as folder:
            _write(folder, outcomes, averaged, {"problem": data.name, "options": options}, setting)
    if as_json:
        result = {"problem": data.name, "options": options, "runs": [outcome.to_dict() for outcome in outcomes]}
        terminal.print_json({**result, "means": [_without_machine_time(mean) for mean in averaged]})
        return
    terminal.say(setting)
    for item in policies:
        terminal.out.print(hysteresis_table([mean for mean in averaged if mean["policy"] == item.name]))
    terminal.say(
        f"mean of the walks, money of the whole horizon; a start takes {terms.provisioning_s:g} s and the weights at "
        f"{terms.load_gb_per_s:g} GB/s, draining {terms.drain_s:g} s"
    )
    terminal.say(
        "weight: how much of the price of moving the policy sees; never: the first fleet stays, routed anew by LP"
    )
    if out_dir is not None:
        terminal.say(f"results and figure in {out_dir}: hysteresis.parquet, hysteresis.png, hysteresis.svg")


def parse_weights(text: str) -> list[float]:
    """Comma-separated weights from zero on, rising and each once.

    Raises
    ------
    InputError
        Naming the first that is none.
    """
    weights = set()
    for item in text.split(","):
        try:
            weight = float(item)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"--weights: {item.strip()!r} is no weight from zero on; expected for instance 0,0.5,1,2")
        weights.add(weight)
    return sorted(weights)


def _problem_and_rule(file: Path | None, scenario: str) -> tuple[PlanningProblem, StoppingRule]:
    """No time limit: a plan that depends on the machine would make two equal runs differ."""
    if file is not None:
        return read_problem(file), StoppingRule()
    chosen = load_scenario(scenario)
    return nominal_problem(chosen), replace(chosen.file.stop.rule(), time_limit_s=None)


def _terms(
    problem: PlanningProblem, provisioning_s: float | None, load_gb_per_s: float | None, drain_s: float | None
) -> MovingTerms:
    """What the problem states, else what a scenario that says nothing gets; the options come first."""
    stated, engine = problem.moving, EngineChoice()
    terms = stated or MovingTerms(
        provisioning_s=engine.provisioning_s,
        load_gb_per_s=engine.load_gb_per_s,
        drain_s=float(problem.delay_slo_s.max()),
    )
    asked = {"provisioning_s": provisioning_s, "load_gb_per_s": load_gb_per_s, "drain_s": drain_s}
    terms = replace(terms, **{name: value for name, value in asked.items() if value is not None})
    if not (terms.load_gb_per_s > 0 and all(map(math.isfinite, (terms.provisioning_s, terms.drain_s)))):
        raise InputError("--provisioning and --drain: expected seconds; --load: expected GB/s above zero")
    return terms


def hysteresis_table(averaged: Sequence[Mapping[str, Any]]) -> Table:
    """One policy: a column per weight, so that a reader compares along the rows."""
    table = Table(
        title=escape(averaged[0]["policy"]),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    table.add_column("weight", no_wrap=True)
    for mean in averaged:
        table.add_column("never" if mean["weight"] is None else f"{mean['weight']:g}", justify="right", overflow="fold")
    for label, name, digits, factor, section in ROWS:
        cells = [f"{mean[name] * factor:,.{digits}f}" for mean in averaged]
        table.add_row(Text(label), *cells, end_section=section)  # text: a unit like [s] is no markup
    return table


def _without_machine_time(mean: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in mean.items() if name != "planning_s"}


def _write(
    folder: Path,
    outcomes: Sequence[Outcome],
    averaged: Sequence[Mapping[str, Any]],
    what: Mapping[str, Any],
    setting: str,
) -> None:
    """`timing.json` holds what depends on the machine; all other files are the same, byte for byte, between runs."""
    marker = {"format": "tokenfleet-study/1", "study": "hysteresis", **what, "versions": versions()}
    (folder / MARKER).write_text(to_json(marker), "utf-8")
    frame = pd.DataFrame([outcome.to_dict() for outcome in outcomes]).astype({"weight": "float64"})
    frame.to_parquet(folder / "hysteresis.parquet", index=False)
    timing = [{"policy": o.policy, "weight": o.weight, "seed": o.seed, "planning_s": o.planning_s} for o in outcomes]
    (folder / "timing.json").write_text(to_json({"runs": timing}), "utf-8")
    from experiments.studies.hysteresis_figure import draw  # here: Matplotlib takes longer to load than most commands

    draw(averaged, setting=setting, folder=folder)
