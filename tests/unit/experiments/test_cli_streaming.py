"""Replays larger than a batch of results, from CSV and Parquet, and what is left of a run that is interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from experiments.measures import quantiles
from experiments.report import replay_figures as figures
from experiments.scenario.scenario import load_scenario
from simulator.engine.results import BATCH_REQUESTS
from simulator.workload import Trace
from traces.formats.registry import read_trace
from traces.io.parquet import write_parquet

ROOT = Path(__file__).parents[3]
REQUESTS = BATCH_REQUESTS + 5000
SLOW = """
import time
from pathlib import Path

from policies.heuristics.greedy import Gh


class Slow(Gh):
    @property
    def name(self):
        return "slow"

    def plan(self, problem, *, incumbent, stop, seed):
        if incumbent is not None:
            Path("planning").touch()
            time.sleep(60)
        return super().plan(problem, incumbent=incumbent, stop=stop, seed=seed)
"""


def write_csv(path, trace):
    start = np.datetime64("2023-11-16T18:00:00", "ns")
    times = start + np.rint(trace.arrival_s * 1e9).astype("timedelta64[ns]")
    rows = zip(np.datetime_as_string(times), trace.input_tokens, trace.output_tokens, strict=True)
    lines = [f"{moment.replace('T', ' ')},{h},{f}\n" for moment, h, f in rows]
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(lines))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A day of chats, more than a batch of results holds: as CSV and, read from there, as Parquet."""
    folder, rng = tmp_path_factory.mktemp("streaming"), np.random.default_rng(3)
    trace = Trace(
        sources=("conv",),
        arrival_s=np.sort(np.round(rng.uniform(0.0, 2e4, REQUESTS), 7)),
        source=np.zeros(REQUESTS, dtype=np.int32),
        input_tokens=rng.integers(10, 1500, REQUESTS).astype(np.int32),
        output_tokens=rng.integers(0, 60, REQUESTS).astype(np.int32),
    )
    write_csv(folder / "day_conv.csv", trace)
    write_parquet(folder / "day.parquet", [read_trace(folder / "day_conv.csv").trace])
    return {"csv": folder / "day_conv.csv", "parquet": folder / "day.parquet"}


@pytest.fixture(scope="module")
def directories(files, tmp_path_factory, run_cli):
    """Run directories of the same day, without figures; two policies, so that one file holds two runs."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_replay", lambda *_: [])
        for name, path in files.items():
            both = ["--policy", "gh", "--policy", "static[gh]", "--interval", "30m"]
            done = run_cli("replay", path, *both, "--out", folder / name)
            assert done.code == 0, done.stderr
    return folder


def test_parquet_and_csv_give_the_same_run(directories):
    for name in ("summary.json", "requests.parquet", "intervals.parquet", "rentals.parquet"):
        assert (directories / "csv" / name).read_bytes() == (directories / "parquet" / name).read_bytes()
    runs = [json.loads((directories / name / "run.json").read_text()) for name in ("csv", "parquet")]
    assert runs[0]["trace"]["sha256"] == runs[1]["trace"]["sha256"]


def test_requests_are_written_in_row_groups_of_a_batch(directories):
    metadata = pq.ParquetFile(directories / "csv" / "requests.parquet").metadata
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert rows == 2 * [BATCH_REQUESTS, REQUESTS - BATCH_REQUESTS]


def test_the_summary_is_what_the_requests_add_up_to(directories):
    """Computed again from the files, all requests of a run at once."""
    folder, scenario = directories / "csv", load_scenario("azure-2023")
    requests, rentals = (pd.read_parquet(folder / f"{name}.parquet") for name in ("requests", "rentals"))
    rules = {rule.name: rule for rule in scenario.types}
    for run in json.loads((folder / "summary.json").read_text())["runs"]:
        own = requests[requests["policy"] == run["policy"]]
        served = own[own["outcome"] == "served"]
        assert own["request"].tolist() == list(range(REQUESTS))
        assert (len(own), len(served)) == (run["arrived"], run["served"])
        for key in ("ttft_s", "tpot_s", "e2e_s"):
            expected = own[key].dropna().quantile([0.5, 0.95, 0.99]).tolist()
            assert list(run[key].values()) == pytest.approx(expected, rel=1e-12)
        assert run["quantiles_exact"]
        late = served["e2e_s"] > served["query_type"].map(lambda name: rules[name].delay_slo_s)
        late |= served["ttft_s"] > served["query_type"].map(lambda name: rules[name].ttft_slo_s)
        late |= served["tpot_s"] > served["query_type"].map(lambda name: rules[name].tpot_slo_s)
        assert run["slo_violations"] == late.sum() == own["slo_violated"].sum()
        penalty = served["query_type"].map(lambda name: rules[name].delay_penalty_usd_per_query_s) * served["e2e_s"]
        unserved = own[own["outcome"] != "served"]
        unmet_usd = sum(rules[name].unmet_penalty_usd_per_query for name in unserved["query_type"])
        stay = rentals[rentals["policy"] == run["policy"]]
        rental = ((stay["end_s"] - stay["rent_s"]) * stay["price_usd_per_h"]).sum() / 3600
        parts = run["cost_parts_usd"]
        assert parts["delay_penalty"] == pytest.approx(penalty.sum(), rel=1e-9)
        assert parts["unmet_penalty"] == pytest.approx(unmet_usd, rel=1e-9)
        assert parts["rental"] == pytest.approx(rental, rel=1e-9)


def test_quantiles_that_are_not_exact_are_labelled(files, run_cli, monkeypatch):
    monkeypatch.setattr(quantiles, "EXACT_VALUES", 1000)
    command = ["replay", files["parquet"], "--policy", "static[gh]"]
    assert "quantiles: to within 0.05 %" in run_cli(*command).stdout
    (near,) = json.loads(run_cli(*command, "--json").stdout)["runs"]
    monkeypatch.undo()
    assert "quantiles:" not in run_cli(*command).stdout
    (exact,) = json.loads(run_cli(*command, "--json").stdout)["runs"]
    assert (near["quantiles_exact"], exact["quantiles_exact"]) == (False, True)
    for key in ("ttft_s", "tpot_s", "e2e_s"):
        assert list(near[key].values()) == pytest.approx(list(exact[key].values()), rel=2**-11)
    changed = {"quantiles_exact", "ttft_s", "tpot_s", "e2e_s", "planning_s", "engine_cpu_s", "wall_s"}
    assert {k: v for k, v in near.items() if k not in changed} == {k: v for k, v in exact.items() if k not in changed}


def test_a_trace_beyond_what_ticks_hold_is_refused_before_anything_runs(run_cli, tmp_path):
    trace = Trace(
        sources=("conv",),
        arrival_s=np.array([0.0, 49 * 86400.0]),
        source=np.zeros(2, dtype=np.int32),
        input_tokens=np.array([10, 10], dtype=np.int32),
        output_tokens=np.array([10, 10], dtype=np.int32),
    )
    write_parquet(tmp_path / "long.parquet", [trace])
    done = run_cli("replay", tmp_path / "long.parquet", "--policy", "gh", "--out", tmp_path / "run")
    assert (done.code, done.stdout) == (2, "")
    assert "48.5 days" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["long.parquet"]


def interrupt(folder, *arguments):
    """Run a command until its slow policy plans anew, send it SIGINT, and give its exit code and standard error."""
    command = [sys.executable, "-c", "from experiments.cli.app import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (folder / "planning").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert stdout == ""
    return process.returncode, stderr


class TestInterrupted:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "slow.py").write_text(SLOW)
        return tmp_path

    def test_a_replay_says_how_far_each_policy_came_and_leaves_nothing(self, folder, files):
        both = ["--policy", "gh", "--policy", "slow.py:Slow"]
        code, said = interrupt(folder, "replay", files["parquet"], *both, "--interval", "1h", "--out", "runs/day")
        assert code == 130
        assert said == (
            "interrupted: reading the trace 100%, gh 100% (334.0 of 334.0 min), slow 18% (60.0 of 334.0 min); "
            "nothing was written\n"
        )
        assert {path.name for path in folder.iterdir()} <= {"slow.py", "planning", "__pycache__"}

    def test_an_earlier_run_stays_as_it_was(self, folder, files, run_cli):
        run = ["replay", files["parquet"], "--interval", "2h", "--out"]
        assert run_cli(*run, folder / "day", "--policy", "gh").code == 0
        before = {path: path.read_bytes() for path in (folder / "day").rglob("*") if path.is_file()}
        code, said = interrupt(folder, *run, "day", "--policy", "slow.py:Slow", "--overwrite")
        assert code == 130
        assert re.fullmatch(r"interrupted: .*slow 36% \(120\.0 of 334\.0 min\); nothing was written\n", said)
        assert {path: path.read_bytes() for path in (folder / "day").rglob("*") if path.is_file()} == before
        assert {path.name for path in folder.iterdir()} <= {"day", "slow.py", "planning", "__pycache__"}


def test_stress_runs_with_the_functions_of_the_scenario(run_cli, tmp_path):
    shipped = (ROOT / "experiments" / "scenarios" / "azure-2023.toml").read_text()
    (tmp_path / "double.py").write_text(
        "def double(p, n, c, base, a, b, d):\n    return 2 * (base + a * p + b * n + d * c)\n"
    )
    (tmp_path / "own.toml").write_text(shipped.replace("[engine]", '[engine]\nstep_time = "double.py:double"', 1))
    command = ["stress", "--policy", "gh", "--factors", "1", "--duration", "1m", "--json", "--scenario"]
    own, plain = run_cli(*command, tmp_path / "own.toml"), run_cli(*command, "azure-2023")
    assert "double: plain Python runs in the slower reference engine" in own.stderr

    def simulated(done):
        rows = json.loads(done.stdout)["rows"]
        return next(row for row in rows if (row["way"], row["inflated"]) == ("simulated", "delay"))

    slow, fast = simulated(own), simulated(plain)
    assert slow["arrived"] == fast["arrived"]
    assert slow["e2e_p50_s"] > 1.5 * fast["e2e_p50_s"]
    twice = simulated(run_cli("stress", "--policy", "gh", "--factors", "2", "--duration", "1m", "--json"))
    assert [slow[name] for name in ("e2e_p50_s", "e2e_p95_s")] == pytest.approx(
        [twice[name] for name in ("e2e_p50_s", "e2e_p95_s")], rel=1e-4
    )
