"""What a sweep of many short runs loses to everything that is not a run.

    python -m benchmarks.sweep [TRACE...] [--runs 1000] [--jobs 2]

Replays the hour of the traces (without any, the synthetic hour) under gh with as many caps on the load as runs, on
so many processes. Lost is the share of the processes' time in which they were not in a run: starting, handing over,
writing, putting the table together.
"""

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd

from experiments.sweep.runner import run_sweep
from experiments.sweep.specification import Run, Sweep, hash_files
from experiments.sweep.workers import workers


def main() -> None:
    """Run the sweep and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="*")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    common = {"scenario": "azure-2023", "policy": "gh", "seed": 0, "interval_s": 300.0, "trace": asked.trace}
    runs = [
        Run(
            task="replay",
            parameters={**common, "changes": {"limits.cap": 0.3 + 0.7 * number / asked.runs}},
            label=f"run {number}",
        )
        for number in range(asked.runs)
    ]
    sweep = Sweep(
        study="frontier", options={}, runs=runs, inputs=hash_files([t.partition("=")[2] or t for t in asked.trace])
    )
    with tempfile.TemporaryDirectory() as folder, workers(None, asked.jobs) as pool:
        began = time.perf_counter()
        end = run_sweep(sweep, Path(folder) / "sweep", pool, resume=True, say=lambda text: None)
        wall_s = time.perf_counter() - began

        busy_s = float(pd.read_parquet(Path(folder) / "sweep" / "timing.parquet")["seconds"].sum())
    lost = 1 - busy_s / (wall_s * asked.jobs)
    print(f"{end.table.num_rows:,} runs, {len(end.failures)} failed, {wall_s:.1f} s on {asked.jobs} processes")
    print(f"in runs: {busy_s:.1f} s, {1000 * busy_s / asked.runs:.0f} ms each; lost: {lost:.1%}")


if __name__ == "__main__":
    main()
