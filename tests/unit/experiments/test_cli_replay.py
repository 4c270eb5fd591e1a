"""The commands on good input: what they print, what they write, and that the same words give the same bytes."""

import json
import math
from datetime import datetime, timedelta
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from experiments.report import replay_figures as figures
from simulator.catalog import load_catalog
from simulator.planning.files import read_plan
from traces.formats.registry import READERS

POLICIES = ["gh", "agh", "milp"]
TIMES = {"planning_s", "engine_cpu_s", "wall_s"}
MACHINE = TIMES | {"engine"}
KEYS = MACHINE | {
    "policy",
    "seed",
    "arrived",
    "served",
    "rejected",
    "failed",
    "in_flight",
    "slo_violations",
    "cost_usd",
    "cost_parts_usd",
    "gpu_hours",
    "ttft_s",
    "tpot_s",
    "e2e_s",
    "replans",
}
PARTS = ["rental", "model_storage", "token_storage", "delay_penalty", "unmet_penalty"]
QUANTILES = ["p50", "p95", "p99"]
ROWS = {"conv": 250, "code": 150}
SPAN_S = 330.0
START = datetime(2023, 11, 16, 18, 0, 0)


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Two small files of the Azure form, some five minutes long, both from 18:00:00 on."""
    folder, rng = tmp_path_factory.mktemp("traces"), np.random.default_rng(7)
    for source, rows in ROWS.items():
        times_s = np.concatenate([[0.0], np.sort(rng.uniform(0, SPAN_S, rows - 1))])
        inputs = rng.integers(20, 4000, rows)
        outputs = rng.integers(1, 60 if source == "code" else 500, rows)
        lines = [
            f"{START + timedelta(seconds=float(time_s)):%Y-%m-%d %H:%M:%S.%f}0,{h},{f}"
            for time_s, h, f in zip(times_s, inputs, outputs, strict=True)
        ]
        text = "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]) + "\n"
        (folder / f"small_{source}.csv").write_text(text, encoding="utf-8")
    return [folder / f"small_{source}.csv" for source in ROWS]


@pytest.fixture(scope="module")
def command(traces):
    chosen = [item for name in POLICIES for item in ("--policy", name)]
    return ["replay", *traces, *chosen, "--interval", "2m", "--seed", "3", "--json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "small"


@pytest.fixture(scope="module")
def done(run_cli, command, folder):
    return run_cli(*command, "--out", folder)


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves the figures out where they are not what is tested."""
    monkeypatch.setattr(figures, "draw_replay", lambda *_: [])


@pytest.fixture(scope="module")
def runs(done):
    assert done.code == 0, done.stderr
    return {run["policy"]: run for run in json.loads(done.stdout)["runs"]}


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_times(run):
    return {key: value for key, value in run.items() if key not in MACHINE}


def leaves(value, path=()):
    """Every number and text in a JSON value, with the keys that lead to it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path, value
    else:
        for key, item in items:
            yield from leaves(item, (*path, key))


class TestReplay:
    def test_standard_output_is_one_json_object_and_standard_error_is_empty(self, done):
        assert done.code == 0
        assert done.stderr == ""
        assert done.stdout.startswith("{\n")
        assert list(json.loads(done.stdout)) == ["runs"]

    def test_what_a_run_tells(self, runs):
        assert list(runs) == POLICIES
        for run in runs.values():
            assert set(run) >= KEYS
            assert (run["seed"], run["engine"], run["replans"]) == (3, "compiled", 2)
            for key in ("ttft_s", "tpot_s", "e2e_s"):
                assert list(run[key]) == QUANTILES
                assert sorted(run[key].values()) == list(run[key].values())
            assert all(run[key] >= 0 for key in TIMES)

    def test_no_request_is_lost(self, runs):
        for run in runs.values():
            assert run["arrived"] == sum(ROWS.values())
            assert run["arrived"] == run["served"] + run["rejected"] + run["failed"] + run["in_flight"]
            assert run["served"] > 0
            assert 0 <= run["slo_violations"] <= run["served"]

    def test_costs_add_up(self, runs):
        for run in runs.values():
            assert list(run["cost_parts_usd"]) == PARTS
            assert sum(run["cost_parts_usd"].values()) == pytest.approx(run["cost_usd"], rel=1e-12)
            assert all(part >= 0 for part in run["cost_parts_usd"].values())
            assert run["cost_parts_usd"]["rental"] > 0

    def test_what_a_run_leaves(self, runs, folder):
        names = set(files_of(folder))
        assert {"run.json", "summary.json", "timing.json"} <= names
        assert {"requests.parquet", "intervals.parquet", "rentals.parquet"} <= names
        assert len([name for name in names if name.endswith(".png")]) >= 3
        assert [path.name for path in sorted((folder / "plans").iterdir())] == ["0-gh", "1-agh", "2-milp"]
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def test_the_summary_is_what_was_printed_without_the_times(self, runs, folder):
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["runs"] == [without_times(run) for run in runs.values()]
        timing = json.loads((folder / "timing.json").read_text())
        assert [set(run) for run in timing["runs"]] == [MACHINE | {"policy", "seed"}] * 3

    def test_the_tables_agree_with_the_summary(self, runs, folder):
        requests = pd.read_parquet(folder / "requests.parquet")
        intervals = pd.read_parquet(folder / "intervals.parquet")
        rentals = pd.read_parquet(folder / "rentals.parquet")
        for name, run in runs.items():
            own = requests[requests["policy"] == name]
            counts = own["outcome"].value_counts()
            assert len(own) == run["arrived"]
            assert counts["served"] == run["served"]
            assert int(own["slo_violated"].sum()) == run["slo_violations"]
            assert own["e2e_s"].quantile(0.95) == pytest.approx(run["e2e_s"]["p95"])
            table = intervals[intervals["policy"] == name]
            for key in ("arrived", "served", "rejected", "failed", "in_flight", "slo_violations"):
                assert table[key].sum() == run[key]
            assert sorted(set(table["interval_start_s"])) == [0.0, 120.0, 240.0]
            stay = rentals[rentals["policy"] == name]
            hours = (stay["end_s"] - stay["rent_s"]) / 3600
            assert (hours * stay["price_usd_per_h"]).sum() == pytest.approx(run["cost_parts_usd"]["rental"])
            assert (hours * stay["gpus"]).sum() == pytest.approx(run["gpu_hours"])
        assert set(requests["source"]) == set(ROWS)

    def test_every_plan_is_kept_and_can_be_read(self, runs, folder):
        for number, name in enumerate(runs):
            plans = sorted((folder / "plans" / f"{number}-{name}").iterdir())
            assert [path.name for path in plans] == ["0000000s.json", "0000120s.json", "0000240s.json"]
            assert {read_plan(path).policy for path in plans} == {name}

    def test_a_second_process_gives_the_same_bytes(self, run_cli, command, runs, folder, tmp_path):
        other = tmp_path / "again"
        again = run_cli(*command, "--out", other, process=True)
        assert (again.code, again.stderr) == (0, "")
        assert [without_times(run) for run in json.loads(again.stdout)["runs"]] == [
            without_times(run) for run in runs.values()
        ]
        first, second = files_of(folder), files_of(other)
        first.pop("timing.json"), second.pop("timing.json")
        assert sorted(first) == sorted(second)
        assert [name for name in first if first[name] != second[name]] == []

    def test_the_reference_engine_gives_the_same_bytes(self, run_cli, command, runs, folder, tmp_path):
        other = tmp_path / "reference"
        again = run_cli(*command, "--engine", "reference", "--out", other)
        assert (again.code, again.stderr) == (0, "")
        found = json.loads(again.stdout)["runs"]
        assert {run["engine"] for run in found} == {"reference"}
        assert [without_times(run) for run in found] == [without_times(run) for run in runs.values()]
        first, second = files_of(folder), files_of(other)
        first.pop("timing.json"), second.pop("timing.json")
        assert [name for name in first if first[name] != second[name]] == []

    def test_one_policy_does_not_know_of_the_others(self, run_cli, traces, runs):
        alone = run_cli("replay", *traces, "--policy", "agh", "--interval", "2m", "--seed", "3", "--json")
        assert without_times(json.loads(alone.stdout)["runs"][0]) == without_times(runs["agh"])

    def test_the_table(self, run_cli, traces):
        shown = run_cli("replay", *traces, "--policy", "gh", "--policy", "gh", "--interval", "5m")
        assert shown.code == 0
        assert shown.stderr == ""
        assert "400 requests over" in shown.stdout
        for label in ("cost [USD]", "GPU-hours", "arrived", "served", "TTFT", "TPOT", "E2E", "planning [s]"):
            assert label in shown.stdout

    def test_a_trace_can_be_given_a_source(self, run_cli, traces):
        done = run_cli("replay", f"code={traces[0]}", "--policy", "gh", "--interval", "5m", "--json")
        assert json.loads(done.stdout)["runs"][0]["arrived"] == ROWS["conv"]

    @pytest.mark.usefixtures("undrawn")
    def test_overwriting_replaces_the_whole_folder(self, run_cli, traces, tmp_path):
        target = tmp_path / "run"
        for seed, extra in ((0, []), (1, ["--overwrite"])):
            run = ["replay", *traces, "--policy", "gh", "--interval", "5m", "--seed", seed, "--out", target, *extra]
            assert run_cli(*run).code == 0
            assert json.loads((target / "run.json").read_text())["options"]["seed"] == seed
            assert not (target / "note.txt").exists()
            (target / "note.txt").write_text("of the first run")
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    @pytest.mark.usefixtures("undrawn")
    def test_the_content_hash_names_what_was_run(self, run_cli, traces, tmp_path):
        hashes = []
        same = ["--policy", "gh", "--interval", "5m", "--seed", 0]
        for name, extra in enumerate(([], same, ["--seed", 1], ["--interval", "4m"], ["--policy", "static[gh]"])):
            run = ["replay", traces[0], *(extra if "--policy" in extra else ["--policy", "gh", *extra])]
            assert run_cli(*run, "--out", tmp_path / str(name)).code == 0
            hashes.append(json.loads((tmp_path / str(name) / "run.json").read_text())["content_hash"])
        assert hashes[0] == hashes[1]
        assert len(set(hashes)) == 4

    def test_a_run_that_fails_while_writing_leaves_nothing(self, run_cli, traces, tmp_path, monkeypatch):
        target = tmp_path / "run"
        arguments = ["replay", traces[0], "--policy", "gh", "--out", target]

        def fail(*_):
            raise RuntimeError("no ink")

        monkeypatch.setattr(figures, "draw_replay", fail)
        with pytest.raises(RuntimeError, match="no ink"):
            run_cli(*arguments)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(figures, "draw_replay", lambda *_: [])
        assert run_cli(*arguments).code == 0
        kept = files_of(target)
        monkeypatch.setattr(figures, "draw_replay", fail)
        with pytest.raises(RuntimeError, match="no ink"):
            run_cli(*arguments, "--overwrite")
        assert files_of(target) == kept
        assert list(tmp_path.iterdir()) == [target]

    def test_a_plan_is_replayed_as_it_is(self, run_cli, traces, runs, folder, tmp_path):
        plan = folder / "plans" / "0-gh" / "0000000s.json"
        done = run_cli(
            "replay", *traces, "--plan", plan, "--interval", "2m", "--seed", "3", "--out", tmp_path / "run", "--json"
        )
        (run,) = json.loads(done.stdout)["runs"]
        assert run["policy"] == "plan[gh]"
        assert (run["replans"], run["planning_s"]) == (0, 0.0)
        assert run["arrived"] == sum(ROWS.values())
        assert run["arrived"] == run["served"] + run["rejected"] + run["failed"] + run["in_flight"]
        assert [path.name for path in (tmp_path / "run" / "plans").iterdir()] == ["0-plan_gh_"]
        static = run_cli("replay", *traces, "--policy", "static[gh]", "--interval", "2m", "--seed", "3", "--json")
        expected = json.loads(static.stdout)["runs"][0]
        same = ("cost_usd", "served", "slo_violations", "ttft_s", "e2e_s", "gpu_hours")
        assert {key: run[key] for key in same} == {key: expected[key] for key in same}

    @pytest.mark.usefixtures("undrawn")
    def test_plans_of_short_intervals_are_all_kept(self, run_cli, traces, tmp_path):
        short = tmp_path / "short_conv.csv"
        short.write_text("".join(traces[0].read_text().splitlines(keepends=True)[:4]))
        done = run_cli("replay", short, "--policy", "gh", "--interval", "0.4s", "--out", tmp_path / "run")
        assert done.code == 0
        horizon_s = 60.0
        assert len(list((tmp_path / "run" / "plans" / "0-gh").iterdir())) == math.ceil(horizon_s / 0.4)

    @pytest.mark.usefixtures("done")  # writes the folder
    def test_a_run_that_rents_nothing_is_written(self, run_cli, traces, folder, tmp_path):
        document = json.loads((folder / "plans" / "0-gh" / "0000000s.json").read_text())
        names = ("code-short", "code-long", "chat-short", "chat-long")
        document |= {"deployments": [], "routing": [], "unmet": [{"query_type": name, "share": 1} for name in names]}
        (tmp_path / "nothing.json").write_text(json.dumps(document))
        arguments = ["replay", *traces, "--plan", tmp_path / "nothing.json", "--json"]
        (run,) = json.loads(run_cli(*arguments).stdout)["runs"]
        assert (run["served"], run["rejected"], run["gpu_hours"]) == (0, sum(ROWS.values()), 0.0)
        assert run["ttft_s"] == dict.fromkeys(QUANTILES)
        assert run_cli(*arguments, "--out", tmp_path / "run").code == 0
        assert len(pd.read_parquet(tmp_path / "run" / "requests.parquet")) == sum(ROWS.values())


class TestSyntheticArrivals:
    @pytest.fixture
    def short(self, tmp_path):
        """The shipped scenario with a few minutes of synthetic arrivals."""
        text = (resources.files("experiments") / "scenarios" / "azure-2023.toml").read_text("utf-8")
        path = tmp_path / "short.toml"
        path.write_text(text.replace("[forecast]", "[synthetic]\nduration_s = 90\n\n[forecast]"))
        return path

    def test_without_a_trace_the_scenario_provides(self, run_cli, short):
        first, second, other = (
            json.loads(run_cli("replay", "--scenario", short, "--policy", "gh", "--seed", seed, "--json").stdout)
            for seed in (0, 0, 1)
        )
        assert without_times(first["runs"][0]) == without_times(second["runs"][0])
        assert first["runs"][0]["arrived"] != other["runs"][0]["arrived"]

    def test_the_paper_world(self, run_cli, traces):
        done = run_cli("replay", *traces, "--scenario", "paper", "--policy", "gh", "--interval", "5m", "--json")
        assert done.code == 0, done.stderr
        (run,) = json.loads(done.stdout)["runs"]
        assert run["arrived"] == sum(ROWS.values())


class TestAzure:
    @pytest.mark.parametrize(
        "policies", [["gh"], pytest.param(["gh", "agh", "milp"], marks=pytest.mark.slow)], ids="+".join
    )
    def test_every_request_of_the_hour_is_accounted_for(self, run_cli, data_dir, policies):
        pair = [data_dir / "traces" / f"AzureLLMInferenceTrace_{source}.csv" for source in ("conv", "code")]
        chosen = [item for name in policies for item in ("--policy", name)]
        done = run_cli("replay", *pair, *chosen, "--interval", "5m", "--json")
        assert done.code == 0, done.stderr
        runs = json.loads(done.stdout)["runs"]
        assert [run["policy"] for run in runs] == policies
        for run in runs:
            assert run["arrived"] == 28_185
            assert run["arrived"] == run["served"] + run["rejected"] + run["failed"] + run["in_flight"]
            assert run["replans"] == 11
            assert run["served"] / run["arrived"] > 0.9
            assert sum(run["cost_parts_usd"].values()) == pytest.approx(run["cost_usd"])


class TestPlanAndCheck:
    @pytest.fixture
    def problem(self, data_dir):
        return data_dir / "problems" / "6x6x10-seed0.json.gz"

    def test_round_trip(self, run_cli, problem, tmp_path):
        path = tmp_path / "plan.json"
        made = run_cli("plan", "--problem", problem, "--policy", "agh", "--out", path, "--json")
        assert (made.code, made.stderr) == (0, "")
        assert json.loads(made.stdout) == json.loads(path.read_text())
        checked = run_cli("check", "--problem", problem, path, "--json")
        assert (checked.code, checked.stderr) == (0, "")
        verdict = json.loads(checked.stdout)
        assert verdict["accepted"] is True
        assert verdict["violations"] == []
        assert verdict["cost_usd"] == pytest.approx(json.loads(made.stdout)["cost_usd"])
        assert list(verdict["cost_parts_usd"]) == PARTS
        assert run_cli("check", "--problem", problem, path).stdout.startswith("accepted: every constraint holds")

    def test_a_doctored_plan_is_refused(self, run_cli, problem, tmp_path):
        path = tmp_path / "plan.json"
        assert run_cli("plan", "--problem", problem, "--policy", "gh", "--out", path).code == 0
        plan = json.loads(path.read_text())
        plan["cost_usd"] -= 5.0
        plan["deployments"][0]["replicas"] = 40
        path.write_text(json.dumps(plan))
        refused = run_cli("check", "--problem", problem, path, "--json")
        assert refused.code == 1
        verdict = json.loads(refused.stdout)
        assert verdict["accepted"] is False
        found = {violation["constraint"]: violation for violation in verdict["violations"]}
        assert set(found) == {"replicas", "budget", "stated cost"}
        assert found["replicas"]["value"] == 40
        assert found["replicas"]["excess"] == 40 - found["replicas"]["limit"]
        shown = run_cli("check", "--problem", problem, path)
        assert shown.code == 1
        assert shown.stdout.startswith("refused: 3 broken")

    def test_a_plan_for_another_problem(self, run_cli, problem, data_dir, tmp_path):
        path = tmp_path / "plan.json"
        other = data_dir / "problems" / "10x10x10-seed0.json.gz"
        assert run_cli("plan", "--problem", other, "--policy", "gh", "--out", path).code == 0
        refused = run_cli("check", "--problem", problem, path)
        assert (refused.code, refused.stdout) == (2, "")
        assert "deployments[" in refused.stderr

    def test_the_table(self, run_cli, problem):
        shown = run_cli("plan", "--problem", problem, "--policy", "gh")
        assert shown.code == 0
        assert "bound none proven" in shown.stdout
        assert "the checker accepts the plan" in shown.stdout


class TestList:
    def names(self, run_cli, what):
        done = run_cli("list", what, "--json")
        assert (done.code, done.stderr) == (0, "")
        listed = json.loads(done.stdout)
        assert list(listed) == [what]
        return [row["name"] for row in listed[what]], listed[what]

    def test_all_kinds(self, run_cli):
        assert set(self.names(run_cli, "policies")[0]) >= {"gh", "agh", "milp", "static"}
        assert set(self.names(run_cli, "scenarios")[0]) == {"azure-2023", "paper", "paper-base"}
        assert set(self.names(run_cli, "traces")[0]) >= {*READERS, "azure-2023"}
        assert set(self.names(run_cli, "models")[0]) == set(load_catalog().models)
        assert set(self.names(run_cli, "gpus")[0]) >= set(load_catalog().gpus)

    @pytest.mark.parametrize("what", ["models", "gpus"])
    def test_values_have_units_and_sources(self, run_cli, what):
        _, rows = self.names(run_cli, what)
        for row in rows:
            assert row["unit"]
            assert row["kind"]
            assert row["source"]

    @pytest.mark.parametrize("what", ["policies", "scenarios", "models", "gpus", "traces"])
    def test_as_a_table(self, run_cli, what):
        done = run_cli("list", what)
        assert (done.code, done.stderr) == (0, "")
        names, _ = self.names(run_cli, what)
        assert names[0][:4] in done.stdout

    @pytest.mark.parametrize("command", [[], ["replay"], ["plan"], ["check"], ["stress"], ["list"]])
    def test_help(self, run_cli, command):
        done = run_cli(*command, "--help")
        assert done.code == 0
        assert ("Example" in done.stdout) == bool(command)


OWN = """
from dataclasses import dataclass, replace

from policies.heuristics.greedy import Gh


@dataclass(frozen=True)
class Mine:
    name: str = "mine"

    def plan(self, problem, *, incumbent, stop, seed):
        return replace(Gh().plan(problem, incumbent=incumbent, stop=stop, seed=seed), policy=self.name)


class Cheat(Mine):
    def plan(self, problem, *, incumbent, stop, seed):
        plan = super().plan(problem, incumbent=incumbent, stop=stop, seed=seed)
        return replace(plan, cost_usd=plan.cost_usd / 2)


class Clumsy(Mine):
    def plan(self, problem, *, incumbent, stop, seed):
        return 1 / 0


class Greedy:
    def __init__(self, money):
        self.money = money


class NoPlan:
    name = "no plan"
"""


class TestPolicyOfTheUser:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "own.py"
        path.write_text(OWN)
        return path

    def test_it_is_replayed_like_any_other(self, run_cli, traces, file, tmp_path):
        both = ["--policy", f"{file}:Mine", "--policy", "gh"]
        done = run_cli("replay", *traces, *both, "--interval", "5m", "--out", tmp_path / "run", "--json")
        assert done.code == 0, done.stderr
        mine, gh = (without_times(run) for run in json.loads(done.stdout)["runs"])
        assert mine == {**gh, "policy": "mine"}

    def test_it_plans(self, run_cli, data_dir, file):
        problem = data_dir / "problems" / "6x6x10-seed0.json.gz"
        done = run_cli("plan", "--problem", problem, "--policy", f"{file}:Mine", "--json")
        assert json.loads(done.stdout)["policy"] == "mine"

    @pytest.mark.parametrize(("name", "says"), [("Cheat", "stated cost of the plan"), ("Clumsy", "ZeroDivisionError")])
    def test_its_defects_fail_the_run_and_leave_nothing(self, run_cli, traces, file, tmp_path, name, says):
        done = run_cli("replay", traces[0], "--policy", f"{file}:{name}", "--out", tmp_path / "run")
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr.startswith("failed: policy mine ")
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert {path.name for path in tmp_path.iterdir()} <= {"own.py", "__pycache__"}

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("Yours", "has no class 'Yours'"),
            ("Greedy", "Greedy() cannot be made without arguments"),
            ("NoPlan", "expected an attribute `name` and a method `plan`"),
        ],
    )
    def test_what_is_no_policy_is_refused(self, run_cli, traces, file, name, says):
        done = run_cli("replay", traces[0], "--policy", f"{file}:{name}")
        assert (done.code, done.stdout) == (2, "")
        assert says in done.stderr

    def test_a_file_that_cannot_be_imported(self, run_cli, traces, tmp_path):
        (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
        done = run_cli("replay", traces[0], "--policy", f"{tmp_path / 'broken.py'}:Mine")
        assert (done.code, done.stdout) == (2, "")
        assert "fails on import: ModuleNotFoundError" in done.stderr
