"""What a command imports: nothing heavy before the command that needs it runs."""

import json
import subprocess
import sys

import pytest

from experiments.cli.commands import COMMANDS
from experiments.cli.lazy import load
from experiments.cli.study import COMMANDS as STUDIES
from experiments.cli.trace import COMMANDS as TRACES

DRAWING = ("matplotlib", "plotly")
SOLVING = ("highspy", "pyomo")
TABLES = ("pandas", "duckdb", "pyarrow")
WORKERS = ("joblib", "distributed", "ray", "requests", "pooch")
CALCULATING = ("scipy", "numba")
HEAVY = (*DRAWING, *SOLVING, *TABLES, *WORKERS, *CALCULATING)
RUN = """
import contextlib, io, json, sys
from experiments.cli.app import main
sys.argv = ["tokenfleet", *json.loads(sys.argv[1])]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def imported(*arguments):
    """The packages that a command has imported when it has run, in a process of its own."""
    command = [sys.executable, "-c", RUN, json.dumps([str(argument) for argument in arguments])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "Traceback" not in done.stderr
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def hour(tmp_path_factory, run_cli):
    folder = tmp_path_factory.mktemp("hour")
    made = run_cli("trace", "synth", "--profile", "azure-2023", "--duration", "2m", "--out", folder / "trace.parquet")
    assert made.code == 0, made.stderr
    run = run_cli("replay", folder / "trace.parquet", "--policy", "gh", "--out", folder / "run")
    assert run.code == 0, run.stderr
    return folder


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["study", "--help"], ["trace", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    assert imported(*arguments).isdisjoint((*HEAVY, "numpy", "simpy"))


@pytest.mark.parametrize("what", ["policies", "scenarios", "gpus", "models"])
def test_lists_import_no_table(what):
    assert imported("list", what).isdisjoint(HEAVY)


def test_results_need_duckdb_alone(hour):
    asked = imported("results", hour / "run", "--sql", "select count(*) from requests")
    assert "duckdb" in asked
    assert asked.isdisjoint((*DRAWING, *SOLVING, *WORKERS, *CALCULATING, "pandas", "simpy"))


def test_a_description_needs_neither_solvers_nor_pictures(hour):
    assert imported("trace", "describe", hour / "trace.parquet").isdisjoint((*DRAWING, *SOLVING, *WORKERS, "duckdb"))


def test_a_replay_draws_and_solves_only_if_it_has_to(hour):
    assert imported("replay", hour / "trace.parquet", "--policy", "gh").isdisjoint(
        (*DRAWING, *SOLVING, *WORKERS, "duckdb")
    )


ALL = {
    **{(name,): entry for name, entry in COMMANDS.items()},
    **{("trace", name): entry for name, entry in TRACES.items()},
    **{("study", name): entry for name, entry in STUDIES.items()},
}


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_a_summary_and_an_example(path):
    assert ALL[path].summary
    told = load(ALL[path]).help
    assert "Example: `tokenfleet" in told
    assert f"tokenfleet {' '.join(path)}" in told
