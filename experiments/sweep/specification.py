"""What a run is, and its name: the hash of its specification, of the code and of the data."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.replay.directory import versions
from simulator.errors import InputError

PACKAGES = ("simulator", "policies", "traces", "experiments")
CODE_FILES = (".py", ".toml", ".json")
SHOWING = ("show", "report")  # folders of code that only draws results
ID_LENGTH = 16  # hexadecimal digits: 64 bits, for at most some 10^5 runs in a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a sweep: a task of `experiments.sweep.tasks` with its parameters, which JSON can hold.

    `label` is what a person reads while it runs; it is no part of the run's identity.
    """

    task: str
    parameters: Mapping[str, Any]
    label: str


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs of a study.

    Attributes
    ----------
    options
        What the user asked for, for the record.
    inputs
        SHA-256 of each file that the runs read, by its path: part of every run's identity.
    """

    study: str
    options: Mapping[str, Any]
    runs: Sequence[Run]
    inputs: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def ids(self) -> list[str]:
        """Of each run, in their order; runs that are the same have the same."""
        return [run_id(run, self.inputs) for run in self.runs]


def run_id(run: Run, inputs: Mapping[str, str]) -> str:
    """Name of a run: of its task, its parameters, the files it reads and the code.

    Parameters
    ----------
    inputs
        Those of the sweep; only the ones that the parameters mention count.
    """
    parameters = canonical(run.parameters)
    read = {path: sha for path, sha in inputs.items() if json.dumps(path) in parameters}
    content = {"task": run.task, "parameters": run.parameters, "inputs": read, "code": code_version()}
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:ID_LENGTH]


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=1)
def code_version() -> str:
    """SHA-256 of our own sources, but for those that only draw, and of the versions of the packages we stand on."""
    digest = hashlib.sha256(canonical(versions()).encode())
    for package in PACKAGES:
        place = import_module(package).__file__
        assert place is not None
        root = Path(place).parent
        for path in sorted(p for p in root.rglob("*") if p.suffix in CODE_FILES and p.parent.name not in SHOWING):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:ID_LENGTH]


def hash_files(paths: Sequence[str | Path]) -> dict[str, str]:
    """SHA-256 of each file.

    Raises
    ------
    InputError
        Naming each file that cannot be read.
    """
    found, problems = {}, []
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}")
    if problems:
        raise InputError(problems)
    return found
