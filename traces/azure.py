"""The Azure LLM inference trace of 2023 (Patel et al., Splitwise, ISCA 2024) in its original CSV form.

One file per service, one row per request: the time of arrival with seven decimals, the tokens of the prompt and those
of the answer. The trace of 2024 has the same columns, six decimals and a `+00:00` suffix. Source:
https://github.com/Azure/AzurePublicDataset (CC-BY-4.0).
"""

import re
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from simulator.errors import InputError
from simulator.workload import Trace
from traces.reader import MAX_PROBLEMS, ParsedRows

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MAX_TOKENS = 10_000_000

# The years 1900-2099 keep nanoseconds within 64 bits. A day that its month does not have is found after parsing.
_TIME = (
    r"(?P<second>(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]) (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)"
    r"(?:\.(?P<fraction>\d{1,9}))?(?:\+00:00)?"
)
_ROW = rf"^{_TIME},(?P<input>\d{{1,8}}),(?P<output>\d{{1,8}})\r?\n?$"


def recognises(header: str) -> bool:
    """Whether the line names a token column as only this format does; a missing column is then worth a message."""
    return not {"ContextTokens", "GeneratedTokens"}.isdisjoint(header.split(","))


def parse(data: bytes, *, name: str, source: str) -> ParsedRows:
    """Parse the rows of one file into a trace of one source.

    The trace starts at the first good row, truncated to microseconds as `datetime` has no more; `arrival_s` counts from
    exactly there, so that the first one may be some hundred nanoseconds. Times are computed in integer nanoseconds
    and rounded once, when they become float64 (twice if the trace is longer than 104 days). A zone suffix is not kept:
    files without one are in UTC too.

    See `traces.reader.Reader.parse` for the contract.
    """
    lines = _lines(data)
    _check_header(_text(lines, 0), name)
    rows = lines[1:]
    fields = pc.extract_regex(rows, _ROW)
    matched = _numbers(pc.indices_nonzero(fields.is_valid()))
    fields = fields.drop_null()
    second, fraction, input_text, output_text = fields.flatten()
    seconds, real_day = _seconds(second)
    time_ns = seconds * 10**9 + _numbers(pc.utf8_rpad(fraction, 9, "0"))
    input_tokens, output_tokens = _numbers(input_text), _numbers(output_text)

    good = np.flatnonzero(real_day & (input_tokens <= MAX_TOKENS) & (output_tokens <= MAX_TOKENS))
    # Compared with the latest time so far: a row that goes back does not become the measure of the next one.
    good = good[time_ns[good] == np.maximum.accumulate(time_ns[good])]
    start_us = int(time_ns[good[0]]) // 1000 if len(good) else 0
    trace = Trace(
        sources=(source,),
        start=datetime(1970, 1, 1) + timedelta(microseconds=start_us) if len(good) else None,
        arrival_s=(time_ns[good] - start_us * 1000) / 1e9,
        source=np.zeros(len(good), dtype=np.int32),
        input_tokens=input_tokens[good].astype(np.int32),
        output_tokens=output_tokens[good].astype(np.int32),
    )
    kept = matched[good]
    bad = np.setdiff1d(np.arange(len(rows)), kept, assume_unique=True)
    problems = [_problem(rows, int(row), kept) for row in bad[:MAX_PROBLEMS]]
    return ParsedRows(
        trace=trace,
        rows_in_file=len(rows),
        rows_skipped=len(bad),
        first_problems=tuple(f"{name}: {problem}" for problem in problems),
    )


def _lines(data: bytes) -> pa.LargeStringArray:
    """The lines with their line ends, as an Arrow array over the bytes themselves."""
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends, [len(data)]]).astype(np.int64)
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def _check_header(header: str, name: str) -> None:
    found = header.split(",")
    if tuple(found) == COLUMNS:
        return
    missing = [column for column in COLUMNS if column not in found]
    unknown = [repr(column) for column in found if column not in COLUMNS]
    reasons = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
    why = "; ".join(reasons) or "the order differs or a column is repeated"
    raise InputError(f"{name}: line 1: expected the columns {','.join(COLUMNS)}, found {_short(header)} ({why})")


def _numbers(column: pa.Array) -> npt.NDArray[np.int64]:
    """Digits, times or counts without nulls as integers. Not by `to_numpy`: that would import pandas."""
    return np.from_dlpack(pc.cast(column, pa.int64())).astype(np.int64, copy=False)


def _seconds(text: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Seconds since 1970, and whether the month has that day: `strptime` turns 30 February into 2 March."""
    moment = pc.strptime(text, format="%Y-%m-%d %H:%M:%S", unit="s")
    return _numbers(moment), _numbers(pc.day(moment)) == _numbers(pc.utf8_slice_codeunits(text, 8, 10))


def _text(lines: pa.LargeStringArray, index: int) -> str:
    """One line without its line end."""
    line: str = lines[index].as_py()
    return line.removesuffix("\n").removesuffix("\r")


def _problem(rows: pa.LargeStringArray, bad: int, kept: npt.NDArray[np.int64]) -> str:
    """What is wrong with the row of index `bad`, given the indices of the good ones."""
    line = f"line {bad + 2}"
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
    previous = int(kept[np.searchsorted(kept, bad) - 1])
    wanted = f"a time not before {_text(rows, previous).split(',')[0]!r} of line {previous + 2}"
    return f"{line}, column {COLUMNS[0]}: expected {wanted}, found {fields[0]!r}"


def _short(text: str, width: int = 80) -> str:
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def _is_time(text: str) -> bool:
    match = re.fullmatch(_TIME, text, re.ASCII)
    try:
        return match is not None and bool(datetime.fromisoformat(match["second"]))
    except ValueError:
        return False
