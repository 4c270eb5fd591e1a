"""`tokenfleet replay`: a trace against the fleet that each policy plans, or against a plan that is given."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.inputs import account_lines
from experiments.options import (
    DelayModelOption,
    Duration,
    EngineOption,
    FunctionOption,
    JsonOption,
    OutOption,
    OverwriteOption,
    PolicyOption,
    ScenarioOption,
    SeedOption,
    duration,
    make_policies,
    takes,
    trace_files,
    trace_reading,
)
from experiments.replay.directory import refuse_existing, run_directory
from experiments.replay.run import ReplayOptions, ReplayRun, horizon_of, replay_plan, replay_policy, survey
from experiments.report.replay_tables import replay_table, slo_table
from experiments.scenario.arrivals import stand_in
from experiments.scenario.functions import PARAMETERS, UserFunctions, load_functions
from experiments.scenario.notes import scenario_notes
from experiments.scenario.scenario import Scenario, load_scenario, with_delay_model, with_forecast
from experiments.scenario.schema import ForecastChoice
from experiments.show.progress import Terminal
from experiments.show.terminal import print_table
from simulator.engine import ChosenEngine, choose_engine
from simulator.errors import InputError
from simulator.planning.files import plan_to_dict, read_plan
from simulator.replica.port import Discipline
from traces.forecast.registry import ORACLE, season_intervals
from traces.formats.registry import Reading

DEFAULT_POLICIES = ("gh", "agh", "milp")


@takes(reading=trace_reading)
def command(
    context: typer.Context,
    trace: Annotated[
        list[str] | None, typer.Argument(help="Trace files, PATH or SOURCE=PATH; none: the synthetic hour.")
    ] = None,
    policy: PolicyOption = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="Replay this plan file instead of a policy.")] = None,
    scenario: ScenarioOption = "azure-2023",
    interval: Annotated[Duration, duration("--interval", "Time between re-plans: 30s, 5m, 1h.")] = Duration("5m"),
    forecast: Annotated[
        str | None,
        typer.Option(help="Forecaster (`tokenfleet list forecasters`), NAME or NAME:p90; default: the scenario's."),
    ] = None,
    delay_model: DelayModelOption = None,
    seed: SeedOption = 0,
    out_dir: OutOption = None,
    overwrite: OverwriteOption = False,
    *,
    reading: Reading,
    engine: EngineOption = "compiled",
    step_time: FunctionOption = None,
    admission: FunctionOption = None,
    router: FunctionOption = None,
    token_log: Annotated[
        bool, typer.Option("--token-log", help="Log every step, for follow. Needs --out; kept in memory.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Replay a trace against the fleet that each policy plans, re-planning at intervals.

    Example: `tokenfleet replay conv.csv code.csv --policy gh --policy agh --policy milp --interval 5m --out runs/azure`
    """
    terminal: Terminal = context.obj
    if plan is not None and policy:
        raise InputError("--plan and --policy exclude each other: a replay follows a plan or a policy")
    if token_log and out_dir is None:
        raise InputError("--token-log needs --out: the log is part of the run directory")
    if out_dir is not None:
        refuse_existing(out_dir, overwrite=overwrite)
    chosen = load_scenario(scenario)
    if delay_model is not None:
        chosen = with_delay_model(chosen, delay_model)
    for note in scenario_notes(chosen):
        terminal.note(note)
    if forecast is not None:
        if plan is not None:
            raise InputError("--plan and --forecast exclude each other: a plan that is given needs no forecast")
        chosen = with_forecast(chosen, forecast)
    if plan is None:  # before a long trace is read
        season_intervals(chosen.file.forecast.method, chosen.file.forecast.season_s, interval.seconds)
    fixed = read_plan(plan) if plan is not None else None
    policies = [] if fixed else make_policies(policy or DEFAULT_POLICIES)
    functions = _functions(chosen, step_time=step_time, admission=admission, router=router)
    options = ReplayOptions(
        interval_s=interval.seconds,
        seed=seed,
        engine=_engine(terminal, engine, functions, chosen.discipline),
        functions=functions,
        token_log=token_log,
    )
    with terminal.progress_bars() as bars, ExitStack() as stack:
        step = bars.start("reading the trace")
        source = trace_files(trace, reading) if trace else stand_in(chosen, seed=seed)
        counted = interval.seconds if chosen.file.forecast.method == ORACLE else None
        arriving = survey(chosen, source, count_every_s=counted)
        step(1.0)
        writer = None
        if out_dir is not None:
            from experiments.replay.store import ReplayWriter, specification

            folder = stack.enter_context(run_directory(out_dir, overwrite=overwrite))
            writer = stack.enter_context(ReplayWriter(folder, arriving.survey.sources))
        horizon_s = horizon_of(arriving.survey.span_s)
        runs: list[ReplayRun] = []
        if fixed is not None:
            name = f"plan[{fixed.policy}]"
            sink = writer.sink(name, seed) if writer else None
            step = bars.start(name, horizon_s)
            runs.append(replay_plan(chosen, arriving, fixed, options, sink=sink, progress=step))
            step(1.0)
        for item in policies:
            sink = writer.sink(item.name, seed) if writer else None
            step = bars.start(item.name, horizon_s)
            runs.append(replay_policy(chosen, arriving, item, options, sink=sink, progress=step))
            step(1.0)
        figures: list[str] = []
        if writer is not None:
            asked = {
                "policies": [run.policy for run in runs],
                "plan": None if fixed is None else {**plan_to_dict(fixed), "seconds": None},
                "interval_s": interval.seconds,
                "forecast": forecast,
                "seed": seed,
                "on_bad_row": str(reading.on_bad_row),
                "strict": reading.strict,
                "format": reading.trace_format,
                "map": [f"{holds}={name}" for holds, name in reading.columns.items()] or None,
                **reading.stated_units(),
                "functions": {"step_time": step_time, "admission": admission, "router": router},
                "token_log": token_log,
            }
            names = trace or [f"synthetic:{chosen.file.synthetic.profile}"]
            writer.finish(chosen, runs, specification(chosen, arriving.survey, names, asked))
            from experiments.report import replay_figures  # its tables take longer to load than most commands

            figures = [path.name for path in replay_figures.draw_replay(folder)]
    found = arriving.survey
    skipped = sum(read.rows_skipped for read in found.reads)
    if as_json:
        for read in found.reads:
            for line in account_lines(read):
                terminal.warn(line)
        result = {"runs": [{**run.summary, **asdict(run.machine)} for run in runs]}
        terminal.print_json({**result, "rows_skipped": skipped} if skipped else result)
        return
    setting = f"scenario {chosen.name}, seed {seed}{_planned_for(chosen)}"
    terminal.say(f"{found.requests:,} requests over {found.span_s / 60:.1f} min, {setting}")
    _show(terminal, runs)
    for read in found.reads:
        for line in account_lines(read):
            terminal.say(line)
    for run in runs:
        if run.summary["time_limits_hit"]:
            terminal.warn(
                f"{run.policy} hit its time limit {run.summary['time_limits_hit']} times: "
                "these results depend on the speed of this machine"
            )
    if out_dir is not None:
        terminal.say(f"results and figures in {out_dir}: {', '.join(figures)}")


def _functions(scenario: Scenario, **options: str | None) -> UserFunctions:
    """The user's functions: those of the scenario, unless the options name others."""
    places: dict[str, tuple[str, Path] | None] = {}
    for name in PARAMETERS:
        option, stated = options.get(name), getattr(scenario.file.engine, name)
        places[name] = (option, Path()) if option else (stated, scenario.folder) if stated else None
    return load_functions(places)


def _engine(terminal: Terminal, name: str, functions: UserFunctions, discipline: Discipline) -> ChosenEngine:
    """The engine that can run these functions; a line on standard error where it is another one or has to be made."""
    chosen = choose_engine(name, functions.given(), discipline)
    if chosen.warning:
        terminal.warn(chosen.warning)
    if chosen.notice:
        terminal.note(chosen.notice)
    return chosen


def _planned_for(scenario: Scenario) -> str:
    """The forecast, where it is not the ordinary one."""
    label = scenario.file.forecast.label
    return "" if label == ForecastChoice().label else f", forecast {label}"


def _show(terminal: Terminal, runs: Sequence[ReplayRun]) -> None:
    summaries = [{**run.summary, **asdict(run.machine)} for run in runs]
    print_table(terminal.out, replay_table(summaries))
    if "percentile_slos" in summaries[0]:
        print_table(terminal.out, slo_table(summaries))
    if not all(summary["quantiles_exact"] for summary in summaries):
        terminal.say("quantiles: to within 0.05 % of their value (more than a million requests)")
