"""What every study of the registry owes: a command with an example, the same results twice, and a view of them."""

import json
from pathlib import Path

import pytest

from experiments.cli.commands import COMMANDS
from experiments.cli.lazy import load
from experiments.cli.study import COMMANDS as STUDY_COMMANDS
from experiments.report import document_of
from experiments.show.page import document_html
from experiments.studies import summaries
from experiments.sweep.folder import read_results
from experiments.sweep.schema import BY_NAME
from tests.golden.artifacts import SMALL_STUDIES, verb_of

ROOT = Path(__file__).parents[2]


def test_all_are_tried():
    assert set(SMALL_STUDIES) == set(summaries())


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in summaries()])
def test_it_runs_and_is_shown(name, small_study):
    study = small_study(name)
    assert study.first.stdout
    marker, table = read_results(study.path)
    assert marker["study"] == name
    assert set(table.column_names) == set(BY_NAME)
    assert table.num_rows > 0
    for row in table.to_pylist():
        if row["arrived"] is not None:
            assert (
                row["arrived"]
                == row["served"] + (row["rejected"] or 0) + (row["failed"] or 0) + (row["in_flight"] or 0)
                or row["time_s"] is not None
            )
        for share in ("unmet_share", "violation_share"):
            assert row[share] is None or -1e-9 <= row[share] <= 1 + 1e-9
        if row["violation_share"] is not None and row["unmet_share"] is not None:
            assert row["violation_share"] >= row["unmet_share"] - 1e-9
    document = document_of(study.path)
    assert document.sections
    assert document.charts
    assert len({chart.key for chart in document.charts}) == len(document.charts)
    assert document_html(document)
    assert "were finished before and are skipped" in study.again.stderr
    assert len(json.loads(study.again.stdout)["rows"]) == table.num_rows


@pytest.mark.parametrize("name", summaries())
def test_it_has_an_example_and_a_place_in_the_documents(name):
    command = load(COMMANDS[name] if name == "stress" else STUDY_COMMANDS[name])
    assert f"Example: `tokenfleet {' '.join(verb_of(name))}" in command.help
    assert f"tokenfleet {' '.join(verb_of(name))}" in (ROOT / "docs" / "studies.md").read_text()
