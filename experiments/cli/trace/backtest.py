"""`tokenfleet trace backtest`: how good each forecaster would have been on a trace; options, table and files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from experiments.cli.inputs import survey_input
from experiments.options import (
    Duration,
    JsonOption,
    OutOption,
    OverwriteOption,
    duration,
    takes,
    trace_files,
    trace_reading,
)
from experiments.replay.directory import MARKER, refuse_existing, run_directory, versions
from experiments.show.atomic_write import to_json
from experiments.show.progress import Terminal
from simulator.errors import InputError
from traces.forecast.backtest import LEVELS, Backtest, backtest
from traces.forecast.counts import HOUR_S, RequestCounter, ServiceCounts, is_count_table, read_count_table
from traces.forecast.registry import FORECASTERS, refuse_unknown, season_intervals
from traces.formats.registry import Reading
from traces.synthetic.profile import list_profiles, read_profile


@takes(reading=trace_reading)
def command(
    context: typer.Context,
    file: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Trace files, PATH or SOURCE=PATH; or one table of requests per hour; or a profile that has them.",
        ),
    ],
    forecaster: Annotated[
        list[str] | None,
        typer.Option("--forecaster", help="By name (`tokenfleet list forecasters`); repeatable; default: all."),
    ] = None,
    interval: Annotated[Duration, duration("--interval", "Length of the intervals that are forecast.")] = Duration(
        "1h"
    ),
    season: Annotated[
        Duration, duration("--season", "After how long demand repeats: a whole number of intervals.")
    ] = Duration("24h"),
    horizon: Annotated[int, typer.Option(min=1, help="How many intervals ahead: 1 is the next one.")] = 1,
    warmup: Annotated[
        str | None, typer.Option(help="What is seen before scores count; default: one season. 0 scores all.")
    ] = None,
    weight: Annotated[float, typer.Option(help="Weight of the latest interval in ewma and seasonal.")] = 0.5,
    *,
    reading: Reading,
    out_dir: OutOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Forecast each interval of a trace from those before it, and score every forecaster on what came.

    Example: `tokenfleet trace backtest conv.csv code.csv --interval 5m --season 1h --forecaster ewma`
    """
    terminal: Terminal = context.obj
    names = _forecasters(forecaster)
    interval_s, season_s = interval.seconds, season.seconds
    if not 0 < weight <= 1:
        raise InputError(f"--weight: expected a number above 0 and at most 1, found {weight:g}")
    seasons = {name: season_intervals(name, season_s, interval_s) for name in names}
    first = max(horizon, _warmup_intervals(warmup, season_s, interval_s))
    if out_dir is not None:
        refuse_existing(out_dir, overwrite=overwrite)
    services = _counts(terminal, file, reading, interval_s)
    _refuse_short(services, first, str(interval))
    with terminal.progress_bars() as bars:
        step = bars.start("backtest")
        runs: list[Backtest] = []
        for number, service in enumerate(services, start=1):
            runs += [
                backtest(name, service, season=seasons[name], first=first, horizon=horizon, weight=weight)
                for name in names
            ]
            step(number / len(services))
    options = {
        "files": [Path(item).name for item in file],
        "interval_s": interval_s,
        "season_s": season_s,
        "horizon": horizon,
        "warmup_s": first * interval_s,
        "weight": weight,
    }
    result = {"options": options, "scores": [run.to_dict() for run in runs]}
    if out_dir is not None:
        with run_directory(out_dir, overwrite=overwrite) as folder:
            _write(folder, result, runs)
    if as_json:
        terminal.print_json(result)
        return
    for service in services:
        terminal.say(
            f"{service.service}: {len(service.counts):,} intervals of {interval}, scored from number {first} on, "
            f"forecast {horizon} ahead, season {season}"
        )
        terminal.out.print(scores_table([run for run in runs if run.service == service.service]))
    terminal.say("p50, p90, p95: pinball loss over the mean; below: intervals whose count was not above the quantile")
    if out_dir is not None:
        terminal.say(f"results in {out_dir}: backtest.json, forecasts.parquet")


def _forecasters(names: Sequence[str] | None) -> list[str]:
    problems = []
    for name in names or ():
        try:
            refuse_unknown(name)
        except InputError as error:
            problems += [f"--forecaster: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(names or FORECASTERS))


def _warmup_intervals(warmup: str | None, season_s: float, interval_s: float) -> int:
    """Whole intervals, the one that the warm-up ends in among them."""
    if warmup is not None and warmup.strip() == "0":
        return 0
    warmup_s = season_s if warmup is None else Duration(warmup, "--warmup").seconds
    return int(-(-warmup_s // interval_s))


def _counts(terminal: Terminal, files: Sequence[str], reading: Reading, interval_s: float) -> list[ServiceCounts]:
    """Counts per interval by service, from whatever was given."""
    if len(files) == 1:
        hourly = _hourly_counts(files[0])
        if hourly is not None:
            if interval_s != HOUR_S:
                raise InputError(f"--interval: {files[0]} has counts of whole hours: expected 1h")
            return hourly
    counter = RequestCounter(interval_s)
    survey_input(terminal, trace_files(files, reading), counter.look_at)
    return counter.services()


def _hourly_counts(name: str) -> list[ServiceCounts] | None:
    """Counts per hour from a table or a profile, None if it is neither.

    Raises
    ------
    InputError
        If it cannot be used, or is a profile without such counts.
    """
    if is_count_table(Path(name)):
        return read_count_table(Path(name))
    if not name.endswith(".toml") and (name not in list_profiles() or Path(name).exists()):
        return None
    sources = read_profile(name).sources
    if not all(source.requests_per_h for source in sources):
        raise InputError(f"{name}: this profile has no counts per hour (requests_per_h): nothing can be forecast")
    return [ServiceCounts(source.name, np.array(source.requests_per_h)) for source in sources]


def _refuse_short(services: Sequence[ServiceCounts], first: int, interval: str) -> None:
    for service in services:
        if len(service.counts) <= first:
            raise InputError(
                f"{service.service}: {len(service.counts)} whole intervals of {interval} leave none to score after the "
                f"first {first}: choose a shorter --interval, --warmup, --season or --horizon"
            )


def scores_table(runs: Sequence[Backtest]) -> Table:
    """A row for each forecaster of one service, everything but the machine time in per cent."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column(Text("[%]"), no_wrap=True)
    planned = list(LEVELS)[1:]
    for heading in ("MAPE", "WAPE", *LEVELS, *(f"below {level}" for level in planned), "seconds"):
        table.add_column(heading, justify="right")
    for run in runs:
        score = run.score()
        losses = [_percent(score.pinball[level], 2) for level in LEVELS]
        covers = [_percent(score.coverage[level], 1) for level in planned]
        cells = [_percent(score.mape, 1), _percent(score.wape, 1), *losses, *covers, f"{run.seconds:.2f}"]
        table.add_row(Text(run.forecaster), *cells)
    return table


def _percent(share: float | None, digits: int) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f}"


def _write(folder: Path, result: dict[str, Any], runs: Sequence[Backtest]) -> None:
    """Everything here is the same, byte for byte, between runs."""
    marker = {"format": "tokenfleet-backtest/1", "options": result["options"], "versions": versions()}
    (folder / MARKER).write_text(to_json(marker), "utf-8")
    (folder / "backtest.json").write_text(to_json(result), "utf-8")
    frames = [
        pd.DataFrame(
            {
                "service": run.service,
                "forecaster": run.forecaster,
                "interval": np.arange(run.first, run.first + len(run.counts)),
                "requests": run.counts,
                "mean": run.mean,
                **dict(zip(LEVELS, run.quantiles.T, strict=True)),
            }
        )
        for run in runs
    ]
    pd.concat(frames).to_parquet(folder / "forecasts.parquet", index=False)
