"""Every command and example in the documents runs, and every command of the program is documented."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path

import pytest

from experiments.cli.commands import COMMANDS
from experiments.cli.lazy import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DATA = {  # files of the data folder that the documents name
    "AzureLLMInferenceTrace_conv.csv": "traces",
    "AzureLLMInferenceTrace_code.csv": "traces",
    "6x6x10-seed0.json.gz": "problems",
    "composed_step_times.csv.gz": "latency",
    "splitwise_step_times.csv": "latency",
    "silicon_dense_serving.csv": "latency",
    "llmservingsim_vllm_requests_rtx4090.csv": "latency",
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def sessions(path: Path) -> list[list[str]]:
    """Lines `$ tokenfleet ...` of each console block, continuation lines joined."""
    found = []
    for block in blocks(path.read_text(), "console"):
        joined = block.replace("\\\n", " ")
        found.append([line[2:] for line in joined.splitlines() if line.startswith("$ tokenfleet")])
    return [session for session in found if session]


def commands(path: Path) -> list[str]:
    """The commands of all console blocks."""
    return [command for session in sessions(path) for command in session]


LONG = ("tokenfleet calibrate composed_step_times.csv.gz",)  # fits that the golden tests make every time
IN_A_PROCESS = (  # as a reader runs them; all others run in the process of the tests
    "tokenfleet list policies",
    "tokenfleet check ",
    "tokenfleet report ",
)

SESSIONS = [
    pytest.param(
        str(path.relative_to(ROOT)),
        session,
        id=session[0][:60],
        marks=[pytest.mark.slow] if session[0].startswith(LONG) else [],
    )
    for path in DOCUMENTS
    for session in sessions(path)
]


def written(command: str) -> set[str]:
    """Files and folders that a command writes."""
    words = shlex.split(command)
    return {word for option, word in pairwise(words) if option in ("--out", "--figure", "--certificate")}


WRITTEN = set(chain.from_iterable(written(command) for path in DOCUMENTS for command in commands(path)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader would type the commands: the clone's examples and, if there, the data."""
    here = tmp_path_factory.mktemp("reader")
    (here / "examples").symlink_to(ROOT / "examples")
    data = Path(os.environ.get("TOKENFLEET_DATA", "/nonexistent"))
    for name, room in DATA.items():
        if (data / room / name).exists():
            (here / name).symlink_to(data / room / name)
    return here


def test_the_readme_has_commands() -> None:
    assert len(commands(ROOT / "README.md")) >= 5


@pytest.fixture(scope="module")
def told(folder: Path, run_cli) -> Callable[[str], str]:
    """Standard output of a command; what neither writes a file nor reads one that was written is run once."""
    known: dict[str, str] = {}
    processes = list(IN_A_PROCESS)

    def run(command: str) -> str:
        words = shlex.split(command)[1:]
        if command in known:
            return known[command]
        process = next((start for start in processes if command.startswith(start)), None)
        if process is not None:
            processes.remove(process)
        with contextlib.chdir(folder):
            done = run_cli(*words, process=process is not None)
        assert done.code == 0, f"{command}\n{done.stderr}"
        if WRITTEN.isdisjoint(words):
            known[command] = done.stdout
        return done.stdout

    return run


@pytest.mark.parametrize(("document", "session"), SESSIONS)
def test_documented_commands_run(document: str, session: list[str], folder: Path, told: Callable[[str], str]) -> None:
    """A block at a time: its later commands may read what its earlier ones wrote."""
    for command in session:
        missing = [word for word in shlex.split(command) if word in DATA and not (folder / word).exists()]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}: set TOKENFLEET_DATA")
        stdout = told(command)
        assert stdout
        if "--json" in command:
            json.loads(stdout)
        shown = cost_row(output_of(document, command))
        if (
            shown
        ):  # solver versions may move a plan a little; a table that has nothing to do with the program is a defect
            assert cost_row(stdout) == pytest.approx(shown, rel=0.1)


def output_of(document: str, command: str) -> str:
    """What the document shows below a command, empty if nothing."""
    path = next(path for path in DOCUMENTS if str(path.relative_to(ROOT)) == document)
    for block in blocks(path.read_text(), "console"):
        _, found, output = block.replace("\\\n", " ").partition(f"$ {command}\n")
        if found:
            return output.partition("\n$ ")[0]
    return ""


def cost_row(output: str) -> list[float]:
    """Costs by policy in a replay's table."""
    rows = [line for line in output.splitlines() if "cost [USD]" in line]
    return [float(number.replace(",", "")) for number in re.findall(r"[\d,]+\.\d+", rows[0])] if rows else []


def test_the_readme_shows_what_the_demo_prints() -> None:
    demo = re.search(r"^demo:.*\n\t\$\(BIN\)/(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert demo is not None
    assert len(cost_row(output_of("README.md", demo[1]))) == 3


def test_every_command_is_in_the_readme_and_has_an_example() -> None:
    for name, entry in COMMANDS.items():
        assert f"tokenfleet {name}" in README, f"README.md does not mention `tokenfleet {name}`"
        assert f"Example: `tokenfleet {name}" in load(entry).help, f"`{name} --help` has no example"


def test_the_examples_of_extending_are_the_files() -> None:
    found = blocks((ROOT / "docs" / "extending.md").read_text(), "python")
    files = [path.read_text().strip() for path in sorted((ROOT / "examples").glob("*.py"))]
    assert sorted(block.strip() for block in found) == sorted(files)


def test_the_example_process_runs() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / "process.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = re.fullmatch(r"([\d]+) requests, (\d+) plans, re-planned out of turn at \[(.*)\] s\n", done.stdout)
    assert told is not None, done.stdout
    times = [float(text) for text in told[3].split(", ")]
    assert int(told[2]) > 2
    assert times
    assert all(later - earlier >= 120 for earlier, later in pairwise(times))


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "notebooks").glob("*.py")), ids=lambda path: path.name)
def test_the_notebooks_run(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
    assert path.name in (ROOT / "docs" / "extending.md").read_text()


def test_links_to_files_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"
