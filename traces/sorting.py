"""A file in the order of time, however far out of order and however large it is."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from traces.formats.registry import Account, Reading, TraceRead, open_blocks, read_chunks, unreadable
from traces.io.order import Order, on_clock, sorted_block
from traces.io.parquet import write_parquet
from traces.io.reader import BadRow, Block
from traces.source import merge_chunks

RUN_ROWS = 2**22
"""Rows that are sorted in memory at once: about 200 MB."""


def sort_file(
    path: Path,
    target: Path,
    reading: Reading,
    *,
    source: str | None = None,
    on_bad: Callable[[BadRow], None] | None = None,
    run_rows: int = RUN_ROWS,
) -> TraceRead:
    """Write a trace file in the order of time as Parquet; rows of equal time keep the order of the file.

    The file is read twice: for its account and its earliest time, and in runs of rows that are sorted, put beside
    `target` and merged.

    Raises
    ------
    InputError
        If the file cannot be read, has bad rows (unless they are skipped), or the target cannot be written.
    """
    account, order, earliest = Account(path, reading, on_bad), Order(), []
    try:
        name, blocks = open_blocks(path, reading, source=source)
        for block in blocks:
            account.add(block)
            if len(block):
                earliest.append(block.time.min())
                order.steps_back += int((np.diff(block.time) < 0).sum())
        read = account.closed(name, order.steps_back)
        start_ns = int(min(earliest)) if isinstance(earliest[0], np.int64) else None
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            runs: list[Path] = []
            for run in _runs(open_blocks(path, reading, source=source)[1], run_rows):
                runs.append(Path(folder) / f"{len(runs)}.parquet")
                write_parquet(runs[-1], (trace for _, trace in on_clock([run], start_ns)))
            write_parquet(target, merge_chunks([read_chunks(run) for run in runs]))
    except OSError as error:
        raise unreadable(path, error) from None
    return read


def _runs(blocks: Iterator[Block], rows: int) -> Iterator[Block]:
    """Runs of at least so many rows, sorted."""
    held: list[Block] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count >= rows:
            yield sorted_block(held)
            held, count = [], 0
    if count:
        yield sorted_block(held)
