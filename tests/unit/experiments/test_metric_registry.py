"""The registry of metrics: the documents list it, and one entry more stands everywhere."""

import json
import subprocess
import sys
from pathlib import Path

from experiments.measures.metrics import METRICS

ROOT = Path(__file__).parents[3]
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:{second // 60:02}:{second % 60:02},100,10\n" for second in range(0, 180, 5)
)
ONE_MORE = """
import sys
from experiments.measures import metrics

metrics.METRICS += (
    metrics.Metric(
        name="tokens_served", section=metrics.Section.REQUESTS, label="tokens served", unit="tokens", digits=0,
        meaning="tokens of the requests that were served", compute=lambda m: float(m.tally.sums["tokens"].sum()),
    ),
)
from experiments.cli.app import main

sys.argv = ["tokenfleet", *sys.argv[1:]]
main()
"""


def with_one_more(folder, *arguments):
    """What a command prints where the registry has an entry more."""
    command = [sys.executable, "-c", ONE_MORE, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_entry_more_is_in_table_summary_report_and_results(tmp_path):
    (tmp_path / "short_conv.csv").write_text(TRACE)
    replay = ["replay", "short_conv.csv", "--policy", "gh", "--interval", "1m", "--out", "run"]
    tokens = 36 * 110
    (row,) = [line for line in with_one_more(tmp_path, *replay).splitlines() if "tokens served" in line]
    assert row.split() == ["tokens", "served", "[tokens]", f"{tokens:,}"]
    (run,) = json.loads((tmp_path / "run" / "summary.json").read_text())["runs"]
    assert run["tokens_served"] == tokens
    with_one_more(tmp_path, "report", "run", "--markdown", "report.md")
    assert f"| tokens served [tokens] | {tokens:,} |" in (tmp_path / "report.md").read_text()
    assert f'<td class="number">{tokens:,}</td>' in (tmp_path / "run" / "report.html").read_text()
    study = ["stress", "--policy", "gh", "--factors", "1", "--duration", "1m", "--seeds", 1, "--jobs", 1, "--json"]
    rows = json.loads(with_one_more(tmp_path, *study))["rows"]
    assert [row["tokens_served"] > 0 for row in rows if row["way"] == "simulated"] == [True] * 3


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
