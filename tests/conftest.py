"""What the tests of every folder share: the data folder, the command line, small runs of the studies."""

import functools
import os
from pathlib import Path

import pytest
from hypothesis import settings

from policies.registry import make_policy
from simulator.engine.kernel_memory import prepare
from tests.command_line import run_in_own_process, run_in_process
from tests.exploring import PROFILE
from tests.golden.artifacts import run_small_study

# Every run draws the same examples, so that a red test is about the change; `make nightly` explores new ones.
settings.register_profile("repeat", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile(PROFILE)

# The tests have the cores already: a sweep that does not say how many processes it wants runs in the one it is in.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")


def pytest_configure(config):
    """Compile before pytest-xdist starts its workers: each of them would."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        prepare()
        make_policy("exact")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Give the tests of a file to one worker of pytest-xdist, so that what they share is made once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


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


@pytest.fixture(scope="session")
def run_cli():
    """Run `tokenfleet ARGUMENTS`: in this process, or with `process=True` in one of its own."""

    def run(*arguments, process=False):
        return (run_in_own_process if process else run_in_process)(*arguments)

    return run


@pytest.fixture(scope="session")
def small_study(tmp_path_factory):
    """The small run of a study by its name, made once."""
    return functools.cache(lambda name: run_small_study(name, tmp_path_factory.mktemp(name)))
