"""`tokenfleet trace convert`: any trace as Parquet, in the order of time."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.inputs import account_lines, survey_input
from experiments.options import JsonOption, TracesArgument, takes, trace_files, trace_reading
from experiments.show.progress import Terminal
from simulator.errors import InputError
from traces.formats.registry import OutOfOrder, Reading
from traces.io.on_bad_row import OnBadRow
from traces.io.parquet import write_parquet
from traces.io.quarantine import Quarantine
from traces.sorting import sort_file
from traces.source import Survey, TraceFiles


@takes(reading=trace_reading)
def command(
    context: typer.Context,
    traces: TracesArgument,
    out_file: Annotated[Path, typer.Option("--out", help="The Parquet file to write, whole or not at all.")],
    *,
    reading: Reading,
    as_json: JsonOption = False,
) -> None:
    """Write traces of any format as one Parquet file in the order of time: it is read many times faster.

    Example: `tokenfleet trace convert requests.csv.gz --map arrival_s=When --out requests.parquet`
    """
    terminal: Terminal = context.obj
    if out_file.is_dir():
        raise InputError(f"--out: expected a file to write, found the folder {out_file}")
    files = trace_files(traces, reading)
    try:
        survey = survey_input(terminal, files)
        _write(terminal, out_file, files, survey)
    except OutOfOrder as late:
        if len(traces) > 1:
            raise InputError(f"{late}; convert it alone, it is then sorted in runs") from None
        terminal.warn(f"{late.path}: far out of order: it is sorted in runs on the disk")
        _sort(terminal, files, out_file, reading)
        survey = TraceFiles([(out_file, None)], Reading(trace_format="tokenfleet")).survey()
    found = {"path": str(out_file), "rows": survey.requests, "span_s": survey.span_s, "sha256": survey.sha256}
    if as_json:
        terminal.print_json({**found, "sources": list(survey.sources)})
        return
    terminal.say(f"{survey.requests:,} requests over {survey.span_s / 60:.1f} min in {out_file}")


def _sort(terminal: Terminal, files: TraceFiles, out_file: Path, reading: Reading) -> None:
    path, source = files.paths()[0]
    quarantine = Quarantine(path, reading.quarantine) if reading.on_bad_row is OnBadRow.QUARANTINE else None
    try:
        read = sort_file(path, out_file, reading, source=source, on_bad=quarantine.add if quarantine else None)
        kept = quarantine.keep() if quarantine else None
    finally:
        if quarantine:
            quarantine.close()
    for line in account_lines(replace(read, quarantine=kept)):
        terminal.warn(line)


def _write(terminal: Terminal, out_file: Path, files: TraceFiles, survey: Survey) -> None:
    with terminal.progress_bars() as bars:
        step = bars.start(f"writing {out_file.name}")
        write_parquet(out_file, files.chunks())
        step(1.0)
