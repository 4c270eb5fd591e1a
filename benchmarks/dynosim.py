"""DynoSim, the fastest peer, on the same trace: `python -m benchmarks.dynosim TRACE.csv --speedup 1 --speedup 10`.

DynoSim is `dynamo.replay` of ai-dynamo, a Rust simulator that steps through every iteration of every replica. It is
installed into an environment of its own and run as its users run it, by its command line. What is measured:

- *per wall second*: requests over the wall time that its own report states (`wall_time_ms`): building the simulated
  fleet and running the event loop, without Python's start and without reading the trace;
- *per CPU second*: requests over the CPU time of the whole process (user and system, all threads) less that of the same
  command on the first request alone. Reading the trace is in it, about 0.1 s for 20,000 requests;
- *RSS*: the highest that the process reached, Python and its libraries included.

Its step times are its own (the default of its mock engine); nothing is tuned. A run whose report does not account for
every request, every token and the whole time of the trace is an error: a reader that drops or scales rows looks fast.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.workload import Trace
from traces.formats.registry import read_trace

PACKAGE, VERSION = "ai-dynamo", "1.4.2"
ENVIRONMENT = Path(__file__).resolve().parent / ".envs" / "dynosim"
TRACE_BLOCK_TOKENS = 512
ENGINE_ARGS = '{"block_size":64,"num_gpu_blocks":8000}'
REPLICAS = 8
POLL_S = 0.05
BYTES_PER_MB = 2**20


class PeerError(RuntimeError):
    """DynoSim cannot be installed, failed, or did not simulate what it was given."""


@dataclass(frozen=True, slots=True)
class ProcessRun:
    """What a process took."""

    wall_s: float
    cpu_s: float
    rss_mb: float


def measure(
    trace_path: Path, speedup: float = 1.0, *, environment: Path = ENVIRONMENT, repetitions: int = 3
) -> dict[str, Any]:
    """Replay a trace with DynoSim; the medians of the repetitions, with their spread.

    Parameters
    ----------
    trace_path
        A file that `traces.formats.registry.read_trace` reads.
    speedup
        Arrivals come so many times as fast.
    environment
        Where DynoSim is, or will be installed.

    Raises
    ------
    PeerError
        If DynoSim cannot be installed, fails, or leaves anything of the trace out.
    """
    python = install(environment)
    trace = read_trace(trace_path).trace
    with tempfile.TemporaryDirectory() as folder:
        rows, first_row = Path(folder, "trace.jsonl"), Path(folder, "first.jsonl")
        lines = list(mooncake_lines(trace))
        rows.write_text("".join(lines), "utf-8")
        first_row.write_text(lines[0], "utf-8")
        startup_cpu_s = statistics.median(_replay(python, first_row, speedup)[0].cpu_s for _ in range(repetitions))
        runs = [_replay(python, rows, speedup) for _ in range(repetitions)]
    for _, report in runs:
        _check(report, trace, speedup)
    per_wall_s = [len(trace) / (report["wall_time_ms"] / 1e3) for _, report in runs]
    per_cpu_s = [len(trace) / (process.cpu_s - startup_cpu_s) for process, _ in runs]
    report = runs[0][1]
    return {
        "simulator": f"DynoSim ({PACKAGE} {VERSION})",
        "speedup": speedup,
        "requests": report["completed_requests"],
        "per_wall_s": statistics.median(per_wall_s),
        "per_cpu_s": statistics.median(per_cpu_s),
        "rss_mb": max(process.rss_mb for process, _ in runs),
        "per_wall_s_spread": [min(per_wall_s), max(per_wall_s)],
        "per_cpu_s_spread": [min(per_cpu_s), max(per_cpu_s)],
        "process_wall_s": statistics.median(process.wall_s for process, _ in runs),
        "process_cpu_s": statistics.median(process.cpu_s for process, _ in runs),
        "startup_cpu_s": startup_cpu_s,
        "latency_ms": {
            f"{name} {statistic}": report[f"{statistic}_{name}_ms"]
            for name in ("ttft", "tpot", "e2e_latency")
            for statistic in ("mean", "median", "p99")
        },
    }


def install(environment: Path = ENVIRONMENT) -> Path:
    """Make the environment unless it is there (a minute, 0.6 GB); return its Python.

    Raises
    ------
    PeerError
        If pip cannot install it.
    """
    python = environment / "bin" / "python"
    probe = f"from importlib.metadata import version; print(version('{PACKAGE}'))"
    if python.exists():
        found = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False)
        if found.stdout.strip() == VERSION:
            return python
    commands = (
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "install", "--quiet", f"{PACKAGE}=={VERSION}"],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(f"{PACKAGE}=={VERSION} cannot be installed in {environment}:\n{done.stderr[-2000:]}")
    return python


def mooncake_lines(trace: Trace) -> Iterator[str]:
    """The trace as Mooncake JSONL. No two requests share a hash id, so that no prefix is reused."""
    used = 0
    columns = (trace.arrival_s.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist())
    for arrival_s, input_tokens, output_tokens in zip(*columns, strict=True):
        blocks = -(-input_tokens // TRACE_BLOCK_TOKENS)
        row = {
            "timestamp": arrival_s * 1e3,  # milliseconds
            "input_length": input_tokens,
            "output_length": output_tokens,
            "hash_ids": list(range(used, used + blocks)),
        }
        used += blocks
        yield json.dumps(row) + "\n"


def _replay(python: Path, rows: Path, speedup: float) -> tuple[ProcessRun, dict[str, Any]]:
    """Run DynoSim on a file; what its process took, and its report."""
    report = rows.with_suffix(".report.json")
    options = {
        "--trace-format": "mooncake",
        "--trace-block-size": str(TRACE_BLOCK_TOKENS),
        "--num-workers": str(REPLICAS),
        "--router-mode": "round_robin",
        "--replay-mode": "offline",
        "--extra-engine-args": ENGINE_ARGS,
        "--arrival-speedup-ratio": str(speedup),
        "--report-json": str(report),
    }
    arguments = [text for option in options.items() for text in option]
    process = _run([str(python), "-m", "dynamo.replay", str(rows), *arguments])
    return process, json.loads(report.read_text("utf-8"))


def _run(command: Sequence[str]) -> ProcessRun:
    """Run a command. Its peak RSS is sampled: the one of `wait4` would start at that of this process."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        started, peak_kb, ended = time.perf_counter(), 0, 0
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while not ended:
            peak_kb = max(peak_kb, _peak_rss_kb(process.pid))
            time.sleep(POLL_S)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise PeerError(f"{' '.join(command)} ended with {process.returncode}:\n{output.read()[-2000:]}")
    return ProcessRun(wall_s=wall_s, cpu_s=usage.ru_utime + usage.ru_stime, rss_mb=peak_kb * 1024 / BYTES_PER_MB)


def _peak_rss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0  # it has ended


def _check(report: dict[str, Any], trace: Trace, speedup: float) -> None:
    """See that the whole trace was simulated, and at its own speed."""
    expected = {
        "num_requests": len(trace),
        "completed_requests": len(trace),
        "total_input_tokens": int(trace.input_tokens.sum()),
        "total_output_tokens": int(trace.output_tokens.sum()),
        "prefix_cache_reused_ratio": 0.0,
    }
    for name, value in expected.items():
        if report[name] != value:
            raise PeerError(f"DynoSim reports {name} = {report[name]}, expected {value}")
    tail_ms = report["duration_ms"] - trace.span_s / speedup * 1e3
    if not 0 <= tail_ms <= report["max_e2e_latency_ms"]:
        raise PeerError(f"DynoSim ends {tail_ms:g} ms after the last arrival, expected at most its longest latency")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--speedup", type=float, action="append", help="default 1")
    parser.add_argument("--env", type=Path, default=ENVIRONMENT)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    for speedup in arguments.speedup or [1.0]:
        found = measure(arguments.trace, speedup, environment=arguments.env, repetitions=arguments.repetitions)
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
