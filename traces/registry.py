"""Read a trace file of any known format. A new format is a module with two functions and one line in `READERS`."""

import codecs
import stat
from collections.abc import Generator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from simulator.errors import InputError
from simulator.workload import Trace
from traces import azure, parquet
from traces.lines import check_utf8
from traces.reader import MAX_PROBLEMS, Reader, default_source

__all__ = ["READERS", "OnBadRow", "Reader", "TraceRead", "WholeTrace", "default_source", "read_chunks", "read_trace"]

READERS: dict[str, Reader] = {
    "azure": azure,
    "tokenfleet": parquet,
}

CHUNK_ROWS = 2**17
"""About how many requests of a file are in memory at once."""

_HEAD_BYTES = 2**16


class OnBadRow(StrEnum):
    """What to do with a row that cannot be used."""

    ERROR = "error"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRead:
    """What reading a file came to.

    Attributes
    ----------
    format
        Name of the format in `READERS`.
    rows_in_file, rows_skipped
        The difference is the number of requests.
    first_problems
        What was wrong with the first skipped rows; empty if none was skipped.
    """

    path: Path
    format: str
    rows_in_file: int
    rows_skipped: int
    first_problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeTrace(TraceRead):
    """A file that was read into memory as a whole."""

    trace: Trace


def read_chunks(
    path: Path,
    *,
    source: str | None = None,
    trace_format: str | None = None,
    on_bad_row: OnBadRow = OnBadRow.ERROR,
    chunk_rows: int = CHUNK_ROWS,
) -> Generator[Trace, None, TraceRead]:
    """Read one trace file chunk by chunk; memory grows with the chunks, not with the file.

    Parameters
    ----------
    source
        Name of the file's source. If none is given: what the file states, or else `default_source(path)`.
    trace_format
        A key of `READERS`; recognised from the beginning of the file if none is given.
    on_bad_row
        Whether a bad row is an error or is left out and counted.
    chunk_rows
        About how many rows of the file a chunk comes from.

    Yields
    ------
    Trace
        At least one good row, with the same `sources` and `start` in every chunk.

    Returns
    -------
    TraceRead
        The account, as the value of the generator.

    Raises
    ------
    InputError
        At the end if the file has bad rows (unless they are skipped) or no good one; as soon as it is found if the file
        cannot be read or is of no known format.
    """
    rows = good = 0
    first_problems: list[str] = []
    try:
        head = _head(path)
        name = _recognised(path, head) if trace_format is None else trace_format
        if name not in READERS:
            raise InputError(f"{path}: there is no trace format {name!r}; known formats: {', '.join(READERS)}")
        for block in READERS[name].blocks(path, source=source, rows=chunk_rows):
            rows += block.rows
            good += len(block.trace)
            first_problems += block.first_problems[: MAX_PROBLEMS - len(first_problems)]
            if len(block.trace):
                yield block.trace
    except IsADirectoryError:
        raise InputError(f"{path}: expected a trace file, found a directory") from None
    except FileNotFoundError:
        raise InputError(f"{path}: expected a trace file, found nothing of this name") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    skipped = rows - good
    if skipped and (good == 0 or on_bad_row is OnBadRow.ERROR):
        nothing = [f"{path}: expected at least one good row, found none"] * (good == 0)
        more = skipped - len(first_problems)
        rest = [f"{path}: {more} more bad rows (of {rows} rows in the file)"] * bool(more)
        raise InputError([*nothing, *first_problems, *rest])
    return TraceRead(
        path=path, format=name, rows_in_file=rows, rows_skipped=skipped, first_problems=tuple(first_problems)
    )


def read_trace(
    path: Path,
    *,
    source: str | None = None,
    trace_format: str | None = None,
    on_bad_row: OnBadRow = OnBadRow.ERROR,
) -> WholeTrace:
    """Read one trace file into memory; see `read_chunks`.

    Raises
    ------
    InputError
        If the file cannot be read, is of no known format, has bad rows (unless they are skipped) or no good one.
    """
    reads: list[TraceRead] = []

    def read() -> Generator[Trace, None, None]:
        reads.append((yield from read_chunks(path, source=source, trace_format=trace_format, on_bad_row=on_bad_row)))

    chunks = list(read())
    trace = Trace(
        sources=chunks[0].sources,
        start=chunks[0].start,
        arrival_s=np.concatenate([chunk.arrival_s for chunk in chunks]),
        source=np.concatenate([chunk.source for chunk in chunks]),
        input_tokens=np.concatenate([chunk.input_tokens for chunk in chunks]),
        output_tokens=np.concatenate([chunk.output_tokens for chunk in chunks]),
    )
    return WholeTrace(trace=trace, **asdict(reads[0]))


def _head(path: Path) -> bytes:
    """The beginning of a file that can be read as often as needed, without byte order mark."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: expected a file that can be read twice, found a pipe or a device")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
    if not head.strip(b"\r\n"):
        raise InputError(f"{path}: line 1: expected a header, found an empty file")
    return head


def _recognised(path: Path, head: bytes) -> str:
    for name, reader in READERS.items():
        if reader.recognises(head):
            return name
    check_utf8(path, head, 1, final=False)
    header = head.partition(b"\n")[0].decode(errors="replace").removesuffix("\r")
    found = header if len(header) <= 100 else header[:97] + "..."
    known = ", ".join(READERS)
    raise InputError(f"{path}: line 1: expected the header of a known trace format ({known}), found {found!r}")
