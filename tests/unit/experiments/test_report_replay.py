"""Reports of replays at the edges: one policy, equal policies, nothing served, folders that somebody has changed."""

import json
import shutil
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from experiments.report import document_of
from experiments.show.page import document_html
from experiments.show.parts import single_charts
from experiments.show.units import clock
from simulator.errors import InputError

FRAMES = ("intervals", "costs", "load", "rentals", "requests", "agreement")


@pytest.fixture(scope="module")
def replayed(run_cli, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edges")
    text = (resources.files("experiments") / "scenarios" / "azure-2023.toml").read_text("utf-8")
    scenario = folder / "short.toml"
    scenario.write_text(text + '\n[synthetic]\nprofile = "azure-2023"\nduration_s = 300.0\n')
    done = run_cli("replay", "--scenario", scenario, "--policy", "gh", "--policy", "agh", "--interval", "2m",
                   "--out", folder / "r")  # fmt: skip
    assert done.code == 0, done.stderr
    return folder / "r"


@pytest.fixture
def copy(replayed, tmp_path):
    return shutil.copytree(replayed, tmp_path / "copy")


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_frame(folder, name, change):
    path = folder / f"{name}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def rename(folder, names):
    def change(summary):
        for run in summary["runs"]:
            run["policy"] = names[run["policy"]]

    change_json(folder / "summary.json", change)
    for name in FRAMES:
        change_frame(folder, name, lambda frame: frame.assign(policy=frame["policy"].map(names)))


def keep_only(folder, policy):
    change_json(folder / "summary.json", lambda s: s.update(runs=[r for r in s["runs"] if r["policy"] == policy]))
    for name in FRAMES:
        change_frame(folder, name, lambda frame: frame[frame["policy"] == policy])
    shutil.rmtree(folder / "plans" / "1-agh")


def charts_of(document):
    return {chart.key: chart for chart in single_charts(document.charts)}


def test_one_policy_is_compared_with_nobody(copy):
    keep_only(copy, "gh")
    summary = " ".join(document_of(copy).summary)
    assert "Cost: " in summary
    for word in ("heapest", "dearest", "ewest", "most", "every policy", "told apart"):
        assert word not in summary


def test_the_summary_names_nobody_where_the_numbers_do_not_tell_apart(copy):
    def change(summary):
        for run in summary["runs"]:
            run.update(cost_usd=1.0 + 1e-5 * len(run["policy"]), goodput_share=1.0)

    change_json(copy / "summary.json", change)
    _, cost, violations = document_of(copy).summary
    assert cost == "Cost: 1.00 USD for every policy."
    assert violations.endswith(": 0.00% for every policy.")


def test_who_is_best_and_by_how_much(copy):
    def change(summary):
        for run, usd, share in zip(summary["runs"], (2.0, 3.5), (0.9, 0.99), strict=True):
            run.update(cost_usd=usd, goodput_share=share)

    change_json(copy / "summary.json", change)
    _, cost, violations = document_of(copy).summary
    assert cost == "Cheapest: gh, 2.00 USD; dearest: agh, 3.50 USD."
    assert violations.endswith("agh, 1.00%; most: gh, 10.00%.")


def test_the_last_interval_has_a_width(copy):
    starts = pd.read_parquet(copy / "intervals.parquet")["interval_start_s"].unique()
    end_s = pd.read_parquet(copy / "load.parquet")["end_s"].max()
    assert max(starts) < end_s <= max(starts) + 120.0
    for line in charts_of(document_of(copy))["violations_over_time"].lines:
        assert len(line.x) == len(line.y) == len(starts) + 1
        assert line.x[-1] == pytest.approx(end_s / clock(end_s)[0])
        assert line.x[-1] > line.x[-2]


def test_quantiles_are_close_to_those_of_all_requests(copy):
    requests = pd.read_parquet(copy / "requests.parquet")
    for key, scale in (("ttft", 1.0), ("tpot", 1000.0), ("e2e", 1.0)):
        for line in charts_of(document_of(copy))[key].lines:
            values = requests.loc[requests["policy"] == line.name, f"{key}_s"].dropna().to_numpy() * scale
            values = values[values > 0]
            exact = np.quantile(values, np.array(line.y) / 100, method="inverted_cdf")
            assert np.all(np.array(line.x) >= exact * (1 - 1e-9))
            assert np.allclose(line.x, exact, rtol=0.0024)


def agreement_of(document):
    (section,) = (section for section in document.sections if section.title == "Planned against simulated")
    (table,) = section.tables
    return section, table


def test_planned_against_simulated_has_every_request_that_was_served(copy):
    frame = pd.read_parquet(copy / "agreement.parquet")
    served = {run["policy"]: run["served"] for run in json.loads((copy / "summary.json").read_text())["runs"]}
    assert frame.groupby("policy")["requests"].sum().to_dict() == served
    section, table = agreement_of(document_of(copy))
    assert [row[:2] for row in table.rows] == frame[["policy", "deployment"]].to_numpy().tolist()
    assert len(section.text) == 2
    assert all(line.startswith(f"{policy}: ") for line, policy in zip(section.text, ("gh", "agh"), strict=True))
    keep_only(copy, "gh")
    section, _ = agreement_of(document_of(copy))
    assert section.text[0].startswith("Planned against simulated, mean over requests: off in ")


def test_what_was_not_planned_for_is_a_dash(copy):
    nothing = {"planned_load": np.nan, "planned_tpot_s": np.nan, "planned_delay_s": np.nan}
    change_frame(copy, "agreement", lambda frame: frame.assign(**nothing))
    section, table = agreement_of(document_of(copy))
    assert all(cell.startswith("- / ") and "%" not in cell for row in table.rows for cell in row[3:])
    assert all("cannot be compared" in line for line in section.text)


def test_names_that_differ_in_signs_only_have_charts_of_their_own(copy):
    rename(copy, {"gh": "gh[-m1]", "agh": "gh[+m1]"})
    document = document_of(copy)
    for charts in (document.charts, single_charts(document.charts)):
        assert len({chart.key for chart in charts}) == len(charts)
    titles = [chart.title for chart in single_charts(document.charts) if chart.key.startswith("gpus_")]
    assert titles == ["gh[-m1]", "gh[+m1]"]


def test_names_cannot_break_out(copy):
    rename(copy, {"gh": "<script>alert(1)</script>", "agh": "</script>"})
    page = document_html(document_of(copy))
    assert "<script>alert" not in page
    assert page == document_html(document_of(copy)), "the same bytes twice"


def test_nothing_served_and_nothing_arrived(copy):
    none = dict.fromkeys(("p50", "p95", "p99"))

    def change(summary):
        for run in summary["runs"]:
            run.update(arrived=0, served=0, goodput_share=None, ttft_s=none, tpot_s=none, e2e_s=none)

    change_json(copy / "summary.json", change)
    for name in ("requests", "intervals"):
        change_frame(copy, name, lambda frame: frame.iloc[:0])
    document = document_of(copy)
    assert [line for key in ("ttft", "tpot", "e2e") for line in charts_of(document)[key].lines] == []
    table = {row[0]: row[1:] for row in document.sections[0].tables[0].rows}
    assert table["served"] == ["0", "0"]
    assert table["goodput: served within all limits [%]"] == ["-", "-"]
    assert table["TTFT p95 [s]"] == table["TPOT p95 [ms]"] == table["E2E p95 [s]"] == ["-", "-"]
    assert "chart-latency_cdf" in document_html(document)


def test_what_lies_beside_the_plans_does_not_matter(copy):
    (copy / "plans" / "notes").mkdir()
    assert {"plan-0", "plan-1"} <= set(charts_of(document_of(copy)))


class TestChanged:
    """Folders that somebody has changed give one clear message."""

    def says(self, folder, text):
        with pytest.raises(InputError, match=text) as caught:
            document_of(folder)
        assert len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize("name", FRAMES)
    def test_a_column_is_gone(self, copy, name):
        change_frame(copy, name, lambda frame: frame.drop(columns="policy"))
        self.says(copy, rf"{name}\.parquet: cannot be read: ")

    @pytest.mark.parametrize("content", ["{}", '{"runs": [{}]}', '{"runs": null}'])
    def test_the_summary_is_another(self, copy, content):
        (copy / "summary.json").write_text(content)
        self.says(copy, r"summary\.json")

    def test_the_summary_is_empty(self, copy):
        (copy / "summary.json").write_text('{"runs": []}')
        self.says(copy, r"summary\.json: holds no runs")

    @pytest.mark.parametrize("name", ["trace", "scenario", "options"])
    def test_the_marker_lacks_a_part(self, copy, name):
        change_json(copy / "run.json", lambda marker: marker.pop(name))
        self.says(copy, rf"run\.json or summary\.json is damaged \(KeyError\('{name}'\)\)")

    def test_the_format_is_no_word(self, copy):
        change_json(copy / "run.json", lambda marker: marker.update(format=["a"]))
        self.says(copy, "is of another version")

    def test_the_plans_of_one_policy_are_gone(self, copy):
        shutil.rmtree(copy / "plans" / "1-agh")
        self.says(copy, "plans: no plans: the run directory is not whole, those of agh are missing")
