"""Read a trace file of any known format. A new format is a module with two functions and one line in `READERS`."""

import codecs
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from simulator.errors import InputError
from simulator.workload import Trace
from traces import azure
from traces.reader import ParsedRows, Reader

__all__ = ["READERS", "OnBadRow", "ParsedRows", "Reader", "TraceRead", "default_source", "read_trace"]

READERS: dict[str, Reader] = {
    "azure": azure,
}


class OnBadRow(StrEnum):
    """What to do with a row that cannot be used."""

    ERROR = "error"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRead:
    """A trace and where it came from.

    Attributes
    ----------
    format
        Name of the format in `READERS`.
    rows_in_file, rows_skipped
        `len(trace) + rows_skipped == rows_in_file`.
    first_problems
        What was wrong with the first skipped rows; empty if none was skipped.
    """

    trace: Trace
    path: Path
    format: str
    rows_in_file: int
    rows_skipped: int
    first_problems: tuple[str, ...]


def read_trace(
    path: Path,
    *,
    source: str | None = None,
    trace_format: str | None = None,
    on_bad_row: OnBadRow = OnBadRow.ERROR,
) -> TraceRead:
    """Read one trace file.

    Parameters
    ----------
    source
        Name of the file's source; `default_source(path)` if none is given.
    trace_format
        A key of `READERS`; recognised from the first line if none is given.
    on_bad_row
        Whether a bad row is an error or is left out and counted.

    Raises
    ------
    InputError
        If the file cannot be read, is of no known format, has bad rows (unless they are skipped) or no good one.
    """
    data = _read_text(path)
    name = _format_of(path, data) if trace_format is None else trace_format
    if name not in READERS:
        raise InputError(f"{path}: there is no trace format {name!r}; known formats: {', '.join(READERS)}")
    parsed = READERS[name].parse(data, name=str(path), source=source or default_source(path))
    if parsed.rows_in_file == 0:
        raise InputError(f"{path}: line 2: expected at least one row after the header, found the end of the file")
    if parsed.rows_skipped == parsed.rows_in_file:
        raise InputError([f"{path}: expected at least one good row, found none", *_problems(path, parsed)])
    if parsed.rows_skipped and on_bad_row is OnBadRow.ERROR:
        raise InputError(_problems(path, parsed))
    return TraceRead(
        trace=parsed.trace,
        path=path,
        format=name,
        rows_in_file=parsed.rows_in_file,
        rows_skipped=parsed.rows_skipped,
        first_problems=parsed.first_problems,
    )


def default_source(path: Path) -> str:
    """The last word of a file's name: `AzureLLMInferenceTrace_conv.csv` -> `conv`, `Week.csv` -> `week`."""
    return (path.stem.rpartition("_")[2] or path.stem).lower()


def _read_text(path: Path) -> bytes:
    """The file as the readers expect it: valid UTF-8, no byte order mark, no line ends at the end, not empty."""
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise InputError(f"{path}: expected a trace file, found a directory") from None
    except FileNotFoundError:
        raise InputError(f"{path}: expected a trace file, found nothing of this name") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x}"
        raise InputError(f"{path}: line {line}: expected text in UTF-8, found {found} ({error.reason})") from None
    data = data.rstrip(b"\r\n")
    if not data:
        raise InputError(f"{path}: line 1: expected a header, found an empty file")
    return data


def _format_of(path: Path, data: bytes) -> str:
    header = data.partition(b"\n")[0].decode().removesuffix("\r")
    for name, reader in READERS.items():
        if reader.recognises(header):
            return name
    found = header if len(header) <= 100 else header[:97] + "..."
    known = ", ".join(READERS)
    raise InputError(f"{path}: line 1: expected the header of a known trace format ({known}), found {found!r}")


def _problems(path: Path, parsed: ParsedRows) -> list[str]:
    more = parsed.rows_skipped - len(parsed.first_problems)
    rest = [f"{path}: {more} more bad rows (of {parsed.rows_in_file} rows in the file)"] if more else []
    return [*parsed.first_problems, *rest]
