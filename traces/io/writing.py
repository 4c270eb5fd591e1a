"""Traces into files, chunk by chunk: Parquet, or the plain CSV with one line per request."""

import gzip
import io
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import csv

from simulator.errors import InputError
from simulator.workload import Trace
from traces.io.parquet import record_batch, write_parquet

SUFFIXES = (".parquet", ".csv", ".csv.gz")
CHUNK_ROWS = 2**18
"""Requests of a row group that `rechunk` makes."""

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


def rechunk(chunks: Iterable[Trace], rows: int = CHUNK_ROWS) -> Iterator[Trace]:
    """The same requests in chunks of `rows`, the last one shorter: row groups do not depend on how they were made."""
    waiting: list[Trace] = []
    held = 0
    for chunk in chunks:
        waiting.append(chunk)
        held += len(chunk)
        if held >= rows:
            whole = concatenate(waiting)
            cut = held - held % rows
            for first in range(0, cut, rows):
                yield whole.rows(slice(first, first + rows))
            waiting, held = [whole.rows(slice(cut, None))], held - cut
    if held:
        yield concatenate(waiting)


def concatenate(chunks: list[Trace]) -> Trace:
    """Successive chunks of one trace as one; `sources` are those of the last, which has them all."""
    if len(chunks) == 1:
        return chunks[0]
    return Trace(
        sources=chunks[-1].sources,
        start=chunks[-1].start,
        arrival_s=np.concatenate([chunk.arrival_s for chunk in chunks]),
        source=np.concatenate([chunk.source for chunk in chunks]),
        input_tokens=np.concatenate([chunk.input_tokens for chunk in chunks]),
        output_tokens=np.concatenate([chunk.output_tokens for chunk in chunks]),
        extras={name: np.concatenate([chunk.extras[name] for chunk in chunks]) for name in chunks[0].extras},
    )


def _write_csv(path: Path, chunks: Iterable[Trace], *, gzipped: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with ExitStack() as stack:
            file: io.BufferedIOBase = stack.enter_context(os.fdopen(handle, "wb"))
            if gzipped:  # without name and time: the same requests, the same bytes
                zipped = gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0)
                file = stack.enter_context(zipped)
            _write_lines(file, chunks)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def _write_lines(file: io.BufferedIOBase, chunks: Iterable[Trace]) -> None:
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
