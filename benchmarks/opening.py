"""CPU seconds that commands take from start to end: `python -m benchmarks.opening [TRACE]`.

Each is run in a process of its own, and the best of three counts. Python itself, which starts and does nothing, stands
first: ratios to it can be compared between machines.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TOKENFLEET = [sys.executable, "-c", "from experiments.cli.app import main; main()"]


def cpu_seconds(command: list[str], folder: str) -> float:
    """User and system time of a command, the best of three."""
    best = float("inf")
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def main() -> None:
    """Print a table of commands; without a trace a synthetic hour stands in."""
    trace = [str(Path(name).resolve()) for name in sys.argv[1:]]
    replay = ["replay", *trace, "--policy", "gh", "--interval", "5m"]
    with tempfile.TemporaryDirectory() as folder:
        python = cpu_seconds([sys.executable, "-c", "pass"], folder)
        print(f"| command | CPU [s] | over Python's start |\n|---|---:|---:|\n| `python -c pass` | {python:.2f} | 1 |")
        for arguments in (
            ["--help"],
            ["list", "policies"],
            replay,
            [*replay, "--out", "run", "--overwrite"],
            ["results", "run"],
            ["trace", "describe", *(trace or ["azure-2023"])],
        ):
            took = cpu_seconds([*TOKENFLEET, *arguments], folder)
            shown = " ".join(Path(argument).name if argument in trace else argument for argument in arguments)
            print(f"| `tokenfleet {shown}` | {took:.2f} | {took / python:.0f} |")


if __name__ == "__main__":
    main()
