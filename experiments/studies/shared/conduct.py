"""What all studies share: their common options, and how their runs are made and shown."""

import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from experiments.options import (
    ClusterOption,
    JobsOption,
    JsonOption,
    PolicyOption,
    ResumeOption,
    SeedsOption,
    SweepOutOption,
    dressed,
    make_policies,
)
from experiments.show.progress import Terminal
from experiments.show.terminal import rich_table
from experiments.studies.shared.port import View
from experiments.studies.shared.view import seeds_note
from experiments.studies.tasks import perform
from experiments.sweep.folder import TIMING, read_marker
from experiments.sweep.runner import SweepEnd, run_sweep
from experiments.sweep.specification import Run, Sweep, hash_files
from experiments.sweep.workers import workers
from simulator.errors import InputError
from simulator.planning.files import read_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What every study is asked.

    Attributes
    ----------
    policies
        Names that workers can make policies of, each once.
    seeds
        How many draws.
    """

    terminal: Terminal
    policies: list[str]
    seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The runs of a study, the options that they come from, for the record, and the files that they read."""

    runs: Sequence[Run]
    options: Mapping[str, Any]
    files: Sequence[str]


def study(
    *, policies: Sequence[str] | None, seeds: int, jobs: int | None = None
) -> Callable[[Callable[..., Design]], Callable[..., None]]:
    """Make a command of a function that says what runs a study has: it gets the common options, and is conducted.

    Parameters
    ----------
    policies
        Those that are run if none are asked for; None: the study has no `--policy`.
    seeds, jobs
        The defaults of `--seeds` and `--jobs`.
    """
    default_seeds, default_jobs = seeds, jobs

    def decorate(design: Callable[..., Design]) -> Callable[..., None]:
        def run(
            context: typer.Context,
            policy: PolicyOption = None,
            seeds: SeedsOption = default_seeds,
            out_dir: SweepOutOption = None,
            resume: ResumeOption = True,
            jobs: JobsOption = default_jobs,
            cluster: ClusterOption = None,
            as_json: JsonOption = False,
            **own: Any,
        ) -> None:
            terminal: Terminal = context.obj
            refuse_other_folder(out_dir)
            names = list(dict.fromkeys(policy or policies or ()))
            make_policies(names)
            made = design(Asked(terminal=terminal, policies=names, seeds=seeds), **own)
            sweep = Sweep(
                study=design.__module__.rpartition(".")[2],
                options=made.options,
                runs=made.runs,
                inputs=hash_files([*made.files, *_policy_files(names)]),
            )
            view = import_module(design.__module__).view
            with ExitStack() as stack:
                if out_dir is None:
                    folder = Path(tempfile.mkdtemp(prefix="tokenfleet-"))
                    stack.callback(shutil.rmtree, folder, ignore_errors=True)
                else:
                    folder = out_dir
                pool = stack.enter_context(workers(cluster, jobs))
                end = run_sweep(sweep, folder, perform, pool, resume=resume, say=terminal.note)
                if as_json:
                    terminal.print_json(_as_json(sweep, end))
                else:
                    _show(terminal, end, folder, view)
                    if out_dir is not None:
                        terminal.say(f"results in {out_dir}; the page: tokenfleet report {out_dir}")
            _tell_failures(terminal, sweep, end)

        common = dict(inspect.signature(run).parameters)
        first = [common.pop("context"), common.pop("policy")][: 1 if policies is None else 2]
        del common["own"]
        own = list(inspect.signature(design).parameters.values())[1:]
        return dressed(run, design, [*first, *own, *common.values()])

    return decorate


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


def _policy_files(policies: Sequence[str]) -> list[str]:
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


def _as_json(sweep: Sweep, end: SweepEnd) -> dict[str, Any]:
    """Results only: the same sweep, the same text, on any machine."""
    rows = [{name: value for name, value in row.items() if value is not None} for row in end.table.to_pylist()]
    failures = [dict(failure) for failure in end.failures]
    return {"study": sweep.study, "options": dict(sweep.options), "rows": rows, "failures": failures}


def _show(terminal: Terminal, end: SweepEnd, folder: Path, view: View) -> None:
    frame = end.table.to_pandas()
    if frame.empty:
        return
    for section in view(frame, pd.read_parquet(folder / TIMING), read_marker(folder)):
        if section.detail:
            continue
        for line in section.text:
            terminal.say(line)
        for table in section.tables:
            terminal.out.print(rich_table(table))
            if table.note:
                terminal.say(table.note)
    terminal.say(seeds_note(frame))


def _tell_failures(terminal: Terminal, sweep: Sweep, end: SweepEnd) -> None:
    """Exit code 1 if a run failed."""
    if not end.failures:
        return
    terminal.warn(f"{len(end.failures)} of {len(set(sweep.ids))} runs failed:")
    for failure in end.failures:
        terminal.complain(f"  {failure['label']}: {failure['error']}")
        if failure["details"] and os.environ.get("TOKENFLEET_DEBUG"):
            terminal.complain(failure["details"])
    raise typer.Exit(1)
