"""Run directories: written under a temporary name beside the target and renamed when complete."""

import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.figures import draw_replay
from experiments.metrics import interval_table, requests_frame
from experiments.replay import ReplayRun
from experiments.scenario import Scenario
from simulator.errors import InputError
from simulator.files import plan_to_dict
from simulator.results import Rental
from simulator.workload import Trace

MARKER = "run.json"  # what makes a folder a run directory of ours


def to_json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


@contextmanager
def run_directory(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` if the block succeeds; a killed run leaves no half result there.

    Raises
    ------
    InputError
        If `path` exists and is no run directory, or is one and `overwrite` is not set, or cannot be made.
    """
    refuse_existing(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.partial-"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        temporary.chmod(0o755)
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse before any work is done what `run_directory` would refuse."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MARKER).is_file():
        raise InputError(f"{path}: exists and is no run directory of tokenfleet (no {MARKER}): choose another --out")
    if not overwrite:
        raise InputError(f"{path}: holds an earlier run: choose another --out, or say --overwrite")


def versions() -> dict[str, str]:
    names = ("tokenfleet", "simpy", "numpy", "scipy", "pandas", "pyarrow", "pyomo", "highspy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def trace_digest(trace: Trace) -> str:
    """SHA-256 over the columns of a trace."""
    digest = hashlib.sha256(json.dumps(trace.sources).encode())
    for column in (trace.arrival_s, trace.source, trace.input_tokens, trace.output_tokens):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def specification(
    scenario: Scenario, trace: Trace, trace_names: Sequence[str], options: Mapping[str, object]
) -> dict[str, Any]:
    """What was run: enough to run it again. `content_hash` names it."""
    content: dict[str, Any] = {
        "scenario": scenario.file.model_dump(mode="json"),
        "trace": {"names": list(trace_names), "requests": len(trace), "sha256": trace_digest(trace)},
        "options": dict(options),
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {
        "format": "tokenfleet-run/1",
        "content_hash": hashlib.sha256(canonical.encode()).hexdigest(),
        **content,
        "versions": versions(),
    }


def write_replay(
    folder: Path, scenario: Scenario, trace: Trace, runs: Sequence[ReplayRun], run_specification: Mapping[str, object]
) -> list[str]:
    """Write everything of a replay into `folder`; return the names of the figures.

    `timing.json` holds what depends on the machine; all other files are the same, byte for byte, for the same
    specification.
    """
    (folder / MARKER).write_text(to_json(run_specification), "utf-8")
    (folder / "summary.json").write_text(to_json({"runs": [run.summary for run in runs]}), "utf-8")
    timing = [{"policy": run.policy, "seed": run.seed, **asdict(run.machine)} for run in runs]
    (folder / "timing.json").write_text(to_json({"runs": timing}), "utf-8")
    sources = np.array(trace.sources, dtype=object)[trace.source]
    requests = [
        requests_frame(scenario, run.result, run.judgement, sources).assign(policy=run.policy, seed=run.seed)
        for run in runs
    ]
    intervals = [
        interval_table(scenario, run.result, run.judgement, run.interval_s).assign(policy=run.policy, seed=run.seed)
        for run in runs
    ]
    rentals = [_rentals_frame(run).assign(policy=run.policy, seed=run.seed) for run in runs]
    for name, frames in (("requests", requests), ("intervals", intervals), ("rentals", rentals)):
        pd.concat(frames, ignore_index=True).to_parquet(folder / f"{name}.parquet", index=False)
    for number, run in enumerate(runs):
        plans = folder / "plans" / f"{number}-{_file_name(run.policy)}"
        plans.mkdir(parents=True)
        for time_s, plan in run.result.plans:
            document = {**plan_to_dict(plan), "seconds": None}  # machine time stands in timing.json
            name = f"{int(time_s):07d}s" if time_s == int(time_s) else f"{time_s:011.3f}s"
            (plans / f"{name}.json").write_text(to_json(document), "utf-8")
    return [path.name for path in draw_replay(scenario, runs, folder)]


def _file_name(policy: str) -> str:
    return "".join(character if character.isalnum() or character in "+-." else "_" for character in policy)


def _rentals_frame(run: ReplayRun) -> pd.DataFrame:
    columns = [field.name for field in fields(Rental)]
    frame = pd.DataFrame([asdict(rental) for rental in run.result.rentals], columns=columns)
    keys = run.result.requests.deployments
    frame.insert(1, "model", [keys[d][0] for d in frame["deployment"]])
    frame.insert(2, "tier", [keys[d][1] for d in frame["deployment"]])
    frame.insert(3, "tensor_parallel", [keys[d][2] for d in frame["deployment"]])
    frame.insert(4, "pipeline_parallel", [keys[d][3] for d in frame["deployment"]])
    return frame.drop(columns="deployment")
