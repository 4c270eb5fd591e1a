"""The report of a study."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from experiments.show.parts import Document
from experiments.studies import load_study, summaries
from experiments.studies.shared.view import seeds_note
from experiments.sweep.folder import FAILURES, TIMING, read_json_list, read_results
from simulator.errors import InputError


def sweep_document(directory: Path) -> Document:
    """What the study makes of its results.

    Raises
    ------
    InputError
        If the sweep has not ended, or files of it are missing or damaged.
    """
    marker, table = read_results(directory)
    if marker["study"] not in summaries():
        raise InputError(f"{directory}: study {marker['study']!r} is unknown here; known: {', '.join(summaries())}")
    study = load_study(marker["study"])
    frame = table.to_pandas()
    try:
        timing = pd.read_parquet(directory / TIMING)
    except (OSError, ValueError) as error:
        raise InputError(f"{directory / TIMING}: cannot be read: {error}") from None
    failures = read_json_list(directory / FAILURES) if (directory / FAILURES).exists() else []
    summary = [f"{study.summary}: {marker['runs']} runs, {len(frame):,} rows of results."]
    if len(frame):
        summary.append(
            f"Numbers are the {seeds_note(frame)}." if frame["seed"].nunique() > 1 else "Numbers are of one seed."
        )
    if failures:
        summary.append(f"{len(failures)} runs failed and are missing: {', '.join(f['label'] for f in failures[:5])}.")
    sections = study.view(frame, timing, marker) if len(frame) else []
    if sections:  # what a study has to say in words belongs to the top
        summary += sections[0].text
        sections[0] = replace(sections[0], text=())
    return Document(title=f"tokenfleet {marker['study']}", summary=summary, sections=sections, specification=marker)
