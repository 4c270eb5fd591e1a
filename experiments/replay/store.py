"""What a replay leaves in its run directory: its specification, its summary and its tables."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from experiments.measures.agreement import Agreement
from experiments.measures.tables import cost_table, interval_table, load_table, requests_table
from experiments.measures.tally import Judgement
from experiments.replay.directory import MARKER, versions
from experiments.replay.run import BatchSink, ReplayRun
from experiments.replay.timeline import log_frames
from experiments.scenario.notes import calibration_evidence
from experiments.scenario.scenario import Scenario
from experiments.show.atomic_write import to_json
from simulator.catalog.configuration import DeploymentKey
from simulator.delay import RooflineDelay
from simulator.engine.results import BATCH_REQUESTS, Rental, RequestTable, RunSummary
from simulator.planning.files import plan_to_dict
from traces.source import Survey

AGREEMENT = [field.name for field in fields(Agreement)]


def specification(
    scenario: Scenario, survey: Survey, trace_names: Sequence[str], options: Mapping[str, object]
) -> dict[str, Any]:
    """What was run: enough to run it again. `content_hash` names it."""
    content: dict[str, Any] = {
        "scenario": scenario.file.model_dump(mode="json"),
        "trace": {"names": list(trace_names), "requests": survey.requests, "sha256": survey.sha256},
        "options": dict(options),
    }
    fitted = isinstance(scenario.delay_model, RooflineDelay)
    evidence = calibration_evidence(list(scenario.catalog.tiers.values())) if fitted else []
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {
        "format": "tokenfleet-run/1",
        "content_hash": hashlib.sha256(canonical.encode()).hexdigest(),
        **content,
        "versions": versions(),
        **({"step_times": evidence} if evidence else {}),
    }


class ReplayWriter:
    """Writes a replay into a folder: requests while it runs, a row group per batch, and the rest at its end.

    `timing.json` holds what depends on the machine and the engine; all other files are the same, byte for byte, for the
    same specification.
    """

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        self._folder = folder
        self._sources = pa.array(sources, type=pa.string())
        self._files: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> "ReplayWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        for file in self._files.values():
            file.close()

    def sink(self, policy: str, seed: int) -> BatchSink:
        """What takes the batches of one run."""

        def write(batch: RequestTable, judgement: Judgement, sources: npt.NDArray[np.int32]) -> None:
            self._append("requests", requests_table(batch, judgement, self._sources.take(sources)), policy, seed)

        return write

    def _append(self, name: str, table: pa.Table, policy: str, seed: int) -> None:
        table = table.append_column("policy", pa.array([policy] * len(table), type=pa.string()))
        table = table.append_column("seed", pa.array(np.full(len(table), seed)))
        if name not in self._files:
            # Times hardly repeat: looking for repetitions among them takes half of the time that writing takes.
            repeating = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
            path = self._folder / f"{name}.parquet"
            self._files[name] = pq.ParquetWriter(path, table.schema, use_dictionary=repeating)
        self._files[name].write_table(table, row_group_size=BATCH_REQUESTS)

    def finish(self, scenario: Scenario, runs: Sequence[ReplayRun], run_specification: Mapping[str, object]) -> None:
        """Write everything else; all tables are whole then."""
        folder = self._folder
        (folder / MARKER).write_text(to_json(run_specification), "utf-8")
        (folder / "summary.json").write_text(to_json({"runs": [run.summary for run in runs]}), "utf-8")
        timing = [{"policy": run.policy, "seed": run.seed, **asdict(run.machine)} for run in runs]
        (folder / "timing.json").write_text(to_json({"runs": timing}), "utf-8")
        for run in runs:
            for name, frame in (
                ("intervals", interval_table(scenario, run.tally)),
                ("costs", cost_table(scenario, run.result, run.tally)),
                ("load", load_table(run.result, run.tally)),
                ("rentals", _rentals_frame(run.result)),
                ("agreement", pd.DataFrame([asdict(row) for row in run.agreement], columns=AGREEMENT)),
                *_log_frames(run.result),
            ):
                self._append(name, pa.Table.from_pandas(frame, preserve_index=False), run.policy, run.seed)
        self._close()
        for number, run in enumerate(runs):
            _write_plans(folder / "plans" / f"{number}-{_file_name(run.policy)}", run.result)


def _write_plans(folder: Path, run: RunSummary) -> None:
    folder.mkdir(parents=True)
    for time_s, plan in run.plans:
        document = {**plan_to_dict(plan), "seconds": None}  # machine time stands in timing.json
        name = f"{int(time_s):07d}s" if time_s == int(time_s) else f"{time_s:011.3f}s"
        (folder / f"{name}.json").write_text(to_json(document), "utf-8")


def _log_frames(run: RunSummary) -> list[tuple[str, pd.DataFrame]]:
    if run.log is None:
        return []
    segments, events = log_frames(run.log)
    return [("segments", segments), ("events", events)]


def _file_name(policy: str) -> str:
    return "".join(character if character.isalnum() or character in "+-." else "_" for character in policy)


def _rentals_frame(run: RunSummary) -> pd.DataFrame:
    columns = [field.name for field in fields(Rental)]
    frame = pd.DataFrame([asdict(rental) for rental in run.rentals], columns=columns)
    for place, field in enumerate(fields(DeploymentKey)):
        frame.insert(1 + place, field.name, [getattr(run.deployments[d], field.name) for d in frame["deployment"]])
    return frame.drop(columns="deployment")
