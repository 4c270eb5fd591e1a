"""Fixtures for the tests of every folder: the data folder and the command line."""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from experiments.cli import app as cli

# Every run draws the same examples, so that a red test is about the change; `make nightly` explores new ones.
settings.register_profile("repeat", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


@pytest.fixture(scope="session")
def data_dir():
    """The folder with problems/*.json.gz and traces/AzureLLMInferenceTrace_{conv,code}.csv."""
    value = os.environ.get("TOKENFLEET_DATA")
    if value is None:
        pytest.skip("TOKENFLEET_DATA is not set: it names the folder that holds problems/ and traces/")
    folder = Path(value)
    for name in ("problems", "traces"):
        if not (folder / name).is_dir():
            pytest.skip(f"TOKENFLEET_DATA: {folder / name} does not exist")
    return folder


@dataclass(frozen=True)
class CliRun:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


def _in_process(arguments):
    stdout, stderr, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["tokenfleet", *arguments]
    code = 0
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = argv
    return CliRun(code, stdout.getvalue(), stderr.getvalue())


def _in_own_process(arguments):
    command = [sys.executable, "-c", "from experiments.cli.app import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return CliRun(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def run_cli():
    """Run `tokenfleet ARGUMENTS`: in this process, or with `process=True` in one of its own.

    An exception that the command line does not turn into a message comes through as it is.
    """

    def run(*arguments, process=False):
        texts = [str(argument) for argument in arguments]
        return _in_own_process(texts) if process else _in_process(texts)

    return run
