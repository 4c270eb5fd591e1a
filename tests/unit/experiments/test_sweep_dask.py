"""A sweep on a real Dask cluster of this machine."""

import contextlib
import socket
import subprocess
import sys
import time

import pytest

from experiments.studies.tasks import perform
from experiments.sweep.runner import run_sweep
from experiments.sweep.workers import workers
from simulator.errors import InputError
from tests.sweep_samples import content, run, sweep_of

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Dask and Tornado, as they please


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


@pytest.fixture(scope="module")
def cluster():
    """Address of a scheduler with one worker."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    with contextlib.ExitStack() as stack:
        for arguments in (
            [*command, "--no-dashboard"],
            [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", "1", "--nthreads", "1",
             "--no-dashboard"],
        ):  # fmt: skip
            process = subprocess.Popen(arguments, **quiet)
            stack.callback(process.wait)
            stack.callback(process.kill)
            time.sleep(1)
        yield f"dask://127.0.0.1:{port}"


def test_it_gives_the_same_bytes_as_here(cluster, tmp_path):
    run(sweep_of(4), tmp_path / "here")
    lines = []
    with workers(cluster, None) as pool:
        end = run_sweep(sweep_of(4), tmp_path / "there", perform, pool, resume=True, say=lines.append)
    assert end.failures == []
    assert len(lines) == 4
    assert content(tmp_path / "here") == content(tmp_path / "there")


def test_an_address_that_does_not_answer(monkeypatch):
    monkeypatch.setattr("experiments.sweep.workers.CONNECT_S", 1)
    with pytest.raises(InputError, match="nothing answers there"), workers(f"dask://127.0.0.1:{free_port()}", None):
        pass
