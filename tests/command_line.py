"""`tokenfleet ARGUMENTS` in this process, or in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.cli import app as cli

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class CliRun:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


def run_in_process(*arguments):
    """Run a command here; an exception that the command line does not turn into a message comes through as it is."""
    stdout, stderr, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["tokenfleet", *map(str, arguments)]
    code = 0
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = argv
    return CliRun(code, stdout.getvalue(), stderr.getvalue())


def run_in_own_process(*arguments):
    """Run a command as a user does, in the folder that the tests are in."""
    command = [sys.executable, "-c", "from experiments.cli.app import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return CliRun(done.returncode, done.stdout, done.stderr)
