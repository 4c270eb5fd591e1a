"""The Azure LLM inference trace of 2023 (Patel et al., Splitwise, ISCA 2024) in its original CSV form.

One file per service, one row per request: the time of arrival with seven decimals, the tokens of the prompt and those
of the answer. The trace of 2024 has the same columns, six decimals and a `+00:00` suffix. Source:
https://github.com/Azure/AzurePublicDataset (CC-BY-4.0).
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from simulator.errors import InputError
from simulator.workload import Trace
from traces.lines import line_blocks
from traces.reader import MAX_PROBLEMS, MAX_TOKENS, Block, default_source

_Ints = npt.NDArray[np.int64]

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_ROW_BYTES = 40  # about

_NEVER_NS = -(2**63)

# The years 1900-2099 keep nanoseconds within 64 bits. A day that its month does not have is found after parsing.
_TIME = (
    r"(?P<second>(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]) (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)"
    r"(?:\.(?P<fraction>\d{1,9}))?(?:\+00:00)?"
)
_ROW = rf"^{_TIME},(?P<input>\d{{1,8}}),(?P<output>\d{{1,8}})\r?\n?$"


def recognises(head: bytes) -> bool:
    """Whether the first line names a token column as only this format does; a missing one is then worth a message."""
    header = head.partition(b"\n")[0].removesuffix(b"\r")
    return not {b"ContextTokens", b"GeneratedTokens"}.isdisjoint(header.split(b","))


def blocks(path: Path, *, source: str | None, rows: int) -> Iterator[Block]:
    """Read a file of one source a block at a time.

    The trace starts at the first good row, truncated to microseconds as `datetime` has no more; `arrival_s` counts from
    exactly there, so that the first one may be some hundred nanoseconds. Times are computed in integer nanoseconds
    and rounded once, when they become float64 (twice if the trace is longer than 104 days). A zone suffix is not kept:
    files without one are in UTC too.

    See `traces.reader.Reader.blocks` for the contract.
    """
    sources = (source or default_source(path),)
    start_us: int | None = None
    latest_ns, last = _NEVER_NS, None
    for first_line, data in line_blocks(path, rows * _ROW_BYTES):
        lines = _lines(data)
        if first_line == 1:
            _check_header(_text(lines, 0), path)
            continue
        kept, time_ns, input_tokens, output_tokens = _good_rows(lines, latest_ns)
        bad = np.setdiff1d(np.arange(len(lines)), kept, assume_unique=True)
        problems = [_problem(lines, int(row), first_line, kept, last) for row in bad[:MAX_PROBLEMS]]
        if len(kept):
            if start_us is None:
                start_us = int(time_ns[0]) // 1000
            latest_ns, last = int(time_ns[-1]), _row(lines, int(kept[-1]), first_line)
        yield Block(
            trace=Trace(
                sources=sources,
                start=None if start_us is None else datetime(1970, 1, 1) + timedelta(microseconds=start_us),
                arrival_s=(time_ns - (start_us or 0) * 1000) / 1e9,
                source=np.zeros(len(kept), dtype=np.int32),
                input_tokens=input_tokens.astype(np.int32),
                output_tokens=output_tokens.astype(np.int32),
            ),
            rows=len(lines),
            first_problems=tuple(f"{path}: {problem}" for problem in problems),
        )
    if first_line == 1:
        raise InputError(f"{path}: line 2: expected at least one row after the header, found the end of the file")


class _Row(NamedTuple):
    """Where and when the last good row was: its line, and its time as the file states it."""

    line: int
    time: str


def _row(lines: pa.LargeStringArray, index: int, first_line: int) -> _Row:
    return _Row(first_line + index, _text(lines, index).split(",")[0])


def _good_rows(lines: pa.LargeStringArray, latest_ns: int) -> tuple[_Ints, _Ints, _Ints, _Ints]:
    """Indices, times [ns since 1970], input and output tokens of the rows that are good after a row of `latest_ns`."""
    fields = pc.extract_regex(lines, _ROW)
    matched = _numbers(pc.indices_nonzero(fields.is_valid()))
    second, fraction, input_text, output_text = fields.drop_null().flatten()
    seconds, real_day = _seconds(second)
    time_ns = seconds * 10**9 + _numbers(pc.utf8_rpad(fraction, 9, "0"))
    input_tokens, output_tokens = _numbers(input_text), _numbers(output_text)
    good = np.flatnonzero(real_day & (input_tokens <= MAX_TOKENS) & (output_tokens <= MAX_TOKENS))
    # Compared with the latest time so far: a row that goes back does not become the measure of the next one.
    good = good[time_ns[good] == np.maximum(np.maximum.accumulate(time_ns[good]), latest_ns)]
    return matched[good], time_ns[good], input_tokens[good], output_tokens[good]


def _lines(data: bytes) -> pa.LargeStringArray:
    """The lines with their line ends, as an Arrow array over the bytes themselves."""
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + 1
    open_end = [] if data.endswith(b"\n") else [len(data)]
    offsets = np.concatenate([[0], ends, open_end]).astype(np.int64)
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def _check_header(header: str, path: Path) -> None:
    found = header.split(",")
    if tuple(found) == COLUMNS:
        return
    missing = [column for column in COLUMNS if column not in found]
    unknown = [repr(column) for column in found if column not in COLUMNS]
    reasons = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
    why = "; ".join(reasons) or "the order differs or a column is repeated"
    raise InputError(f"{path}: line 1: expected the columns {','.join(COLUMNS)}, found {_short(header)} ({why})")


def _numbers(column: pa.Array) -> _Ints:
    """Digits, times or counts without nulls as integers. Not by `to_numpy`: that would import pandas."""
    return np.from_dlpack(pc.cast(column, pa.int64())).astype(np.int64, copy=False)


def _seconds(text: pa.Array) -> tuple[_Ints, npt.NDArray[np.bool_]]:
    """Seconds since 1970, and whether the month has that day: `strptime` turns 30 February into 2 March."""
    moment = pc.strptime(text, format="%Y-%m-%d %H:%M:%S", unit="s")
    return _numbers(moment), _numbers(pc.day(moment)) == _numbers(pc.utf8_slice_codeunits(text, 8, 10))


def _text(lines: pa.LargeStringArray, index: int) -> str:
    """One line without its line end."""
    line: str = lines[index].as_py()
    return line.removesuffix("\n").removesuffix("\r")


def _problem(rows: pa.LargeStringArray, bad: int, first_line: int, kept: _Ints, last: _Row | None) -> str:
    """What is wrong with the row of index `bad`, given the indices of the good ones and the last one before them."""
    line = f"line {first_line + bad}"
    text = _text(rows, bad)
    fields = text.split(",")
    if len(fields) != len(COLUMNS):
        found = f"{len(fields)} in {_short(text)}" if text else "an empty line"
        return f"{line}: expected {len(COLUMNS)} fields ({','.join(COLUMNS)}), found {found}"
    if not _is_time(fields[0]):
        wanted = "YYYY-MM-DD HH:MM:SS with at most 9 decimals"
        return f"{line}, column {COLUMNS[0]}: expected {wanted}, found {_short(fields[0])}"
    for column, field in zip(COLUMNS[1:], fields[1:], strict=True):
        if not re.fullmatch("[0-9]{1,8}", field) or int(field) > MAX_TOKENS:
            return f"{line}, column {column}: expected an integer from 0 to {MAX_TOKENS}, found {_short(field)}"
    # Good by itself: it goes back in time behind the last good row before it.
    # In an earlier block if there is none in this one.
    at = int(np.searchsorted(kept, bad)) - 1
    previous = _row(rows, int(kept[at]), first_line) if at >= 0 else last
    assert previous is not None
    wanted = f"a time not before {previous.time!r} of line {previous.line}"
    return f"{line}, column {COLUMNS[0]}: expected {wanted}, found {fields[0]!r}"


def _short(text: str, width: int = 80) -> str:
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def _is_time(text: str) -> bool:
    match = re.fullmatch(_TIME, text, re.ASCII)
    try:
        return match is not None and bool(datetime.fromisoformat(match["second"]))
    except ValueError:
        return False
