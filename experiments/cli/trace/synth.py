"""`tokenfleet trace synth`: a synthetic trace of any length, from a profile or from blocks of a real trace."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from experiments.cli.inputs import account_lines
from experiments.options import Duration, JsonOption, SeedOption, duration, takes, trace_files, trace_reading
from experiments.show.progress import Terminal
from simulator.errors import InputError
from simulator.workload import Trace
from traces.formats.registry import Reading
from traces.io.chunks import rechunk
from traces.io.writing import writable, write_trace
from traces.source import Summary
from traces.synthetic.generate import Volatility, in_utc, stream_trace, without_bursts, without_curve
from traces.synthetic.profile import read_profile
from traces.synthetic.resample import Blocks, blocks_of, resample

DEFAULT_PROFILE = "azure-2024"
DEFAULT_BLOCK_S = 300.0
DEFAULT_STEP_S = 300.0


@takes(reading=trace_reading)
def command(
    context: typer.Context,
    out_file: Annotated[
        Path, typer.Option("--out", help="File to write, whole or not at all: .parquet, .csv or .csv.gz.")
    ],
    profile: Annotated[
        str | None,
        typer.Option(help="Profile by name (`tokenfleet list traces`) or path to a .toml file; default: azure-2024."),
    ] = None,
    resampled: Annotated[
        list[str] | None,
        typer.Option("--resample", metavar="TRACE", help="Blocks of this trace, PATH or SOURCE=PATH; repeatable."),
    ] = None,
    duration: Annotated[Duration, duration("--duration", "Length of the trace: 90s, 5m, 1h, 7d.")] = Duration("7d"),
    start: Annotated[
        str | None, typer.Option(help="Wall-clock time of its beginning, ISO 8601; a rate curve begins there.")
    ] = None,
    seed: SeedOption = 0,
    rate_factor: Annotated[float, typer.Option(help="Multiplies the rates.")] = 1.0,
    time_factor: Annotated[
        float, typer.Option(help="Stretches time: with 2 a day lasts two, with half the rate.")
    ] = 1.0,
    curve: Annotated[
        bool | None, typer.Option("--curve/--no-curve", help="The profile's rate curve, or its mean rate.")
    ] = None,
    bursts: Annotated[
        bool | None, typer.Option("--bursts/--no-bursts", help="The profile's bursts, or Poisson arrivals.")
    ] = None,
    volatility: Annotated[
        float | None,
        typer.Option(min=0, help="The rate follows a geometric random walk of this sigma per step as well: 0.04."),
    ] = None,
    volatility_step: Annotated[
        Duration | None, duration("--volatility-step", "Time from step to step; default: 5m.")
    ] = None,
    block: Annotated[Duration | None, duration("--block", "Length of the blocks of --resample; default: 5m.")] = None,
    keep_daytime: Annotated[
        bool, typer.Option("--keep-daytime", help="Draw blocks from the same time of the day.")
    ] = False,
    *,
    reading: Reading,
    as_json: JsonOption = False,
) -> None:
    """Make a trace of any length in little memory: like a profile, or from blocks of a real trace.

    Example: `tokenfleet trace synth --profile azure-2024 --duration 7d --seed 0 --out week.parquet`
    """
    terminal: Terminal = context.obj
    asked = _Asked(
        duration_s=duration.seconds,
        start=_moment(start),
        seed=seed,
        rate_factor=rate_factor,
        time_factor=time_factor,
    )
    if out_file.is_dir():
        raise InputError(f"--out: expected a file to write, found the folder {out_file}")
    writable(out_file)
    walk = _walk(volatility, volatility_step)
    if resampled:
        _refuse({"--profile": profile, "--volatility": walk, "--curve": curve, "--bursts": bursts}, "--resample")
        block_s = block.seconds if block else DEFAULT_BLOCK_S
        with ExitStack() as stack:
            blocks = _blocks(terminal, stack, resampled, reading, block_s)
            chunks = resample(blocks, **asked.arguments(), keep_daytime=keep_daytime)
            made = _write(terminal, out_file, chunks, asked)
        origin: dict[str, Any] = {
            "resample": resampled,
            "block_s": block_s,
            "blocks": len(blocks),
            "keep_daytime": keep_daytime,
        }
    else:
        of_resample = {"--block": block, "--keep-daytime": keep_daytime or None, "--format": reading.trace_format}
        _refuse({**of_resample, "--map": reading.columns or None}, "a profile", "--resample")
        chosen = read_profile(profile or DEFAULT_PROFILE)
        origin = {"profile": chosen.name, "assumptions": list(chosen.assumptions)}
        chosen = without_curve(chosen) if curve is False else chosen
        chosen = without_bursts(chosen) if bursts is False else chosen
        origin |= {"curve": curve is not False, "bursts": bursts is not False}
        origin |= {"volatility": walk.sigma if walk else None, "volatility_step_s": walk.step_s if walk else None}
        made = _write(terminal, out_file, stream_trace(chosen, **asked.arguments(), volatility=walk), asked)
    if as_json:
        terminal.print_json({"path": str(out_file), **made.to_dict(), **origin, **asked.to_dict()})
        return
    terminal.say(made.line(out_file))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What both ways of making a trace take."""

    duration_s: float
    start: datetime | None
    seed: int
    rate_factor: float
    time_factor: float

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("duration_s", "start", "seed", "rate_factor", "time_factor")}

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the start stands with what was made."""
        return {name: value for name, value in self.arguments().items() if name != "start"}


@dataclass(slots=True)
class _Made:
    """What was written, added up chunk by chunk."""

    summary: Summary = field(default_factory=Summary)
    requests: Counter[str] = field(default_factory=Counter)

    def watch(self, chunks: Iterator[Trace], duration_s: float, progress: Callable[[float], None]) -> Iterator[Trace]:
        for chunk in chunks:
            self.summary.add(chunk)
            for name, count in zip(chunk.sources, np.bincount(chunk.source).tolist(), strict=False):
                self.requests[name] += count
            yield chunk
            progress(min(chunk.span_s / duration_s, 1.0))

    def to_dict(self) -> dict[str, Any]:
        survey = self.summary.survey(())
        return {
            "rows": survey.requests,
            "span_s": survey.span_s,
            "start": None if survey.start is None else survey.start.isoformat(),
            "sha256": survey.sha256,
            "sources": dict(self.requests),
        }

    def line(self, path: Path) -> str:
        survey = self.summary.survey(())
        parts = ", ".join(f"{name} {count:,}" for name, count in self.requests.items())
        span = f"{survey.span_s / 3600:.2f} h" if survey.span_s >= 3600 else f"{survey.span_s / 60:.2f} min"
        return f"{survey.requests:,} requests over {span} ({parts}) in {path}"


def _write(terminal: Terminal, path: Path, chunks: Iterator[Trace], asked: _Asked) -> _Made:
    made = _Made()
    with terminal.progress_bars() as bars:
        step = bars.start(f"writing {path.name}")
        parts = rechunk(chunks)
        first = next(parts, None)
        if first is None:
            raise InputError("no request arrives in this time: make it longer, or the rate higher")
        write_trace(path, made.watch(itertools.chain([first], parts), asked.duration_s, step))
        step(1.0)
    return made


def _blocks(terminal: Terminal, stack: ExitStack, traces: Sequence[str], reading: Reading, block_s: float) -> Blocks:
    with terminal.progress_bars() as bars:
        step = bars.start("reading the trace")
        blocks = stack.enter_context(blocks_of(trace_files(traces, reading), block_s))
        step(1.0)
    for read in blocks.survey.reads:
        for line in account_lines(read):
            terminal.warn(line)
    return blocks


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return in_utc(datetime.fromisoformat(text))
    except ValueError:
        raise InputError(
            f"--start: {text!r} is no time in ISO 8601; expected for instance 2024-05-13T08:00:00Z"
        ) from None


def _walk(sigma: float | None, step: Duration | None) -> Volatility | None:
    if sigma is None:
        if step is not None:
            raise InputError("--volatility-step needs --volatility")
        return None
    return Volatility(sigma=sigma, step_s=step.seconds if step else DEFAULT_STEP_S)


def _refuse(given: Mapping[str, object], way: str, instead: str | None = None) -> None:
    """Options that the other way of making a trace has."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        hint = f"; {' and '.join(names)} go with {instead}" if instead else ""
        raise InputError(f"{way} takes no {' or '.join(names)}{hint}")
