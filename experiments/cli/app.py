"""The command line: `tokenfleet replay | plan | check | check-policy | stress | study | trace | trace-request | list`.

Standard output holds results only (with `--json` one object and nothing else); progress and messages go to standard
error. Exit codes: 0 done, 1 the run failed (or the checker refused the plan), 2 bad input, 130 interrupted.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from experiments.cli import list as listing
from experiments.cli.calibrate import command as calibrate
from experiments.cli.check import command as check
from experiments.cli.check_policy import findings_dict, findings_line, findings_table
from experiments.cli.fidelity import command as fidelity
from experiments.cli.measurements import command as measurements
from experiments.cli.plan import command as plan
from experiments.cli.report import command as report
from experiments.cli.results import command as results
from experiments.cli.trace import COMMANDS as TRACE_COMMANDS
from experiments.options import parse_duration_s, parse_reading, trace_files
from experiments.replay.run import Arriving, ReplayOptions, ReplayRun, horizon_of, replay_plan, replay_policy, survey
from experiments.replay.store import ReplayWriter, refuse_existing, run_directory, specification, to_json
from experiments.replay.timeline import read_life
from experiments.report.life import life_dict, life_lines
from experiments.report.replay_tables import replay_table, slo_table
from experiments.scenario.arrivals import stand_in
from experiments.scenario.calibration_notes import delay_remarks
from experiments.scenario.functions import PARAMETERS, UserFunctions, load_functions
from experiments.scenario.scenario import ForecastChoice, Scenario, load_scenario, with_delay_model, with_forecast
from experiments.show.progress import (
    FormatOption,
    Interrupted,
    MapOption,
    OnBadRowOption,
    QuarantineOption,
    StrictOption,
    Terminal,
    account_lines,
)
from experiments.show.terminal import print_table
from experiments.studies import STUDIES
from policies.conformance.suite import Status, run_checks
from policies.registry import make_policy
from simulator.delay import DELAY_MODELS
from simulator.engine import ChosenEngine, choose_engine
from simulator.errors import InputError, TokenfleetError
from simulator.planning.files import plan_to_dict, read_plan
from simulator.planning.policy import Policy, SearchProgress
from traces.forecast.registry import ORACLE, season_intervals
from traces.formats.registry import OnBadRow, Reading, TraceRead
from traces.source import TraceSource

app = typer.Typer(
    name="tokenfleet",
    help="Plan, replay and stress fleets of rented GPUs that serve LLM queries.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=False)
err = Console(stderr=True)

DEFAULT_POLICIES = ["gh", "agh", "milp"]
SHOWN_PROBLEMS = 20

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
SeedOption = Annotated[int, typer.Option(min=0, help="One seed, one result.")]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", help="Policy by name (`tokenfleet list policies`) or path/to/file.py:Class; repeatable."),
]
ScenarioOption = Annotated[
    str, typer.Option(help="Scenario by name (`tokenfleet list scenarios`) or path to a .toml file.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for results and figures, made whole or not at all.")
]
OverwriteOption = Annotated[bool, typer.Option(help="Replace an earlier run in --out.")]
EngineOption = Annotated[str, typer.Option(help="compiled or reference: the same results, the second far slower.")]
DelayModelOption = Annotated[
    str | None, typer.Option("--delay-model", help=f"{', '.join(DELAY_MODELS)}; default: the scenario's.")
]
FunctionOption = Annotated[
    str | None, typer.Option(help="Your own function, path/to/file.py:function (docs/extending.md).")
]


def main() -> None:
    """Entry point: run the command and turn errors into messages and exit codes."""
    try:
        app()
    except InputError as error:
        for problem in error.problems[:SHOWN_PROBLEMS]:
            _complain(f"error: {problem}")
        if len(error.problems) > SHOWN_PROBLEMS:
            _complain(f"... and {len(error.problems) - SHOWN_PROBLEMS} more")
        sys.exit(2)
    except TokenfleetError as error:
        _complain(f"failed: {error}")
        sys.exit(1)
    except Interrupted as error:
        _complain(f"interrupted: {error}")
        sys.exit(130)


def _complain(text: str) -> None:
    err.print(text, style="red" if err.is_terminal else None, markup=False, highlight=False, soft_wrap=True)


class Bars:
    """Named progress bars that also remember how far each has come. On anything but a terminal they are silent."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._reached: dict[str, str] = {}

    def start(self, name: str, horizon_s: float | None = None) -> Callable[[float], None]:
        """Start a bar; the function that is given back takes the share that is done, of a simulated horizon if any."""
        task = self._progress.add_task(escape(name), total=1.0)

        def update(done: float) -> None:
            simulated = "" if horizon_s is None else f" ({done * horizon_s / 60:.1f} of {horizon_s / 60:.1f} min)"
            self._reached[name] = f"{name} {done:.0%}{simulated}"
            self._progress.update(task, completed=done)
            self._progress.refresh()

        update(0.0)
        return update

    def search(self, name: str) -> Callable[[SearchProgress], None] | None:
        """Start a bar that shows how a search closes its gap; None where nobody would see it."""
        if self._progress.disable:
            self._reached[name] = f"{name} was searching"
            return None
        task = self._progress.add_task(escape(name), total=1.0)

        def update(progress: SearchProgress) -> None:
            cost, bound = progress.cost_usd, progress.bound_usd
            told = [name]
            told += [] if cost is None else [f"cost {cost:.4g} USD"]
            told += [] if bound is None else [f"bound {bound:.4g} USD"]
            if cost is not None and bound is not None:
                gap = max(0.0, cost - bound) / max(abs(cost), 1e-12)
                told.append(f"gap {gap:.2%}")
                self._progress.update(task, completed=1.0 - gap)
            self._reached[name] = ", ".join(told)
            self._progress.update(task, description=escape(", ".join(told)))
            self._progress.refresh()

        return update

    def reached(self) -> str:
        return ", ".join(self._reached.values()) or "nothing had begun"


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Give bars that redraw only when told to: a refreshing thread would write into the output that Pyomo captures.

    Raises
    ------
    Interrupted
        On Ctrl-C inside.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        auto_refresh=False,
        disable=not err.is_terminal,
    ) as progress:
        bars = Bars(progress)
        try:
            yield bars
        except KeyboardInterrupt:
            raise Interrupted(f"{bars.reached()}; nothing was written") from None


def engine_for(name: str, functions: UserFunctions) -> ChosenEngine:
    """The engine that can run these functions; a line on standard error where it is another one or has to be made."""
    chosen = choose_engine(name, functions.given())
    if chosen.warning:
        _complain(f"warning: {chosen.warning}")
    if chosen.notice:
        _complain(chosen.notice)
    return chosen


def functions_for(scenario: Scenario, **options: str | None) -> UserFunctions:
    """The user's functions: those of the scenario, unless the options name others."""
    places: dict[str, tuple[str, Path] | None] = {}
    for name in PARAMETERS:
        option, stated = options.get(name), getattr(scenario.file.engine, name)
        places[name] = (option, Path()) if option else (stated, scenario.folder) if stated else None
    return load_functions(places)


def survey_with_bar(
    bars: Bars, scenario: Scenario, source: TraceSource, count_every_s: float | None = None
) -> Arriving:
    """Look at a whole trace before anything runs; see `experiments.replay.run.survey`."""
    step = bars.start("reading the trace")
    arriving = survey(scenario, source, count_every_s=count_every_s)
    step(1.0)
    return arriving


def say(text: str) -> None:
    """A line of plain text on standard output, never broken or marked up."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """A line on standard error that does not stop anything."""
    _complain(f"warning: {text}")


def note(text: str) -> None:
    """A line on standard error that is good to know."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    sys.stdout.write(to_json(value))


def make_policies(names: Sequence[str] | None, default: Sequence[str]) -> list[Policy]:
    """Policies by the names given, each once, with all unknown names reported together."""
    policies: list[Policy] = []
    problems: list[str] = []
    for name in dict.fromkeys(names or default):
        try:
            policies.append(make_policy(name))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return policies


@app.command()
def replay(
    trace: Annotated[
        list[str] | None, typer.Argument(help="Trace files, PATH or SOURCE=PATH; none: the synthetic hour.")
    ] = None,
    policy: PolicyOption = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="Replay this plan file instead of a policy.")] = None,
    scenario: ScenarioOption = "azure-2023",
    interval: Annotated[str, typer.Option(help="Time between re-plans: 30s, 5m, 1h.")] = "5m",
    forecast: Annotated[
        str | None,
        typer.Option(help="Forecaster (`tokenfleet list forecasters`), NAME or NAME:p90; default: the scenario's."),
    ] = None,
    delay_model: DelayModelOption = None,
    seed: SeedOption = 0,
    out_dir: OutOption = None,
    overwrite: OverwriteOption = False,
    trace_format: FormatOption = None,
    columns: MapOption = None,
    on_bad_row: OnBadRowOption = OnBadRow.ERROR,
    quarantine: QuarantineOption = None,
    strict: StrictOption = False,
    engine: EngineOption = "compiled",
    step_time: FunctionOption = None,
    admission: FunctionOption = None,
    router: FunctionOption = None,
    token_log: Annotated[
        bool, typer.Option("--token-log", help="Log every step, for trace-request. Needs --out; kept in memory.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Replay a trace against the fleet that each policy plans, re-planning at intervals.

    Example: `tokenfleet replay conv.csv code.csv --policy gh --policy agh --policy milp --interval 5m --out runs/azure`
    """
    interval_s = parse_duration_s(interval, "--interval")
    if plan is not None and policy:
        raise InputError("--plan and --policy exclude each other: a replay follows a plan or a policy")
    if token_log and out_dir is None:
        raise InputError("--token-log needs --out: the log is part of the run directory")
    if out_dir is not None:
        refuse_existing(out_dir, overwrite=overwrite)
    chosen = load_scenario(scenario)
    if delay_model is not None:
        chosen = with_delay_model(chosen, delay_model)
    for remark in delay_remarks(chosen):
        note(remark)
    if forecast is not None:
        if plan is not None:
            raise InputError("--plan and --forecast exclude each other: a plan that is given needs no forecast")
        chosen = with_forecast(chosen, forecast)
    if plan is None:  # before a long trace is read
        season_intervals(chosen.file.forecast.method, chosen.file.forecast.season_s, interval_s)
    fixed = read_plan(plan) if plan is not None else None
    policies = [] if fixed else make_policies(policy, DEFAULT_POLICIES)
    functions = functions_for(chosen, step_time=step_time, admission=admission, router=router)
    options = ReplayOptions(
        interval_s=interval_s,
        seed=seed,
        engine=engine_for(engine, functions),
        functions=functions,
        token_log=token_log,
    )
    reading = parse_reading(trace_format, columns, on_bad_row, quarantine, strict)
    names = trace or [f"synthetic:{chosen.file.synthetic.profile}"]
    with progress_bars() as bars, ExitStack() as stack:
        counted = interval_s if chosen.file.forecast.method == ORACLE else None
        arriving = survey_with_bar(bars, chosen, _trace_source(trace, chosen, seed, reading), counted)
        writer = None
        if out_dir is not None:
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
                "interval_s": interval_s,
                "forecast": forecast,
                "seed": seed,
                "on_bad_row": str(on_bad_row),
                "strict": strict,
                "format": trace_format,
                "map": columns,
                "functions": {"step_time": step_time, "admission": admission, "router": router},
                "token_log": token_log,
            }
            writer.finish(chosen, runs, specification(chosen, arriving.survey, names, asked))
            from experiments.report import replay_figures

            figures = [path.name for path in replay_figures.draw_replay(folder)]
    reads = arriving.survey.reads
    skipped = sum(read.rows_skipped for read in reads)
    if as_json:
        result = {"runs": [{**run.summary, **asdict(run.machine)} for run in runs]}
        print_json({**result, "rows_skipped": skipped} if skipped else result)
        return
    found = arriving.survey
    setting = f"scenario {chosen.name}, seed {seed}{_planned_for(chosen)}"
    say(f"{found.requests:,} requests over {found.span_s / 60:.1f} min, {setting}")
    print_table(out, replay_table([{**run.summary, **asdict(run.machine)} for run in runs]))
    if "percentile_slos" in runs[0].summary:
        print_table(out, slo_table([run.summary for run in runs]))
    if not all(run.summary["quantiles_exact"] for run in runs):
        say("quantiles: to within 0.05 % of their value (more than a million requests)")
    _tell_about_rows(reads)
    _tell_about_time_limits(runs)
    if out_dir is not None:
        say(f"results and figures in {out_dir}: {', '.join(figures)}")


def _planned_for(scenario: Scenario) -> str:
    """The forecast, where it is not the ordinary one."""
    label = scenario.file.forecast.label
    return "" if label == ForecastChoice().label else f", forecast {label}"


def _trace_source(paths: list[str] | None, scenario: Scenario, seed: int, reading: Reading) -> TraceSource:
    if paths:
        return trace_files(paths, reading)
    return stand_in(scenario, seed=seed)


def _tell_about_rows(reads: Sequence[TraceRead]) -> None:
    for read in reads:
        for line in account_lines(read):
            say(line)


def _tell_about_time_limits(runs: Sequence[ReplayRun]) -> None:
    for run in runs:
        if run.summary["time_limits_hit"]:
            err.print(
                f"warning: {run.policy} hit its time limit {run.summary['time_limits_hit']} times: "
                "these results depend on the speed of this machine",
                highlight=False,
            )


@app.command("check-policy")
def check_policy(
    policy: Annotated[
        str, typer.Argument(help="Policy by name (`tokenfleet list policies`) or path/to/file.py:Class.")
    ],
    problems: Annotated[int, typer.Option(min=1, help="How many random problems it has to plan.")] = 25,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Judge a policy, shipped or your own, by what every policy owes to its callers; exit code 1 if a check fails.

    Its plans are feasible, its cost and bounds true; it repeats itself, changes nothing, keeps its time limit, and
    takes any incumbent.

    Example: `tokenfleet check-policy gh`
    """
    with progress_bars() as bars:
        step = bars.start(policy)
        with redirect_stdout(sys.stderr):  # what a policy prints is no result
            findings = run_checks(policy, problems=problems, seed=seed, progress=step)
        step(1.0)
    if as_json:
        print_json(findings_dict(policy, findings, problems=problems, seed=seed))
    else:
        out.print(findings_table(findings))
        say(findings_line(policy, findings, seed))
    if any(finding.status is Status.FAILED for finding in findings):
        raise typer.Exit(1)


@app.callback()
def root(context: typer.Context) -> None:
    """Plan, replay and stress fleets of rented GPUs that serve LLM queries."""
    context.obj = Terminal(out, say, warn, note, print_json, make_policies, progress_bars)


app.command("plan")(plan)
app.command("check")(check)
app.command("stress", short_help="Plan at nominal, then let delay and error be worse.")(STUDIES["stress"].command)
app.command("report", short_help="A page of what a run directory holds.")(report)
app.command("results", short_help="Ask the tables of a run directory in SQL.")(results)
app.command("calibrate", short_help="Fit the delay model to measured step times.")(calibrate)
app.command("measurements", short_help="Rows for calibrate from vLLM benchmark runs.")(measurements)
app.command("fidelity", short_help="How far is the simulation from measured runs of real engines?")(fidelity)

study_app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(study_app, name="study")


@study_app.callback()
def study(context: typer.Context) -> None:
    """Questions that take many plans to answer, each with its table and figure (docs/studies.md).

    Example: `tokenfleet study hysteresis --policy gh --duration 6h --seeds 1`
    """
    context.obj = Terminal(out, say, warn, note, print_json, make_policies, progress_bars)


for _name, _study in STUDIES.items():
    if _name != "stress":  # a command of its own
        study_app.command(_name, short_help=_study.summary)(_study.command)


trace_app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(trace_app, name="trace")


@trace_app.callback()
def trace_group(context: typer.Context) -> None:
    """Read, describe, fetch, make, compare and forecast traces (docs/traces.md).

    Example: `tokenfleet trace describe AzureLLMInferenceTrace_conv.csv`
    """
    context.obj = Terminal(out, say, warn, note, print_json, make_policies, progress_bars)


for _name, _command in TRACE_COMMANDS.items():
    trace_app.command(_name, short_help=_command.summary)(_command.command)


@app.command("trace-request")
def trace_request(
    request: Annotated[int, typer.Argument(min=0, help="Number of the request: `request` in requests.parquet.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory of a replay with --token-log.")],
    policy: Annotated[str | None, typer.Option("--policy", help="Which run, where there are several.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="A line for each token.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what one request went through: queue, prefill chunks, tokens, preemptions, failures.

    Example: `tokenfleet trace-request 17 runs/azure --policy gh`
    """
    life = read_life(directory, request, policy)
    if as_json:
        print_json(life_dict(life))
        return
    for line in life_lines(life, tokens=tokens):
        say(line)


@app.command("list")
def list_command(
    what: Annotated[str, typer.Argument(help="policies, scenarios, models, gpus, traces or forecasters")],
    as_json: JsonOption = False,
) -> None:
    """List what is there, with units and sources.

    Example: `tokenfleet list gpus`
    """
    rows, table = listing.listing(what)
    if as_json:
        sys.stdout.write(json.dumps({what: rows}, indent=1) + "\n")
    else:
        out.print(table)


if __name__ == "__main__":
    main()
