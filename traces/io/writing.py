"""Traces into files, chunk by chunk: Parquet, or the plain CSV with one line per request."""

import gzip
import itertools
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import csv

from simulator.errors import InputError
from simulator.workload import Trace
from traces.io.atomic_write import atomic_write
from traces.io.parquet import record_batch, write_parquet

SUFFIXES = (".parquet", ".csv", ".csv.gz")
_GZIP_LEVEL = 6


def writable(path: Path) -> str:
    """Which of `SUFFIXES` a file has.

    Raises
    ------
    InputError
        If it has none of them.
    """
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise InputError(f"{path}: expected a name in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def write_trace(path: Path, chunks: Iterable[Trace]) -> None:
    """Write a trace in the form that its name says, whole or not at all.

    CSV has the columns `arrival_s,source,input_tokens,output_tokens`, then further ones; it does not tell when the
    trace started. The same chunks give the same bytes.

    Parameters
    ----------
    chunks
        Successive parts of one trace, with the same `start` and further columns.

    Raises
    ------
    InputError
        If the name has none of `SUFFIXES`, or the file cannot be written.
    """
    suffix = writable(path)
    if suffix == ".parquet":
        write_parquet(path, chunks)
    else:
        _write_csv(path, chunks, gzipped=suffix == ".csv.gz")


def _write_csv(path: Path, chunks: Iterable[Trace], *, gzipped: bool) -> None:
    with ExitStack() as stack:
        file = stack.enter_context(atomic_write(path))
        if gzipped:  # without name and time: the same requests, the same bytes
            file = cast(BinaryIO, stack.enter_context(gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0)))
        _write_lines(file, chunks)


def _write_lines(file: BinaryIO, chunks: Iterable[Trace]) -> None:
    parts = iter(chunks)
    first = next(parts, None)
    if first is None:
        return
    file.write(",".join(record_batch(first).schema.names).encode() + b"\n")
    for chunk in itertools.chain([first], parts):
        batch = record_batch(chunk)
        quoting = "needed" if any(set(name) & set('",\r\n') for name in chunk.sources) else "none"
        names = batch.schema.names
        plain = [
            column.cast(pa.string()) if name == "source" else column for name, column in zip(names, batch, strict=True)
        ]
        options = csv.WriteOptions(include_header=False, quoting_style=quoting)
        buffer = pa.BufferOutputStream()
        csv.write_csv(pa.RecordBatch.from_arrays(plain, names=names), buffer, options)
        file.write(buffer.getvalue())
