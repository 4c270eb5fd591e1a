"""`replay` with another engine, with functions of the user, with a token log, and interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import simulator.engine.kernel_memory

ROOT = Path(__file__).parents[3]
TINY = ["replay", "--policy", "gh", "--interval", "10m", "--scenario", "short.toml"]
MACHINE = {"engine", "planning_s", "engine_cpu_s", "wall_s"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the examples and four minutes of the shipped scenario, with more requests."""
    shipped = (ROOT / "experiments" / "scenarios" / "azure-2023.toml").read_text()
    assert "[synthetic]" not in shipped
    cut = shipped.replace("[engine]", "[synthetic]\nduration_s = 240\nrate_factor = 3\n\n[engine]", 1)
    cut = re.sub(r"arrival_per_h = (\d+)", lambda found: f"arrival_per_h = {3 * int(found[1])}", cut)
    cut = cut.replace("budget_usd_per_h = ", "budget_usd_per_h = 9")
    (tmp_path / "short.toml").write_text(cut)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(done):
    assert done.code == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    return {key: value for key, value in run.items() if key not in MACHINE}, run["engine"]


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("--step-time", "examples/step_time.py:crowded"),
        ("--admission", "examples/admission.py:batch_by_batch"),
        ("--router", "examples/router.py:shortest_queue"),
    ],
)
def test_an_example_function_gives_the_same_in_both_engines_and_matters(folder, run_cli, option, place):
    own, _ = run_of(run_cli(*TINY, "--json"))
    fast, name = run_of(run_cli(*TINY, option, place, "--json"))
    assert name == "compiled"
    slow, name = run_of(run_cli(*TINY, option, place, "--engine", "reference", "--json"))
    assert name == "reference"
    assert fast == slow
    assert fast != own


def test_a_plain_python_function_runs_in_the_reference_engine(folder, run_cli):
    done = run_cli(*TINY, "--router", "examples/plain_router.py:keep_short_answers_apart", "--json")
    assert run_of(done)[1] == "reference"
    assert done.stderr.splitlines() == [
        "warning: keep_short_answers_apart: plain Python runs in the slower reference engine; numba.njit makes it fast"
    ]


def test_functions_of_the_scenario_are_found_beside_it(folder, run_cli):
    scenario = (folder / "short.toml").read_text()
    assert "[engine]" in scenario
    (folder / "mine.toml").write_text(
        scenario.replace("[engine]", '[engine]\nrouter = "examples/router.py:shortest_queue"', 1)
    )
    stated, _ = run_of(run_cli(*TINY[:-1], "mine.toml", "--json"))
    asked, _ = run_of(run_cli(*TINY, "--router", "examples/router.py:shortest_queue", "--json"))
    assert stated == asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "fast"], "there is no engine 'fast'"),
        (["--router", "none.py:f"], "router 'none.py:f': no such file: none.py"),
        (["--router", "f"], "router 'f': expected path/to/file.py:function"),
        (["--step-time", "examples/step_time.py:slow"], "step_time.py has no function 'slow'"),
        (
            ["--admission", "examples/router.py:shortest_queue"],
            "expected the parameters (prompt_tokens, free_kv_tokens",
        ),
        (["--token-log"], "--token-log needs --out"),
    ],
)
def test_bad_options_are_one_message_and_exit_code_2(folder, run_cli, options, message):
    done = run_cli(*TINY, *options)
    assert done.code == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_function_that_fails_ends_the_run_with_exit_code_1_and_leaves_nothing(folder, run_cli):
    (folder / "bad.py").write_text("def f(outstanding, held, routed, uniform, h, g):\n    return 99\n")
    done = run_cli(*TINY, "--router", "bad.py:f", "--out", "deep/er/results")
    assert done.code == 1
    assert "failed: router f: chose replica 99" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["bad.py", "examples", "short.toml"]


def test_without_numba_the_reference_engine_runs_with_one_warning(folder, run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "simulator.engine.compiled", None)
    done = run_cli(*TINY, "--json")
    assert run_of(done)[1] == "reference"
    (line,) = done.stderr.splitlines()
    assert "the compiled engine cannot be had" in line


def test_the_first_run_on_a_machine_says_that_it_compiles(folder, run_cli, monkeypatch):
    monkeypatch.setattr(simulator.engine.kernel_memory, "is_prepared", lambda: False)
    done = run_cli(*TINY, "--json")
    assert done.stderr.startswith("compiling the engine for this machine")


def test_an_interrupted_replay_says_how_far_it_came_and_leaves_nothing(folder):
    command = [sys.executable, "-m", "experiments.cli.app", "replay", "--engine", "reference", "--policy", "gh"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--out", "runs/results"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (folder / "runs").exists():  # the run directory is begun when the trace has been read
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    (line,) = stderr.splitlines()
    assert line.startswith("interrupted: reading the trace 100%, gh ")
    assert line.endswith("nothing was written")
    assert not (folder / "runs").exists()


def test_a_token_log_tells_each_requests_life(folder, run_cli):
    done = run_cli(*TINY, "--token-log", "--out", "run")
    assert done.code == 0, done.stderr
    requests = pd.read_parquet(folder / "run" / "requests.parquet").set_index("request")
    longest = int(requests["output_tokens"].idxmax())
    shown = run_cli("follow", longest, "run")
    assert shown.code == 0, shown.stderr
    assert f"request {longest} under gh" in shown.stdout
    life = json.loads(run_cli("follow", longest, "run", "--json").stdout)
    row = requests.loc[longest]
    assert len(life["tokens"]) == row["output_tokens"]
    assert life["tokens"][0] == pytest.approx(row["ttft_s"])
    assert life["tokens"][-1] == pytest.approx(row["e2e_s"])
    assert (
        sum(
            line.split()[-2:-1] == ["token"]
            for line in run_cli("follow", longest, "run", "--tokens").stdout.splitlines()
        )
        == row["output_tokens"]
    )
    missing = run_cli("follow", 10**6, "run")
    assert missing.code == 2
    assert "has no request 1000000" in missing.stderr
