"""The folder of a sweep: what is finished is kept, whatever happens to the rest.

    run.json          what the sweep is, with which code and data
    runs/ID.json      rows of a finished run, written whole or not at all
    timings/ID.json   what it took on this machine
    results.parquet   rows of all runs in the order of the sweep, once none is left (`experiments.sweep.schema`)
    timing.parquet    seconds of all runs
    failures.json     runs that failed, if any did

Two sweeps of one specification end with the same bytes in every file but `timings/` and `timing.parquet`.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from experiments.replay.directory import MARKER, versions
from experiments.show.atomic_write import replace_whole, to_json
from experiments.sweep.schema import TIMING_SCHEMA, results_table
from experiments.sweep.specification import Sweep, code_version
from simulator.errors import InputError, RunError

FORMAT = "tokenfleet-sweep/1"
RUNS, TIMINGS, RESULTS, TIMING, FAILURES = "runs", "timings", "results.parquet", "timing.parquet", "failures.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a run found, and what it took: `machine` holds seconds by name."""

    rows: Sequence[Mapping[str, Any]]
    seconds: float
    machine: Mapping[str, float]


class SweepFolder:
    """A sweep's folder, made or taken up again.

    Raises
    ------
    InputError
        If `path` holds something else, a sweep of another study or version, or cannot be written.
    """

    def __init__(self, path: Path, sweep: Sweep, *, resume: bool) -> None:
        self.path = path
        self._sweep = sweep
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file: choose another --out")
        if path.exists() and any(path.iterdir()):
            marker = read_marker(path)
            if resume:
                self._refuse_other(marker)
            else:
                shutil.rmtree(path)
        try:
            for name in (RUNS, TIMINGS):
                (path / name).mkdir(parents=True, exist_ok=True)
            for left in [*path.glob(".*.partial"), *path.glob("*/.*.partial")]:  # of a run that was killed
                left.unlink()
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        self._write(MARKER, to_json(self._marker()).encode())

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

    def close(self, failures: Sequence[Mapping[str, str]]) -> pa.Table:
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
        self._write_table(RESULTS, table)
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
        return marker, pq.read_table(results)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{results}: cannot be read: {error}") from None


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
