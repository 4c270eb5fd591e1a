"""Rows in the order of time, on one clock: what a file that is out of order needs."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from simulator.workload import Trace
from traces.io.reader import BadRow, Block
from traces.io.times import written

WINDOW_ROWS = 2**20
"""How many rows are held back for sorting: none may be further out of order. A shorter file can always be sorted."""


class TooLate(Exception):
    """A row belongs before rows that have been passed on already; its number is `number`."""

    def __init__(self, number: int, late_s: float) -> None:
        super().__init__(number, late_s)
        self.number = number
        self.late_s = late_s


@dataclass(slots=True)
class Order:
    """What was found on the way."""

    steps_back: int = 0


def in_order(blocks: Iterable[Block], order: Order, window_rows: int = WINDOW_ROWS) -> Iterator[Block]:
    """Blocks with the same rows in the order of time; rows of equal time stay in the order of the file.

    Raises
    ------
    TooLate
        If a row is more than `window_rows` rows out of order.
    """
    held: deque[Block] = deque()  # good rows only: bad ones are passed on at once, there may be many
    rows = 0
    passed: float | int | None = None
    before: float | int | None = None  # time of the row before
    highest: float | int | None = None
    for block in blocks:
        if block.bad or not len(block):
            yield _taken(block, slice(0))
            block = replace(block, rows=0, bad=(), failed=0)
        if not len(block):
            continue
        back = int((np.diff(block.time) < 0).sum())
        order.steps_back += back + (before is not None and bool(block.time[0] < before))
        before = block.time[-1]
        if back == 0 and (highest is None or block.time[0] >= highest):
            held.append(replace(block, row_of=_forgotten))
        else:
            if passed is not None and block.time.min() < passed:
                at = int(np.flatnonzero(block.time < passed)[0])
                late = float(passed - block.time[at])
                raise TooLate(block.row_of(at)[0], late / 1e9 if block.time.dtype == np.int64 else late)
            merged = sorted_block([*held, block])
            held = deque(_pieces(merged, max(len(block), window_rows // 8, 1)))
        rows += len(block)
        highest = block.time.max() if highest is None else max(highest, block.time.max())
        while held and rows - len(held[0]) >= window_rows:
            first = held.popleft()
            rows -= len(first)
            passed = first.time[-1] if len(first) else passed
            yield first
    yield from held


def without_steps_back(blocks: Iterable[Block], unit: str) -> Iterator[Block]:
    """Blocks without the rows that go back behind the latest time before them: those are bad."""
    latest: float | int | None = None
    last = 0
    for block in blocks:
        time = block.time
        floor = time[:1] if latest is None else np.array([latest], dtype=time.dtype)
        highest = np.maximum.accumulate(np.concatenate([floor, time]))[1:] if len(time) else time
        # A row that goes back does not become the measure of the next one.
        kept = np.flatnonzero(time == highest)
        gone = np.flatnonzero(time != highest)
        bad = []
        for index in gone.tolist():
            at = int(np.searchsorted(kept, index)) - 1
            before = block.row_of(int(kept[at]))[0] if at >= 0 else last
            number, text = block.row_of(index)
            shown, found = (written(moment.item(), zoned=block.zoned) for moment in (highest[index], time[index]))
            wanted = f"one not before {shown} of {unit} {before}"
            bad.append(BadRow(number, f"{unit} {number}, time: expected {wanted}, found {found}", text))
        if len(kept):
            latest, last = time[kept[-1]], block.row_of(int(kept[-1]))[0]
        yield block if not bad else _with_bad(block, kept, bad)


def on_clock(blocks: Iterable[Block], start_ns: int | None = None) -> Iterator[tuple[Block, Trace]]:
    """Traces on the file's clock, beside the blocks they are of.

    Parameters
    ----------
    start_ns
        The earliest time, if it is not that of the first row.

    Times since 1970 are counted from the first, truncated to microseconds as `datetime` has no more; the first
    `arrival_s` may so be some hundred nanoseconds. They are whole nanoseconds, rounded once when they become float64.
    """
    start: datetime | None = None
    zero_ns: int | None = None
    for block in blocks:
        if block.time.dtype == np.float64:
            start, arrival_s = block.start, block.time
        else:
            if zero_ns is None and len(block):
                start_us = (int(block.time[0]) if start_ns is None else start_ns) // 1000
                zero_ns = start_us * 1000
                start = datetime(1970, 1, 1, tzinfo=UTC if block.zoned else None) + timedelta(microseconds=start_us)
            arrival_s = (block.time - (zero_ns or 0)) / 1e9
        yield (
            block,
            Trace(
                sources=block.sources,
                start=start,
                arrival_s=np.asarray(arrival_s, dtype=np.float64),
                source=block.source,
                input_tokens=block.input_tokens,
                output_tokens=block.output_tokens,
                extras=block.extras,
            ),
        )


def _with_bad(block: Block, kept: npt.NDArray[np.int64], bad: Sequence[BadRow]) -> Block:
    rows = kept.tolist()
    every = sorted([*block.bad, *bad], key=lambda row: row.number)
    return replace(_taken(block, kept), bad=every, row_of=lambda index: block.row_of(rows[index]))


def _taken(block: Block, which: npt.NDArray[np.int64] | slice) -> Block:
    return replace(
        block,
        time=block.time[which],
        source=block.source[which],
        input_tokens=block.input_tokens[which],
        output_tokens=block.output_tokens[which],
        extras={name: column[which] for name, column in block.extras.items()},
    )


def sorted_block(blocks: Sequence[Block]) -> Block:
    """All rows in the order of time as one block. Their numbers are forgotten: nobody asks for them any more."""
    time = np.concatenate([block.time for block in blocks])
    which = np.argsort(time, kind="stable")

    def joined(columns: Iterable[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
        return np.concatenate(list(columns))[which]

    return replace(
        blocks[-1],
        time=time[which],
        source=joined(block.source for block in blocks),
        input_tokens=joined(block.input_tokens for block in blocks),
        output_tokens=joined(block.output_tokens for block in blocks),
        extras={name: joined(block.extras[name] for block in blocks) for name in blocks[-1].extras},
        rows=sum(block.rows for block in blocks),
        bad=[row for block in blocks for row in block.bad],
        failed=sum(block.failed for block in blocks),
        row_of=_forgotten,
    )


def _forgotten(index: int) -> tuple[int, str]:
    """In place of numbers and texts of rows: to keep them would be to keep the file."""
    return index, ""


def _pieces(block: Block, rows: int) -> Iterator[Block]:
    """A block cut into several; the account of the rows is in the first."""
    for begin, first in zip(itertools.count(0, rows), itertools.chain([True], itertools.repeat(False)), strict=False):
        if begin >= len(block):
            return
        piece = _taken(block, slice(begin, begin + rows))
        yield piece if first else replace(piece, rows=0, bad=(), failed=0)
