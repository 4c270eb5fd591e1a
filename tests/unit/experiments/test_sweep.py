"""Sweeps: identity, skipping, failing, dying, disks that are full, and the same bytes at the end whatever happened."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import joblib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.show.progress import Interrupted
from experiments.studies.tasks import perform
from experiments.sweep import folder as folder_module
from experiments.sweep.folder import read_results
from experiments.sweep.runner import run_sweep
from experiments.sweep.schema import COLUMNS, SCHEMA, results_table
from experiments.sweep.specification import Run, Sweep, code_version, hash_files, run_id
from experiments.sweep.workers import _JoblibInLots, workers
from simulator.errors import InputError, RunError
from tests.sweep_samples import content, plan_run, run, sweep_of

ROOT = Path(__file__).parents[3]


# -- identity


def test_a_run_is_named_by_its_content_alone():
    one = plan_run(1)
    assert run_id(one, {}) == run_id(Run(task="plan", parameters=dict(reversed(one.parameters.items())), label="x"), {})
    assert run_id(one, {}) != run_id(plan_run(2), {})
    assert run_id(one, {}) != run_id(plan_run(1, "agh"), {})
    assert run_id(one, {}) != run_id(Run(task="stress", parameters=one.parameters, label=""), {})


def test_files_count_by_their_content_for_the_runs_that_read_them(tmp_path):
    path = tmp_path / "p.json"
    reading = Run(task="plan", parameters={"ground": {"problem": str(path)}, "seed": 0, "policy": "gh"}, label="")
    path.write_text("1")
    first = hash_files([path])
    path.write_text("2")
    second = hash_files([path])
    assert run_id(reading, first) != run_id(reading, second)
    assert run_id(plan_run(0), first) == run_id(plan_run(0), second)
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file"):
        hash_files([tmp_path / "none.json"])


def test_other_code_is_another_run(monkeypatch):
    before = run_id(plan_run(0), {})
    monkeypatch.setattr("experiments.sweep.specification.code_version", lambda: "other")
    assert run_id(plan_run(0), {}) != before


def test_the_code_version_sees_every_source(tmp_path):
    assert len(code_version()) == 16
    program = "from experiments.sweep.specification import code_version; print(code_version())"
    for package in ("simulator", "policies", "traces", "experiments"):
        (tmp_path / package).symlink_to(ROOT / package)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    same = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert same.stdout.strip() == code_version()


# -- results


def test_results_are_of_the_schema_and_in_order(tmp_path):
    end = run(sweep_of(), tmp_path / "s")
    assert end.table.schema == SCHEMA
    assert end.table["seed"].to_pylist() == [0, 1, 2, 3]
    assert pq.read_table(tmp_path / "s" / "results.parquet") == end.table
    timing = pq.read_table(tmp_path / "s" / "timing.parquet")
    assert all(seconds > 0 for seconds in timing["seconds"].to_pylist())


def test_every_row_is_of_the_schema():
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert results_table([{"policy": "gh"}])["cost_usd"].to_pylist() == [None]
    with pytest.raises(KeyError, match="costs"):
        results_table([{"costs": 1.0}])


def test_the_document_of_the_schema_is_the_schema():
    text = (ROOT / "docs" / "results.md").read_text()
    table = text[text.index("## The columns") :]
    shown = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| `")]
    types = {pa.string(): "text", pa.int64(): "integer", pa.float64(): "number", pa.bool_(): "truth"}
    wanted = [(f"`{c.name}`", types[c.type], c.unit, c.meaning) for c in COLUMNS]
    assert [tuple(cell.strip() for cell in row) for row in shown] == wanted


# -- going on


def test_finished_runs_are_skipped_and_more_can_be_asked_for(tmp_path):
    run(sweep_of(2), tmp_path / "s")
    lines = []
    end = run(sweep_of(4), tmp_path / "s", say=lines.append)
    assert end.skipped == 2
    assert lines[0] == "2 of 4 runs were finished before and are skipped"
    assert lines[1].startswith("[3/4] gh 2: ")
    assert "left" in lines[1]
    assert lines[2].startswith("[4/4] gh 3: ")
    whole = run(sweep_of(4), tmp_path / "whole")
    assert end.table == whole.table
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_the_number_of_workers_shows_nowhere(tmp_path):
    run(sweep_of(5), tmp_path / "one")
    run(sweep_of(5), tmp_path / "two", jobs=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_no_resume_starts_afresh(tmp_path):
    run(sweep_of(2), tmp_path / "s")
    stale = tmp_path / "s" / "runs" / "0123456789abcdef.json"
    stale.write_text('{"rows": []}')
    assert run(sweep_of(2), tmp_path / "s", resume=False).skipped == 0
    assert not stale.exists()


def test_equal_runs_are_run_once(tmp_path):
    twice = Sweep(study="scale", options={}, runs=[plan_run(0), plan_run(0), plan_run(1)])
    assert run(twice, tmp_path / "s").table.num_rows == 2


# -- what goes wrong


def test_a_run_that_fails_does_not_stop_the_others(tmp_path):
    bad = Run(task="plan", parameters={"ground": {"random": [3, 2, 2]}, "seed": 0, "policy": "nonsense"}, label="bad")
    end = run(Sweep(study="scale", options={}, runs=[bad, plan_run(1)]), tmp_path / "s")
    assert [failure["label"] for failure in end.failures] == ["bad"]
    assert "unknown policy 'nonsense'" in end.failures[0]["error"]
    assert end.table.num_rows == 1
    assert json.loads((tmp_path / "s" / "failures.json").read_text())[0]["label"] == "bad"


@pytest.mark.parametrize("jobs", [2])
def test_a_worker_that_dies_costs_its_own_run_alone(tmp_path, jobs):
    policy = tmp_path / "deadly.py"
    policy.write_text(
        textwrap.dedent("""
            import os, signal
            from policies.heuristics.greedy import Gh

            class Deadly(Gh):
                def plan(self, problem, *, incumbent, stop, seed):
                    if seed == 2:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return super().plan(problem, incumbent=incumbent, stop=stop, seed=seed)
        """)
    )
    runs = [plan_run(seed, f"{policy}:Deadly") for seed in range(6)]
    lines = []
    end = run(Sweep(study="scale", options={}, runs=runs), tmp_path / "s", jobs=jobs, say=lines.append)
    assert [failure["error"] for failure in end.failures] == ["its worker died: killed, out of memory, or crashed"]
    assert end.table["seed"].to_pylist() == [0, 1, 3, 4, 5]
    assert any("a worker died" in line for line in lines)


def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    write = folder_module.replace_whole

    def full(path, data):
        if len(list(path.parent.parent.glob("runs/*.json"))) >= 2 and path.parent.name == "timings":
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(folder_module, "replace_whole", full)
    with pytest.raises(RunError, match="No space left on device; what is finished is kept: the same command goes on"):
        run(sweep_of(4), tmp_path / "s")
    monkeypatch.setattr(folder_module, "replace_whole", write)
    with pytest.raises(InputError, match=r"the sweep has not ended \(2 of 4 runs are finished\)"):
        read_results(tmp_path / "s")
    assert run(sweep_of(4), tmp_path / "s").skipped == 2
    run(sweep_of(4), tmp_path / "whole")
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_interrupting_keeps_what_is_finished(tmp_path):
    def stop(text):
        if text.startswith("[2/4]"):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="2 of 4 runs are finished and kept: the same command goes on"):
        run(sweep_of(4), tmp_path / "s", say=stop)
    assert run(sweep_of(4), tmp_path / "s").skipped == 2


def test_folders_of_other_kinds_and_versions_are_refused(tmp_path, monkeypatch):
    run(sweep_of(1), tmp_path / "s")
    with pytest.raises(InputError, match="holds study 'scale', not 'budget'"):
        run(Sweep(study="budget", options={}, runs=[plan_run(0)]), tmp_path / "s")
    monkeypatch.setattr(folder_module, "code_version", lambda: "newer")
    with pytest.raises(InputError, match=r"was made by another version of tokenfleet .* say --no-resume"):
        run(sweep_of(1), tmp_path / "s")
    monkeypatch.undo()
    marker = tmp_path / "s" / "run.json"
    marker.write_text(marker.read_text().replace("tokenfleet-sweep/1", "tokenfleet-sweep/9"))
    with pytest.raises(InputError, match="another kind or version"):
        run(sweep_of(1), tmp_path / "s")
    marker.unlink()
    for resume in (True, False):
        with pytest.raises(InputError, match=r"no run directory of tokenfleet \(no run.json\)"):
            run(sweep_of(1), tmp_path / "s", resume=resume)
    assert (tmp_path / "s" / "results.parquet").exists(), "nothing was deleted"


def test_damage_is_named(tmp_path):
    run(sweep_of(2), tmp_path / "s")
    file = next((tmp_path / "s" / "runs").iterdir())
    file.write_text("{")
    with pytest.raises(InputError, match=f"{file.name}: is damaged"):
        run(sweep_of(2), tmp_path / "s")
    file.unlink()
    assert run(sweep_of(2), tmp_path / "s").skipped == 1
    (tmp_path / "s" / "results.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"results.parquet: cannot be read"):
        read_results(tmp_path / "s")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("localhost:8786", "--cluster: expected dask://HOST:PORT or ray://HOST:PORT, found 'localhost:8786'"),
        ("slurm://x:1", "--cluster: expected dask://HOST:PORT"),
        ("dask://", "--cluster: expected dask://HOST:PORT"),
    ],
)
def test_addresses_that_are_none(address, says):
    with pytest.raises(InputError, match="cluster") as caught, workers(address, None):
        pass
    assert says in str(caught.value)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"the package 'ray' is not installed here: pip install 'tokenfleet\[ray\]'"):
        workers("ray://localhost:1", None).__enter__()


def test_lots_give_the_same_bytes(tmp_path, monkeypatch):
    """What a Ray cluster gets, here on processes of this machine."""
    monkeypatch.setattr("experiments.sweep.workers.LOT", 1)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    run(sweep_of(5), tmp_path / "one")
    with joblib.parallel_config(backend="loky", n_jobs=2):
        run_sweep(sweep_of(5), tmp_path / "lots", perform, _JoblibInLots(), resume=True, say=lambda text: None)
    assert content(tmp_path / "one") == content(tmp_path / "lots")


# -- killed


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from experiments.studies.tasks import perform
from experiments.sweep.runner import run_sweep
from experiments.sweep.specification import Run, Sweep
from experiments.sweep.workers import _JoblibInLots, workers

if __name__ == "__main__":
    runs = [
        Run(task="plan", parameters={{"ground": {{"random": [6, 4, 4]}}, "seed": s, "policy": "agh"}}, label=str(s))
        for s in range(40)
    ]
    with workers(None, {jobs}) as pool:
        sweep = Sweep(study="scale", options={{}}, runs=runs)
        run_sweep(sweep, Path(sys.argv[1]), perform, pool, resume=True, say=lambda text: None)
"""


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_it_ends_with_the_same_bytes(tmp_path, kills):
    """kill -9 of the sweep's process at random moments, then once to the end."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(root=str(ROOT), jobs=1))
    subprocess.run([sys.executable, program, tmp_path / "whole"], check=True)
    runs, killed = tmp_path / "killed" / "runs", 0
    for kill in range(kills):
        process = subprocess.Popen([sys.executable, program, tmp_path / "killed"], start_new_session=True)
        goal = min(39, 1 + (kill + 1) * 37 // kills)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if runs.is_dir() and len(list(runs.glob("*.json"))) >= goal:
                time.sleep((kill % 5) * 0.0007)
                break
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= kills // 2
    subprocess.run([sys.executable, program, tmp_path / "killed"], check=True)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
