"""How fast traces are read: `python benchmarks/traces.py [--rows 44107694]`.

A CSV file in the form of the Azure trace of 2024 is written (about 42 bytes a row, into --folder, removed afterwards)
and read by `read_chunks` and by the survey of `TraceFiles` (which also makes the digest), the first million rows of it
packed with gzip too, and the whole as tokenfleet's Parquet. Beside it, in the same run, what others do with the same
file: a bare loop over PyArrow's CSV reader, which checks nothing, and pandas. Each figure is of a process of its own,
with its own peak of memory; the file is in the page cache. With TOKENFLEET_DATA the two Azure files of 2023 are read
as well.
"""

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from traces.formats.registry import read_chunks, read_trace  # noqa: E402
from traces.io.parquet import write_parquet  # noqa: E402
from traces.source import TraceFiles  # noqa: E402

START_NS = 1_715_299_200 * 10**9  # 2024-05-10
WEEK_NS, WEEK_ROWS = 7 * 86_400 * 10**9, 44_107_694
CHUNK = 2**20
PACKED_ROWS = 1_000_000


def write_week(path: Path, rows: int) -> None:
    """A week like that of 2024 in its columns, widths and order; the values are random."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(b"TIMESTAMP,ContextTokens,GeneratedTokens\n")
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
        for first in range(0, rows, CHUNK):
            count = min(CHUNK, rows - first)
            step = WEEK_NS / max(rows, 1)
            time_ns = START_NS + ((first + np.sort(rng.random(count)) * count) * step).astype(np.int64)
            moment = (
                pa.array(time_ns // 1000 * 1000).cast(pa.timestamp("ns")).cast(pa.timestamp("us")).cast(pa.string())
            )
            table = pa.table(
                {
                    "TIMESTAMP": pc.binary_join_element_wise(moment, "+00:00", ""),
                    "ContextTokens": rng.integers(1, 8000, count),
                    "GeneratedTokens": rng.integers(1, 1000, count),
                }
            )
            pyarrow.csv.write_csv(table, file, options)


# -- readers, each in a process of its own ---------------------------------------------------------------------------


def chunks(path: Path) -> int:
    """Ours, chunk by chunk."""
    return sum(len(chunk) for chunk in read_chunks(path))


def survey(path: Path) -> int:
    """Ours, with the account and the digest of a replay's first pass."""
    return TraceFiles([(path, None)]).survey().requests


def arrow(path: Path) -> int:
    """PyArrow alone, which neither checks values nor order."""
    kinds = {"TIMESTAMP": pa.timestamp("ns", "UTC"), "ContextTokens": pa.int32(), "GeneratedTokens": pa.int32()}
    options = pyarrow.csv.ConvertOptions(column_types=kinds)
    return sum(len(batch) for batch in pyarrow.csv.open_csv(path, convert_options=options))


def pandas(path: Path) -> int:
    """pandas as most people call it."""
    import pandas as pd

    return len(pd.read_csv(path, parse_dates=["TIMESTAMP"]))


READERS = {"chunks": chunks, "survey": survey, "arrow": arrow, "pandas": pandas}
NAMES = {
    "chunks": "`read_chunks`",
    "survey": "survey (with digest)",
    "arrow": "PyArrow, unchecked",
    "pandas": "pandas",
}


def measure(reader: str, path: Path) -> dict[str, float]:
    """Rows, seconds and peak memory of one reader, in a process of its own."""
    command = [sys.executable, __file__, "--one", reader, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def one(reader: str, path: Path) -> None:
    """What the process of its own does."""
    began, cpu = time.perf_counter(), time.process_time()
    rows = READERS[reader](path)
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    # Not `getrusage`: its peak is that of the process which started this one.
    status = Path("/proc/self/status").read_text()
    peak_kb = float(status.partition("VmHWM:")[2].split()[0])
    print(json.dumps({"rows": rows, "wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_kb / 1024}))


def row(what: str, reader: str, result: dict[str, float]) -> str:
    """A line of the table."""
    rate = result["rows"] / result["wall_s"] / 1e6
    cells = (
        f"{result['rows']:,.0f} | {result['wall_s']:.2f} | {result['cpu_s']:.2f} | {rate:.2f} | {result['peak_mb']:.0f}"
    )
    return f"| {what} | {NAMES[reader]} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000, help=f"the whole week has {WEEK_ROWS:,}")
    parser.add_argument("--folder", type=Path, default=None, help="where the files go for as long as it takes")
    parser.add_argument("--no-pandas", action="store_true", help="it needs some 150 bytes of memory a row")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], Path(arguments.one[1]))
        return
    print(f"{platform.python_version()}, PyArrow {pa.__version__}, {os.cpu_count()} cores\n")
    print("| file | read by | rows | wall [s] | CPU [s] | M rows/s | peak [MB] |\n|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        week = Path(name) / "week_conv.csv"
        write_week(week, arguments.rows)
        for reader in ("chunks", "survey", "arrow") + (() if arguments.no_pandas else ("pandas",)):
            print(row("CSV", reader, measure(reader, week)), flush=True)
        packed = Path(name) / "part_conv.csv.gz"
        with week.open("rb") as file, gzip.open(packed, "wb", compresslevel=5) as target:
            for _, line in zip(range(PACKED_ROWS + 1), file, strict=False):
                target.write(line)
        print(row("CSV, gzip", "chunks", measure("chunks", packed)), flush=True)
        parquet = Path(name) / "week.parquet"
        write_parquet(parquet, read_chunks(week))
        print(row("Parquet", "chunks", measure("chunks", parquet)), flush=True)
    data = os.environ.get("TOKENFLEET_DATA")
    if data:
        paths = [Path(data) / "traces" / f"AzureLLMInferenceTrace_{service}.csv" for service in ("conv", "code")]
        times = []
        for _ in range(5):
            began = time.perf_counter()
            rows = sum(len(read_trace(path).trace) for path in paths)
            times.append(time.perf_counter() - began)
        print(f"\nthe two Azure files of 2023, {rows:,} rows: {min(times):.3f} s, at first {times[0]:.3f} s")


if __name__ == "__main__":
    main()
