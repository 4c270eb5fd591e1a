"""Options that all commands have: `--version`, `--quiet`; how text becomes a value; and Ctrl-C while modules load."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from experiments.options import Duration, parse_factors, parse_numbers, trace_files
from simulator.errors import InputError

PLAN = ("plan", "--scenario", "azure-2023", "--policy", "gh")
STRESS = ("stress", "--policy", "gh", "--factors", "1", "--duration", "1m", "--jobs", "1")


def test_version(run_cli):
    done = run_cli("--version")
    assert (done.code, done.stdout, done.stderr) == (0, f"tokenfleet {version('tokenfleet')}\n", "")


@pytest.mark.parametrize("arguments", [("-q", *STRESS), ("--quiet", *STRESS), (*STRESS, "-q"), (*STRESS, "--quiet")])
def test_quiet_leaves_out_notes_before_and_behind_the_command(run_cli, arguments):
    done = run_cli(*arguments)
    assert (done.code, done.stderr) == (0, "")
    assert "gh" in done.stdout


def test_otherwise_there_are_notes(run_cli):
    assert "[1/1] gh, seed 0" in run_cli(*STRESS).stderr


def test_quiet_leaves_errors(run_cli):
    done = run_cli("-q", "plan", "--problem", "none.json")
    assert (done.code, done.stdout) == (2, "")
    assert "none.json: cannot be read" in done.stderr


def test_quiet_leaves_failed_runs(run_cli, tmp_path):
    (tmp_path / "broken.py").write_text(
        "class Broken:\n    name = 'broken'\n\n    def plan(self, *a, **k):\n        1 / 0\n"
    )
    done = run_cli("-q", "stress", *STRESS[3:], "--policy", f"{tmp_path}/broken.py:Broken")
    assert done.code == 1
    assert "1 of 1 runs failed" in done.stderr
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("name", ["check-policy", "trace-request", "measurements"])
def test_old_names_are_gone(run_cli, name):
    done = run_cli(name)
    assert (done.code, done.stdout) == (2, "")
    assert f"No such command '{name}'" in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("5min", 300), ("1h", 3600), ("1.5 D", 129600), ("7", 7)]
)
def test_durations(text, seconds):
    assert Duration(text).seconds == seconds
    assert str(Duration(text)) == text


@pytest.mark.parametrize("text", ["", "soon", "0", "-5m", "5 parsecs", "1e3", "inf"])
def test_no_durations(text):
    with pytest.raises(InputError, match=r"--interval: .* is no duration above zero; expected for instance 30s"):
        Duration(text, "--interval")


def test_numbers_rise_and_factors_keep_their_order():
    assert parse_numbers("2,1,2,0.5", "--weights") == (0.5, 1, 2)
    assert parse_factors("2,1,2") == (2, 1, 2)
    with pytest.raises(InputError, match="--replicas: '0' is no number from 1 on"):
        parse_numbers("1,0", "--replicas", least=1)
    with pytest.raises(InputError, match="--factors: 'x' is no factor above zero"):
        parse_factors("1,x")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay", "--interval", "soon"), "error: --interval: 'soon' is no duration above zero"),
        (("stress", "--period", "soon"), "error: --period: 'soon' is no duration above zero"),
        (("trace", "backtest", "x.csv", "--season", "soon"), "error: --season: 'soon' is no duration above zero"),
        (("study", "budget", "--shares", "1,x"), "error: --shares: 'x' is no number from 0 on"),
        (("study", "headroom", "--replicas", "1.5"), "error: --replicas: expected whole numbers, found '1.5'"),
        (("study", "frontier", "--caps", "0.5,2"), "error: --caps: expected numbers above 0 and up to 1"),
    ],
)
def test_bad_text_is_refused_with_the_name_of_its_option(run_cli, arguments, says):
    done = run_cli(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith(says)


def test_a_source_in_front_of_a_path(tmp_path):
    (tmp_path / "a=b.csv").write_text("")
    files = trace_files(["conv=one.csv", "two.csv", str(tmp_path / "a=b.csv"), "x/y=z.csv"])
    assert [(path.name, source) for path, source in files.paths()] == [
        ("one.csv", "conv"),
        ("two.csv", None),
        ("a=b.csv", None),
        ("y=z.csv", None),
    ]


INTERRUPTED = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
from experiments.cli.app import main
sys.argv = ["tokenfleet", *{arguments!r}]
main()
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("typer", ["--help"]),
        ("experiments.cli.commands", ["--help"]),
        ("experiments.cli.plan", PLAN),
        ("policies.heuristics.greedy", PLAN),
        ("experiments.studies.scale", ("study", "scale")),
    ],
)
def test_control_c_while_modules_load_ends_in_a_line(module, arguments):
    code = INTERRUPTED.format(module=module, arguments=tuple(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted\n"
