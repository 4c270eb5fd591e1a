"""The registry of metrics, and the documents that list it; `tests/conformance/test_additions.py` adds one."""

from pathlib import Path

from experiments.measures.metrics import METRICS

ROOT = Path(__file__).parents[3]


def test_the_documents_list_every_metric():
    text = (ROOT / "docs" / "results.md").read_text()
    table = text[text.index("## What a replay measures") : text.index("## The columns")]
    shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")]
    wanted = [[f"`{m.path}`", m.unit, m.meaning] for m in METRICS if m.path and m.compute is not None]
    assert shown == wanted


def test_names_places_and_columns_are_taken_once():
    for names in ([m.name for m in METRICS], [m.path for m in METRICS], [m.column_name for m in METRICS]):
        taken = [name for name in names if name]
        assert len(set(taken)) == len(taken)
