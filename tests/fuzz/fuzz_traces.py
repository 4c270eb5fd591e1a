"""Atheris against the trace readers: `make fuzz` runs it for five minutes. No part of the tests that pytest runs.

Whatever the bytes, reading ends with messages that name the file, or with all rows accounted for.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["traces"]):
    from traces.formats.registry import READERS, Reading, read_chunks
    from traces.io import delimited
    from traces.io.on_bad_row import OnBadRow

from simulator.errors import InputError
from tests.trace_samples import SAMPLES

FOLDER = Path(tempfile.mkdtemp(prefix="tokenfleet-fuzz-"))
FORMATS = [None, *READERS]
MAX_BYTES = 6000  # the largest sample, a Parquet file, has 1800
TABLE = {"arrival_s": "a", "input_tokens": "i", "output_tokens": "o"}


def read(path: Path, reading: Reading) -> object:
    """What reading a file came to: its problems, or its rows and its account."""
    stream = read_chunks(path, reading)
    rows = []
    try:
        while True:
            chunk = next(stream)
            rows += list(zip(chunk.arrival_s.tolist(), chunk.input_tokens.tolist(), strict=True))
    except StopIteration as end:
        account = end.value
        if account.format != "servegen":
            assert account.rows_in_file == len(rows) + account.rows_skipped, account
        return rows, account
    except InputError as error:
        problems = error.problems
    assert problems
    assert all(problem.startswith(str(FOLDER)) for problem in problems), problems
    return problems


def one(data: bytes) -> None:
    """One input: two bytes choose how it is read, the others are the file."""
    if len(data) < 2:
        return
    path = FOLDER / ("x_token_quantiles.csv" if data[0] == 255 else "x_rates_conv.csv")
    path.write_bytes(data[2:])
    on_bad_row = OnBadRow.SKIP if data[1] & 1 else OnBadRow.ERROR
    if data[1] & 2:
        path.write_bytes(b"a,i,o\n" + data[2:])
        reading = Reading(columns=TABLE, on_bad_row=on_bad_row, strict=bool(data[1] & 4))
        fast = read(path, reading)
        by_arrow, delimited._Table._fast = delimited._Table._fast, lambda *_, **__: None  # type: ignore[method-assign]
        try:
            assert read(path, reading) == fast
        finally:
            delimited._Table._fast = by_arrow  # type: ignore[method-assign]
        return
    trace_format = FORMATS[data[0] % len(FORMATS)]
    read(path, Reading(trace_format=trace_format, on_bad_row=on_bad_row, strict=bool(data[1] & 4)))


def main() -> None:
    """Start from the samples of every format."""
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, sample in enumerate(SAMPLES):
        path = FOLDER / sample.name
        sample.write(path)
        for mode in (0, 1):
            (corpus / f"{number}-{mode}").write_bytes(bytes([0, mode]) + path.read_bytes())
    (corpus / "table").write_bytes(bytes([0, 3]) + b"1,2,3\n1.5,2.0,3\n")
    (corpus / "quotes").write_bytes(bytes([0, 3]) + b'"1","2",3\r\n1.5,"2",3\n')
    rates, quantiles = b"workload,window_start_s,requests_per_s\n", b"workload,field,quantile_pct,tokens\n"
    (corpus / "rates").write_bytes(bytes([0, 1]) + rates + b"m,0,0.01\nm,600,0.02\n")
    (corpus / "quantiles").write_bytes(bytes([255, 1]) + quantiles + b"m,input_tokens,50,7\nm,output_tokens,50,7\n")
    (FOLDER / "x_token_quantiles.csv").write_bytes((corpus / "quantiles").read_bytes()[2:])
    atheris.Setup([sys.argv[0], f"-max_len={MAX_BYTES}", "-timeout=20", *sys.argv[1:], str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
