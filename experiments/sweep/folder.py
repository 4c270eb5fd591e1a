"""The folder of a sweep: what is finished is kept, whatever happens to the rest.

    run.json          what the sweep is, with which code and data
    runs/ID.json      rows of a finished run, written whole or not at all
    timings/ID.json   what it took on this machine
    results.parquet   rows of all runs in the order of the sweep, once none is left (`experiments.sweep.schema`)
    timing.parquet    seconds of all runs
    failures.json     runs that failed, if any did

Two sweeps of one specification end with the same bytes in every file but `timings/` and `timing.parquet`.
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from filelock import FileLock, Timeout

from experiments.replay.directory import MARKER, versions
from experiments.show.atomic_write import replace_whole, to_json
from experiments.sweep.schema import TIMING_SCHEMA, results_table
from experiments.sweep.specification import Sweep, code_version
from simulator.errors import InputError, RunError

FORMAT = "tokenfleet-sweep/1"
LOCK, HOLDER = ".lock", ".holder"
DESCRIBED = b"tokenfleet-sweep"  # key of the metadata of the rows
RUNS, TIMINGS, RESULTS, TIMING, FAILURES = "runs", "timings", "results.parquet", "timing.parquet", "failures.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a run found, and what it took: `machine` holds seconds by name."""

    rows: Sequence[Mapping[str, Any]]
    seconds: float
    machine: Mapping[str, float]


class SweepFolder:
    """A sweep's folder, made or taken up again, and locked until it is closed or the process ends.

    Raises
    ------
    InputError
        If `path` holds something else, a sweep of another study or version, is in use, or cannot be written.
    """

    def __init__(self, path: Path, sweep: Sweep, *, resume: bool) -> None:
        self.path = path
        self._sweep = sweep
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file: choose another --out")
        if path.exists() and any(item.name not in (LOCK, HOLDER) for item in path.iterdir()):
            marker = read_marker(path)
            if resume:
                self._refuse_other(marker)
            self._take()
            for item in () if resume else [item for item in path.iterdir() if item.name not in (LOCK, HOLDER)]:
                shutil.rmtree(item) if item.is_dir() else item.unlink()
        else:
            self._take()
        try:
            for name in (RUNS, TIMINGS):
                (path / name).mkdir(parents=True, exist_ok=True)
            for left in [*path.glob(".*.partial"), *path.glob("*/.*.partial")]:  # of a run that was killed
                left.unlink()
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        self._write(MARKER, to_json(self._marker()).encode())

    def _take(self) -> None:
        """Lock the folder: two sweeps in one would end with the description of one and the rows of the other."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / LOCK)
            self._lock.acquire(timeout=0)
            holder = f"process {os.getpid()} on {platform.node()} since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"
            (self.path / HOLDER).write_text(holder)
        except Timeout:
            who = (self.path / HOLDER).read_text(errors="replace") if (self.path / HOLDER).is_file() else "a process"
            raise InputError(f"{self.path}: is in use by {who}: wait for it, or choose another --out") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Let others use the folder."""
        (self.path / HOLDER).unlink(missing_ok=True)
        self._lock.release()
        (self.path / LOCK).unlink(missing_ok=True)

    def _marker(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "study": self._sweep.study,
            "options": dict(self._sweep.options),
            "inputs": dict(self._sweep.inputs),
            "runs": len(set(self._sweep.ids)),
            "code": code_version(),
            "versions": versions(),
        }

    def _refuse_other(self, marker: Mapping[str, Any]) -> None:
        """Runs of another study or of other code are not this sweep's, and must not be thrown away unasked."""
        if marker.get("study") != self._sweep.study:
            raise InputError(
                f"{self.path}: holds study {marker.get('study')!r}, not {self._sweep.study!r}: choose another --out"
            )
        if marker.get("code") != code_version():
            raise InputError(
                f"{self.path}: was made by another version of tokenfleet or of its packages: its finished runs do not "
                "count here; choose another --out, or say --no-resume to start afresh"
            )

    def finished(self, name: str) -> Finished | None:
        """What a run found, None if it is not finished.

        Raises
        ------
        InputError
            If its file is damaged.
        """
        path, timing = self.path / RUNS / f"{name}.json", self.path / TIMINGS / f"{name}.json"
        if not path.exists():
            return None
        try:
            took = read_json(timing) if timing.exists() else {"seconds": 0.0, "machine": {}}
            return Finished(rows=read_json(path)["rows"], **took)
        except InputError as error:
            raise InputError(f"{error}: delete it, and the same command runs that run again") from None

    def keep(self, name: str, done: Finished) -> None:
        """Keep what a run found: the file that says so comes last.

        Raises
        ------
        RunError
            If it cannot be written, for instance because the disk is full.
        """
        took = {"seconds": done.seconds, "machine": dict(done.machine)}
        self._write(f"{TIMINGS}/{name}.json", to_json(took).encode())
        self._write(f"{RUNS}/{name}.json", to_json({"rows": [dict(row) for row in done.rows]}).encode())

    def write_results(self, failures: Sequence[Mapping[str, str]]) -> pa.Table:
        """Write the results of all finished runs in the order of the sweep, and give them."""
        rows, timing = [], []
        for name in dict.fromkeys(self._sweep.ids):
            done = self.finished(name)
            if done is None:
                continue
            rows += [{"run": name, "study": self._sweep.study, **row} for row in done.rows]
            policy = done.rows[0].get("policy") if done.rows else None
            timing.append({"run": name, "policy": policy, "seconds": done.seconds, **done.machine})
        table = results_table(rows)
        described = {**(table.schema.metadata or {}), DESCRIBED: described_by(self._marker())}
        self._write_table(RESULTS, table.replace_schema_metadata(described))
        self._write_table(TIMING, pa.Table.from_pylist(timing, TIMING_SCHEMA))
        if failures:
            self._write(FAILURES, to_json([dict(failure) for failure in failures]).encode())
        else:
            (self.path / FAILURES).unlink(missing_ok=True)
        return table

    def _write_table(self, name: str, table: pa.Table) -> None:
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        self._write(name, buffer.getvalue().to_pybytes())

    def _write(self, name: str, data: bytes) -> None:
        try:
            replace_whole(self.path / name, data)
        except OSError as error:
            raise RunError(
                f"{self.path / name}: cannot be written: {error.strerror}; what is finished is kept: "
                "the same command goes on from there"
            ) from None


def described_by(marker: Mapping[str, Any]) -> bytes:
    """What ties the rows of a sweep to its description: a hash, which stands in the metadata of the rows."""
    return hashlib.sha256(json.dumps(marker, sort_keys=True).encode()).hexdigest().encode()


def read_marker(path: Path) -> dict[str, Any]:
    """What the sweep in a folder says of itself.

    Raises
    ------
    InputError
        If there is none, or it is of another kind or version.
    """
    file = path / MARKER
    if not file.is_file():
        raise InputError(f"{path}: exists and is no run directory of tokenfleet (no {MARKER}): choose another --out")
    marker = read_json(file)
    if marker.get("format") != FORMAT:
        raise InputError(
            f"{path}: holds a run of another kind or version (format {marker.get('format')!r}, expected {FORMAT!r}): "
            "choose another --out"
        )
    return marker


def read_results(path: Path) -> tuple[dict[str, Any], pa.Table]:
    """Marker and results of a sweep that has ended.

    Raises
    ------
    InputError
        If it has not ended, or files of it are gone or damaged.
    """
    marker = read_marker(path)
    results = path / RESULTS
    if not results.is_file():
        done = len(list((path / RUNS).glob("*.json")))
        raise InputError(
            f"{path}: no {RESULTS}: the sweep has not ended ({done} of {marker.get('runs')} runs are finished), or the "
            "file was deleted; the command that began it goes on from there"
        )
    try:
        table = pq.read_table(results)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{results}: cannot be read: {error}") from None
    if (table.schema.metadata or {}).get(DESCRIBED) != described_by(marker):
        raise InputError(
            f"{results}: is not of the sweep that {MARKER} describes: the command that began it goes on from what is "
            "finished and writes it anew"
        )
    return marker, table


def read_json(path: Path) -> dict[str, Any]:
    """An object that a run directory holds.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    content = _json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged")
    return content


def read_json_list(path: Path) -> list[Any]:
    """A list that a run directory holds; raises as `read_json` does."""
    content = _json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: is damaged")
    return content


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: is missing: the run directory is not whole") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({error})") from None
