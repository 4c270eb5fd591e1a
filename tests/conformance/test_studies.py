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

ROOT = Path(__file__).parents[2]
SMALL = {
    "stress": ["--policy", "gh", "--factors", "1,1.5", "--duration", "1m"],
    "volatility": ["--policy", "gh", "--sigmas", "0.04", "--duration", "15m"],
    "diurnal": ["--policy", "gh", "--duration", "2h"],
    "scale": ["--policy", "gh", "--policy", "agh", "--sizes", "3x2x2,4x3x3"],
    "ablation": ["--policy", "agh", "--policy", "agh[-m2]"],
    "budget": ["--policy", "gh", "--shares", "0.5,1"],
    "interval": ["--policy", "gh", "--intervals", "15m,1h", "--duration", "2h"],
    "frontier": ["--policy", "gh", "--caps", "0.5", "--factors", "1,1.5", "--duration", "15m", "--effort", "1"],
    "headroom": ["--arrivals", "Poisson", "--replicas", "1,2", "--duration", "2m", "--draws", "1"],
    "regret": ["--policy", "gh", "--interval", "20m"],
    "hysteresis": ["--policy", "gh", "--weights", "0,1", "--duration", "15m"],
}


def command_of(name):
    return [name] if name == "stress" else ["study", name]


def test_all_are_tried():
    assert set(SMALL) == set(summaries())


@pytest.mark.parametrize("name", summaries())
def test_it_runs_and_is_shown(name, run_cli, tmp_path):
    arguments = [*command_of(name), *SMALL[name], "--seeds", 1, "--jobs", 1]
    first = run_cli(*arguments, "--out", tmp_path / "one")
    assert first.code == 0, first.stderr
    assert first.stdout
    marker, table = read_results(tmp_path / "one")
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
    document = document_of(tmp_path / "one")
    assert document.sections
    assert document.charts
    assert len({chart.key for chart in document.charts}) == len(document.charts)
    assert document_html(document)
    again = run_cli(*arguments, "--out", tmp_path / "one", "--json")
    assert "were finished before and are skipped" in again.stderr
    assert len(json.loads(again.stdout)["rows"]) == table.num_rows


@pytest.mark.parametrize("name", summaries())
def test_it_has_an_example_and_a_place_in_the_documents(name):
    command = load(COMMANDS[name] if name == "stress" else STUDY_COMMANDS[name])
    assert f"Example: `tokenfleet {' '.join(command_of(name))}" in command.help
    assert f"tokenfleet {' '.join(command_of(name))}" in (ROOT / "docs" / "studies.md").read_text()
