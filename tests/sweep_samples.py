"""Small sweeps for the tests."""

from pathlib import Path

from experiments.studies.tasks import perform
from experiments.sweep.runner import run_sweep
from experiments.sweep.specification import Run, Sweep
from experiments.sweep.workers import workers


def plan_run(seed, policy="gh"):
    parameters = {"ground": {"random": [3, 2, 2]}, "seed": seed, "policy": policy}
    return Run(task="plan", parameters=parameters, label=f"{policy} {seed}")


def sweep_of(count=4, **more):
    return Sweep(study="scale", options={"count": count}, runs=[plan_run(seed) for seed in range(count)], **more)


def run(sweep, path, *, resume=True, jobs=1, say=lambda text: None):
    with workers(None, jobs) as pool:
        return run_sweep(sweep, path, perform, pool, resume=resume, say=say)


def content(path):
    """Every file's bytes, but for machine times."""
    files = [file for file in Path(path).rglob("*") if file.is_file() and "timing" not in str(file.relative_to(path))]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
