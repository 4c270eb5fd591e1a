"""Block bootstrap: a trace of any length from blocks of a real one, drawn with replacement.

A block has the requests of all sources in so many seconds, with their tokens, so that what happens within a block stays
as it was: bursts, the sources together, the order of the tokens. What is lost is what goes on for longer than a block,
but for the time of the day if that is asked for.
"""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError, RunError
from simulator.rng import stream
from simulator.workload import Trace
from traces.source import Survey, TraceSource
from traces.synthetic.generate import in_utc, laid_out, refuse_unless_positive

DAY_S = 86400.0
MAX_BLOCKS = 10_000_000

WHOLE = 0.99
"""The last block of a trace counts if its requests come to so much of it."""

_FIELDS = ("arrival_s", "source", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A trace on disk, cut into blocks of equal length.

    Attributes
    ----------
    survey
        Of the whole trace.
    start
        Wall-clock time of the first block, None if the trace has none.
    block_s
        Length of a block.
    requests
        Requests of the whole blocks; what comes after the last one is left out.
    """

    survey: Survey
    start: datetime | None
    block_s: float
    first_s: float
    offsets: npt.NDArray[np.int64]
    file: IO[bytes]
    record: np.dtype[np.void]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def requests(self) -> int:
        return int(self.offsets[-1])

    def read(self, number: int) -> npt.NDArray[np.void]:
        """The requests of one block; their times are those of the trace."""
        first, last = self.offsets[number : number + 2].tolist()
        size = self.record.itemsize
        self.file.seek(first * size)
        return np.frombuffer(self.file.read((last - first) * size), dtype=self.record)


@contextmanager
def blocks_of(source: TraceSource, block_s: float) -> Iterator[Blocks]:
    """Go through a trace once and lay it down in a temporary file, 20 bytes a request.

    The file is in the folder for temporary files (`TMPDIR`) and vanishes at the end.

    Raises
    ------
    InputError
        If the trace cannot be used, or is shorter than two blocks.
    RunError
        If the disk is full.
    """
    if not (math.isfinite(block_s) and block_s > 0):
        raise InputError(f"block: expected a finite number of seconds above zero, found {block_s}")
    with tempfile.TemporaryFile(prefix="tokenfleet-") as file:
        writer = _Writer(file, block_s)
        try:
            survey = source.survey(writer.add)
            file.flush()
        except OSError as error:
            raise RunError(f"{tempfile.gettempdir()}: no room for the trace: {error.strerror}") from None
        offsets = writer.offsets()
        if len(offsets) < 3:
            length = f"{survey.span_s - writer.first_s:g} s"
            raise InputError(f"block: expected a trace of at least two blocks of {block_s:g} s, found one of {length}")
        start = None if survey.start is None else survey.start + timedelta(seconds=writer.first_s)
        yield Blocks(
            survey=survey,
            start=start,
            block_s=block_s,
            first_s=writer.first_s,
            offsets=offsets,
            file=file,
            record=writer.record,
        )


class _Writer:
    """Lays chunks down, and counts the requests of each block."""

    def __init__(self, file: IO[bytes], block_s: float) -> None:
        self._file = file
        self._block_s = block_s
        self._counts = np.zeros(0, dtype=np.int64)
        self._last_s = 0.0
        self.first_s = math.nan
        self.record: np.dtype[np.void] = np.dtype([])

    def add(self, chunk: Trace) -> None:
        if not len(chunk):
            return
        if math.isnan(self.first_s):
            self.first_s = float(chunk.arrival_s[0])
            extras = [(name, "<i4") for name in sorted(chunk.extras)]
            self.record = np.dtype([*zip(_FIELDS, ("<f8", "<i4", "<i4", "<i4"), strict=True), *extras])
        if (chunk.span_s - self.first_s) / self._block_s > MAX_BLOCKS:
            raise InputError(f"block: {self._block_s:g} s cuts the trace into more than {MAX_BLOCKS} blocks")
        rows = np.empty(len(chunk), dtype=self.record)
        for name in self.record.names or ():
            rows[name] = chunk.extras[name] if name in chunk.extras else getattr(chunk, name)
        self._file.write(rows.tobytes())
        number = ((chunk.arrival_s - self.first_s) // self._block_s).astype(np.int64)
        counts = np.bincount(number - number[0])
        self._counts = np.concatenate(
            [self._counts, np.zeros(max(int(number[-1]) + 1 - len(self._counts), 0), dtype=np.int64)]
        )
        self._counts[number[0] : number[0] + len(counts)] += counts
        self._last_s = chunk.span_s

    def offsets(self) -> npt.NDArray[np.int64]:
        """Of the whole blocks, in requests; one more than there are blocks."""
        whole = math.floor((self._last_s - self.first_s) / self._block_s + 1 - WHOLE) if len(self._counts) else 0
        return np.concatenate([[0], np.cumsum(self._counts[:whole])]).astype(np.int64)


def resample(
    blocks: Blocks,
    *,
    duration_s: float,
    seed: int,
    keep_daytime: bool = False,
    rate_factor: float = 1.0,
    time_factor: float = 1.0,
    start: datetime | None = None,
) -> Iterator[Trace]:
    """Draw blocks with replacement and lay them one after the other.

    A shorter trace is the beginning of a longer one of the same seed.

    Parameters
    ----------
    duration_s
        Arrivals fall in [0, duration_s).
    keep_daytime
        Draw from the blocks of the same time of the day, of any day of the trace.
    rate_factor
        Below one each request is kept with this probability. Above one independent draws are laid over each other, as
        few as will do, and thinned: as if there were so many services of the kind.
    time_factor
        Stretches time: a block lasts this many times as long.
    start
        Wall-clock time of the trace, without a zone in UTC; with `keep_daytime` also where in the day it begins, to the
        nearest block. None: when the real trace began.

    Returns
    -------
    Iterator of Trace
        A block each, but for blocks without a request. Times are multiples of 100 ns.

    Raises
    ------
    InputError
        If a number is out of its range, or `keep_daytime` asks for what the trace does not have.
    """
    refuse_unless_positive(duration_s=duration_s, rate_factor=rate_factor, time_factor=time_factor)
    if not blocks.requests:
        raise InputError("the whole blocks of the trace have no request")
    slots, shift = _slots(blocks, start) if keep_daytime else (1, 0)
    layers = math.ceil(rate_factor)
    drawn = [_Layer(blocks, seed, layer, slots, shift, rate_factor / layers) for layer in range(layers)]
    places = range(math.ceil(duration_s / time_factor / blocks.block_s))
    stretches = ([layer.block(place, time_factor, duration_s) for layer in drawn] for place in places)
    return laid_out(stretches, blocks.start if start is None else start)


def _slots(blocks: Blocks, start: datetime | None) -> tuple[int, int]:
    """Blocks of a day, and how many of them lie between the real trace's beginning and the new one's."""
    slots = round(DAY_S / blocks.block_s)
    if not (slots and math.isclose(slots * blocks.block_s, DAY_S, rel_tol=1e-9)):
        raise InputError(
            f"keep-daytime: expected a block of which a day has a whole number, found {blocks.block_s:g} s"
        )
    if len(blocks) < slots:
        hours = len(blocks) * blocks.block_s / 3600
        raise InputError(f"keep-daytime: expected a trace of at least a day, found whole blocks of {hours:.3g} h")
    if start is None:
        return slots, 0
    if blocks.start is None:
        raise InputError("keep-daytime: the trace does not tell the time of the day, so start cannot be given")
    return slots, round((in_utc(start) - in_utc(blocks.start)) / timedelta(seconds=blocks.block_s))


class _Layer:
    """One sequence of draws; its blocks have to be asked for in their order."""

    def __init__(self, blocks: Blocks, seed: int, layer: int, slots: int, shift: int, share: float) -> None:
        self._blocks = blocks
        self._draws = stream(seed, f"traces/resample/{layer}/blocks")
        self._thinning = stream(seed, f"traces/resample/{layer}/thinning")
        self._slots, self._shift, self._share = slots, shift, share

    def block(self, place: int, time_factor: float, duration_s: float) -> Trace:
        blocks = self._blocks
        slot = (place + self._shift) % self._slots
        number = slot + self._slots * int(self._draws.integers((len(blocks) - slot - 1) // self._slots + 1))
        rows = blocks.read(number)
        if self._share < 1:
            rows = rows[self._thinning.random(len(rows)) < self._share]
        within_s = rows["arrival_s"] - (blocks.first_s + number * blocks.block_s)
        arrival_s = place * blocks.block_s + np.clip(within_s, 0.0, blocks.block_s)
        arrival_s = np.round(arrival_s * time_factor, 7)
        rows = rows[: np.searchsorted(arrival_s, duration_s)]
        # A copy of each column: the rows are a view of bytes that cannot be aligned.
        columns = {name: rows[name].astype(np.int32) for name in rows.dtype.names or () if name != "arrival_s"}
        return Trace(
            sources=blocks.survey.sources,
            arrival_s=arrival_s[: len(rows)],
            source=columns.pop("source"),
            input_tokens=columns.pop("input_tokens"),
            output_tokens=columns.pop("output_tokens"),
            extras=columns,
        )
