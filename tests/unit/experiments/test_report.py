"""`tokenfleet report` and `results`: of replays and of studies, and what they say of folders that are not whole."""

import json
import shutil

import pytest

from experiments.report import document_of
from experiments.show.parts import single_charts
from simulator.errors import InputError


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    """The shipped scenario with five minutes of arrivals."""
    from importlib import resources

    text = (resources.files("experiments") / "scenarios" / "azure-2023.toml").read_text("utf-8")
    path = tmp_path_factory.mktemp("scenario") / "short.toml"
    path.write_text(text + '\n[synthetic]\nprofile = "azure-2023"\nduration_s = 300.0\n')
    return path


@pytest.fixture(scope="module")
def replayed(run_cli, scenario, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "replay"
    done = run_cli(
        "replay", "--scenario", scenario, "--policy", "gh", "--policy", "agh", "--interval", "1m", "--out", folder
    )
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def copy(replayed, tmp_path):
    return shutil.copytree(replayed, tmp_path / "copy")


def test_a_replay_tells_what_its_summary_tells(replayed):
    document = document_of(replayed)
    runs = {run["policy"]: run for run in json.loads((replayed / "summary.json").read_text())["runs"]}
    (table,) = document.sections[0].tables
    shown = {row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}
    for policy, run in runs.items():
        assert shown["cost [USD]"][policy] == f"{run['cost_usd']:,.2f}"
        assert shown["served"][policy] == f"{run['served']:,}"
        assert shown["TPOT p95 [ms]"][policy] == f"{1000 * run['tpot_s']['p95']:,.2f}"
    cheapest = min(runs, key=lambda name: runs[name]["cost_usd"])
    assert any(f"Cheapest: {cheapest}" in sentence for sentence in document.summary)
    charts = {chart.key: chart for chart in single_charts(document.charts)}
    assert {"violations_over_time", "gpus_0", "load_1", "ttft", "tpot", "e2e", "plan-0", "plan-1"} <= set(charts)
    spent = {line.name: line.y[-1] for line in charts["cost_over_time"].lines}
    parts = charts["cost_parts"]
    for place, (policy, run) in enumerate(runs.items()):
        assert spent[policy] == pytest.approx(run["cost_usd"], rel=1e-9)
        assert parts.categories[place] == policy
        for part, usd in run["cost_parts_usd"].items():
            assert parts.parts[part.replace("_", " ")][place] == pytest.approx(usd, rel=1e-9)
        curve = next(line for line in charts["e2e"].lines if line.name == policy)
        at = {level: value for value, level in zip(curve.x, curve.y, strict=True)}
        assert at[50.0] == pytest.approx(run["e2e_s"]["p50"], rel=0.05)
        assert list(curve.x) == sorted(curve.x)


def test_a_plan_is_drawn_whole(replayed):
    for chart in document_of(replayed).charts:
        if chart.key.startswith("plan-"):
            types = dict(chart.columns)["query types"]
            assert sum(flow.value for flow in chart.flows if flow.source in types) == pytest.approx(1.0)
            deployments = dict(chart.columns)["deployments"]
            for name in deployments:
                into = sum(flow.value for flow in chart.flows if flow.target == name)
                out = sum(flow.value for flow in chart.flows if flow.source == name)
                assert out == pytest.approx(0.0 if name == "unmet" else into)


def test_the_command_writes_page_figures_and_markdown(run_cli, copy, tmp_path):
    done = run_cli("report", copy, "--figures", tmp_path / "f", "--markdown", tmp_path / "m" / "r.md")
    assert done.code == 0, done.stderr
    page = (copy / "report.html").read_text()
    assert page.count("Plotly.newPlot(") >= len(document_of(copy).charts)
    keys = {chart.key for chart in document_of(copy).charts}
    assert {path.stem for path in (tmp_path / "f").glob("*.svg")} == keys
    assert all(f"]({key}.png)" in (tmp_path / "m" / "r.md").read_text() for key in keys)
    again = run_cli("report", copy, "--out", tmp_path / "again.html")
    assert again.code == 0
    assert (tmp_path / "again.html").read_text() == page


def test_a_study_has_a_page(run_cli, tmp_path):
    made = run_cli(
        "study", "ablation", "--policy", "gh", "--policy", "gh[-m2]", "--seeds", 2, "--jobs", 1, "--out", tmp_path / "a"
    )
    assert made.code == 0, made.stderr
    assert run_cli("report", tmp_path / "a").code == 0
    document = document_of(tmp_path / "a")
    assert document.specification["study"] == "ablation"
    assert (tmp_path / "a" / "report.html").stat().st_size > 1e6
    asked = run_cli(
        "results", tmp_path / "a", "--sql", "select policy, count(*) n from results group by all order by all", "--json"
    )
    assert json.loads(asked.stdout) == {"columns": ["policy", "n"], "rows": [["gh", 2], ["gh[-m2]", 2]]}


def test_step_times_with_their_evidence(run_cli, scenario, tmp_path):
    done = run_cli(
        "replay", "--scenario", scenario, "--policy", "gh", "--delay-model", "roofline", "--out", tmp_path / "r"
    )
    assert done.code == 0, done.stderr
    (section,) = [s for s in document_of(tmp_path / "r").sections if s.title == "How far step times can be trusted"]
    (table,) = section.tables
    assert {row[1] for row in table.rows} & {"measured", "composed", "extrapolated"}
    assert len(table.rows) == 8


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("run.json", "is no run directory of tokenfleet (no run.json), or was not written to its end"),
        ("summary.json", "summary.json: is missing: the run directory is not whole"),
        ("requests.parquet", "requests.parquet: is missing"),
        ("rentals.parquet", "rentals.parquet: is missing"),
        ("intervals.parquet", "intervals.parquet: is missing"),
        ("costs.parquet", "costs.parquet: is missing"),
        ("load.parquet", "load.parquet: is missing"),
        ("plans", "plans: no plans: the run directory is not whole"),
    ],
)
def test_a_half_deleted_directory(run_cli, copy, lost, says):
    place = copy / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    done = run_cli("report", copy)
    assert (done.code, done.stdout) == (2, "")
    assert says in done.stderr
    assert not (copy / "report.html").exists()


def test_damaged_files_and_other_versions(copy):
    (copy / "requests.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"requests\.parquet: cannot be read"):
        document_of(copy)
    (copy / "run.json").write_text('{"format": "tokenfleet-run/7"}')
    with pytest.raises(InputError, match="format 'tokenfleet-run/7' is of another version; this one reads"):
        document_of(copy)
    (copy / "run.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        document_of(copy)
    with pytest.raises(InputError, match="no such folder"):
        document_of(copy / "nowhere")


class TestResults:
    def test_tables_and_columns(self, run_cli, replayed):
        done = run_cli("results", replayed)
        assert done.code == 0
        assert "requests" in done.stdout
        asked = run_cli("results", replayed, "--sql", "select policy, count(*) from requests group by all", "--json")
        runs = json.loads((replayed / "summary.json").read_text())["runs"]
        assert {row[0]: row[1] for row in json.loads(asked.stdout)["rows"]} == {r["policy"]: r["arrived"] for r in runs}

    @pytest.mark.parametrize(
        ("sql", "says"),
        [
            ("select nothing from requests", "--sql: Binder Error"),
            ("selec", "--sql: Parser Error"),
            ("select * from nowhere", "--sql: Catalog Error"),
        ],
    )
    def test_wrong_queries(self, run_cli, replayed, sql, says):
        done = run_cli("results", replayed, "--sql", sql)
        assert (done.code, done.stdout) == (2, "")
        assert says in done.stderr
        assert "Traceback" not in done.stderr

    def test_folders_that_are_none(self, run_cli, tmp_path):
        assert "no run.json" in run_cli("results", tmp_path).stderr
        (tmp_path / "run.json").write_text("{}")
        assert "holds no tables yet" in run_cli("results", tmp_path).stderr
