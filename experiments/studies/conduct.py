"""Run a study's sweep and show what it found: the part that all studies share, with their common options."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from experiments.show.progress import Terminal
from experiments.show.terminal import rich_table
from experiments.studies.port import View
from experiments.studies.tasks import perform
from experiments.studies.view import seeds_note
from experiments.sweep.folder import TIMING, read_marker
from experiments.sweep.runner import SweepEnd, run_sweep
from experiments.sweep.specification import Run, Sweep, hash_files
from experiments.sweep.workers import workers
from simulator.errors import InputError
from simulator.planning.files import read_problem

SeedsOption = Annotated[int, typer.Option(min=1, help="Draws: seeds 0, 1, ...")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for the results; a sweep that was broken off goes on there. None: nothing kept."
    ),
]
ResumeOption = Annotated[bool, typer.Option(help="Skip runs that are finished in --out, or start afresh.")]
JobsOption = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes here; default: one per core.")]
ClusterOption = Annotated[
    str | None, typer.Option(help="Run on a cluster that is there: dask://HOST:PORT or ray://HOST:PORT.")
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", help="Policy by name (`tokenfleet list policies`) or path/to/file.py:Class; repeatable."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output: results only, no machine times.")
]


def policy_names(terminal: Terminal, asked: Sequence[str] | None, default: Sequence[str]) -> list[str]:
    """Names that workers can make policies of, each tried once here.

    Raises
    ------
    InputError
        With all that are unknown.
    """
    terminal.make_policies(asked, default)
    return list(dict.fromkeys(asked or default))


def ground_option(
    problem: Path | None, scenario: str, *, delay_model: str | None = None, **more: Any
) -> tuple[dict[str, Any], list[str]]:
    """The ground of a study's runs (`experiments.studies.tasks.problem_source`) and the files that it reads.

    Raises
    ------
    InputError
        If there is no such scenario, or the file is bad.
    """
    if problem is not None:
        if delay_model is not None:
            raise InputError("--problem and --delay-model exclude each other: a problem file states its delays")
        read_problem(problem)
        return {"problem": str(problem), **more}, [str(problem)]
    from experiments.scenario.scenario import load_scenario

    load_scenario(scenario)
    chosen = {"scenario": scenario, **({"delay_model": delay_model} if delay_model else {}), **more}
    return chosen, [scenario] if scenario.endswith(".toml") else []


def policy_files(policies: Sequence[str]) -> list[str]:
    """Files of the user's own policies: what they hold is part of a run's identity."""
    return [name.rpartition(":")[0] for name in policies if ".py:" in name and "[" not in name]


def refuse_other_folder(out_dir: Path | None) -> None:
    """Refuse before any work is done a folder that holds something else.

    Raises
    ------
    InputError
        If it does.
    """
    if out_dir is not None and out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        read_marker(out_dir)


def conduct(
    terminal: Terminal,
    study: str,
    runs: Sequence[Run],
    *,
    options: Mapping[str, Any],
    files: Sequence[str],
    view: View,
    out_dir: Path | None,
    resume: bool,
    jobs: int | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Run the sweep, print its tables; exit code 1 if a run failed.

    Raises
    ------
    InputError
        If the folder, a file or the cluster is bad.
    RunError
        If results cannot be kept.
    Interrupted
        On Ctrl-C.
    """
    sweep = Sweep(study=study, options=options, runs=runs, inputs=hash_files(files))
    with ExitStack() as stack:
        if out_dir is None:
            folder = Path(tempfile.mkdtemp(prefix="tokenfleet-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = out_dir
        pool = stack.enter_context(workers(cluster, jobs))
        end = run_sweep(sweep, folder, perform, pool, resume=resume, say=terminal.note)
        frame, timing = end.table.to_pandas(), pd.read_parquet(folder / TIMING)
        if as_json:
            terminal.print_json(_as_json(study, options, end))
        else:
            _show(terminal, frame, timing, read_marker(folder), view)
            if out_dir is not None:
                terminal.say(f"results in {out_dir}; the page: tokenfleet report {out_dir}")
    if end.failures:
        terminal.warn(f"{len(end.failures)} of {len(set(sweep.ids))} runs failed:")
        for failure in end.failures:
            terminal.note(f"  {failure['label']}: {failure['error']}")
            if failure["details"] and os.environ.get("TOKENFLEET_DEBUG"):
                terminal.note(failure["details"])
        raise typer.Exit(1)


def _as_json(study: str, options: Mapping[str, Any], end: SweepEnd) -> dict[str, Any]:
    """Results only: the same sweep, the same text, on any machine."""
    rows = [{name: value for name, value in row.items() if value is not None} for row in end.table.to_pylist()]
    return {"study": study, "options": dict(options), "rows": rows, "failures": [dict(f) for f in end.failures]}


def _show(terminal: Terminal, frame: pd.DataFrame, timing: pd.DataFrame, marker: Mapping[str, Any], view: View) -> None:
    if frame.empty:
        return
    for section in view(frame, timing, marker):
        if section.detail:
            continue
        for line in section.text:
            terminal.say(line)
        for table in section.tables:
            terminal.out.print(rich_table(table))
            if table.note:
                terminal.say(table.note)
    terminal.say(seeds_note(frame))
