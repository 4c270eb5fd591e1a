"""`tokenfleet trace fit`: a profile for `trace synth` from a trace of the user's."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.inputs import survey_input
from experiments.options import JsonOption, TracesArgument, takes, trace_files, trace_reading
from experiments.show.progress import Terminal
from simulator.errors import InputError
from simulator.planning.files import write_text
from simulator.workload import Trace
from traces.formats.registry import Reading
from traces.io.chunks import concatenate
from traces.synthetic.fitting import fit_profile
from traces.synthetic.profile import profile_toml


@takes(reading=trace_reading)
def command(
    context: typer.Context,
    traces: TracesArgument,
    out_file: Annotated[Path, typer.Option("--out", help="The profile to write, a .toml file.")],
    name: Annotated[str | None, typer.Option(help="Name of the profile; default: the file's.")] = None,
    *,
    reading: Reading,
    as_json: JsonOption = False,
) -> None:
    """Fit a profile to a trace: rate curve (from 3 hours on), bursts, tokens and how they go together.

    Unlike the trace the profile can be shown to others: it has no request, only counts by the hour and quantiles.

    Example: `tokenfleet trace fit requests.parquet --out mine.toml` and then
    `tokenfleet trace synth --profile mine.toml --duration 7d --out week.parquet`
    """
    terminal: Terminal = context.obj
    if not out_file.name.endswith(".toml"):
        raise InputError(f"--out: expected a name in .toml, found {out_file}")
    chunks: list[Trace] = []
    survey_input(terminal, trace_files(traces, reading), chunks.append)
    trace = concatenate(chunks)
    chunks.clear()
    files = ", ".join(Path(item).name for item in traces)
    profile = fit_profile(trace, name=name or out_file.stem, attribution=f"fitted by tokenfleet trace fit to {files}")
    write_text(out_file, profile_toml(profile))
    if as_json:
        found = [
            {
                "name": source.name,
                "rate_per_s": source.rate_per_s,
                "hours": len(source.requests_per_h),
                "dispersion": {f"{window_s:g}": index for window_s, index in source.dispersion.items()},
                "follow_share": source.follow_share,
                "factors": len(source.modulation),
            }
            for source in profile.sources
        ]
        terminal.print_json({"path": str(out_file), "name": profile.name, "requests": len(trace), "sources": found})
        return
    for source in profile.sources:
        curve = f"a curve of {len(source.requests_per_h)} hours" if source.requests_per_h else "no curve"
        terminal.say(f"{source.name}: {source.rate_per_s:.4g}/s, {curve}, {len(source.modulation)} factors of bursts")
    terminal.say(f"profile {profile.name} in {out_file}")
