"""Tables of rates: a row per window and workload, `workload,window_start_s,requests_per_s`, as made from ServeGen.

They hold no requests. Requests are drawn from them: Poisson arrivals of the rate of each window, lengths from a table
of quantiles, `workload,field,quantile_pct,tokens`, that stands beside the file under its name with `rates...` replaced
by `token_quantiles`. So the rates and the lengths are the workload's, bursts shorter than a window and any dependence
of the lengths are not. One file, one draw: always the same. Source of the tables that this was made for:
https://github.com/alibaba/ServeGen (Apache-2.0); Xiang et al., arXiv 2505.09999.
"""

import codecs
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.rng import stream
from traces.io.header import fields_of, header_of, printable
from traces.io.lines import open_bytes
from traces.io.reader import MAX_TOKENS, Asked, BadRow, Block, is_name, short
from traces.io.times import MAX_RELATIVE_S, parse_number

COLUMNS = ("workload", "window_start_s", "requests_per_s")
QUANTILE_COLUMNS = ("workload", "field", "quantile_pct", "tokens")
_FIELDS = ("input_tokens", "output_tokens")
_Quantiles = dict[tuple[str, str], tuple[list[float], list[float]]]
_MAX_RATE_PER_S = 1e6
_MAX_REQUESTS = 10_000_000
_SEED = 0


@dataclass(frozen=True, slots=True)
class _Window:
    """One row: its line, and what it says."""

    line: int
    text: str
    workload: str
    start_s: float
    rate_per_s: float


class ServegenRates:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "line"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether the header has the three columns."""
        try:
            return set(COLUMNS).issubset(header_of(head, path).names)
        except InputError:
            return False

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`. A block is the windows of all workloads that start at one time."""
        windows, bad = _windows(path)
        workloads = tuple(dict.fromkeys(window.workload for window in windows))
        quantiles = _quantiles(quantile_file(path), workloads)
        length_s = {name: _length_s([w for w in windows if w.workload == name]) for name in workloads}
        _refuse_too_many(path, windows, length_s)
        sources = workloads if asked.source is None else (asked.source,)
        yield Block(
            time=np.zeros(0),
            sources=sources[:0],
            source=np.zeros(0, dtype=np.int32),
            input_tokens=np.zeros(0, dtype=np.int32),
            output_tokens=np.zeros(0, dtype=np.int32),
            rows=len(windows) + len(bad),
            bad=bad,
            row_of=lambda index: (index, ""),
        )
        windows.sort(key=lambda window: window.start_s)
        for _, together in itertools.groupby(windows, key=lambda window: window.start_s):
            drawn = [_drawn(window, length_s[window.workload], quantiles) for window in together]
            time_s = np.concatenate([times for times, _, _ in drawn])
            order = np.argsort(time_s, kind="stable")
            number = [0 if asked.source is not None else workloads.index(window.workload) for _, _, window in drawn]
            source = np.repeat(np.array(number, dtype=np.int32), [len(times) for times, _, _ in drawn])
            inputs, outputs = (np.concatenate([tokens[k] for _, tokens, _ in drawn])[order] for k in range(2))
            first = drawn[0][2]
            yield Block(
                time=time_s[order],
                sources=sources,
                source=source[order],
                input_tokens=inputs,
                output_tokens=outputs,
                rows=0,
                row_of=lambda _, window=first: (window.line, window.text),  # type: ignore[misc]
            )


READER = ServegenRates()


def quantile_file(path: Path) -> Path:
    """`servegen_rates_10min.csv` -> `servegen_token_quantiles.csv`."""
    stem = path.name.partition("rates")[0] if "rates" in path.name else ""
    return path.with_name(f"{stem}token_quantiles.csv")


def _table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, str, list[str] | None]]:
    """The rows after the header: line, text and the fields of the columns, None if their number is wrong."""
    with open_bytes(path) as file:
        lines = file.read().removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n").split(b"\n")
    header = header_of(lines[0] + b"\n", path)
    missing = [name for name in columns if name not in header.names]
    if missing:
        raise InputError(f"{path}: line 1: expected the columns {','.join(columns)}; missing: {', '.join(missing)}")
    at = [header.names.index(name) for name in columns]
    for number, line in enumerate(lines[1:], start=2):
        text = line.decode(errors="surrogateescape").removesuffix("\r")
        fields = fields_of(text, header.delimiter) or []
        whole = len(fields) == len(header.names)
        yield number, printable(text), [fields[k] for k in at] if whole else None


def _windows(path: Path) -> tuple[list[_Window], list[BadRow]]:
    windows, bad = [], []
    for number, text, fields in _table(path, COLUMNS):
        start_s, rate = (parse_number(field) for field in fields[1:]) if fields else (None, None)
        if fields is None:
            problem = f": expected {len(COLUMNS)} fields or more, found {short(text)}"
        elif not is_name(fields[0]):
            problem = f", column workload: expected a name, found {short(printable(fields[0]))}"
        elif start_s is None or not 0 <= start_s < MAX_RELATIVE_S:
            wanted = f"a number from 0 to {MAX_RELATIVE_S:.2g}"
            problem = f", column window_start_s: expected {wanted}, found {short(printable(fields[1]))}"
        elif rate is None or not 0 <= rate <= _MAX_RATE_PER_S:
            wanted = f"a number from 0 to {_MAX_RATE_PER_S:.0f}"
            problem = f", column requests_per_s: expected {wanted}, found {short(printable(fields[2]))}"
        else:
            windows.append(_Window(number, text, fields[0], start_s, rate))
            continue
        bad.append(BadRow(number, f"line {number}{problem}", text))
    if not windows and not bad:
        raise InputError(f"{path}: line 2: expected at least one row after the header, found the end of the file")
    return windows, bad


def _refuse_too_many(path: Path, windows: list[_Window], length_s: dict[str, float]) -> None:
    """Raise InputError where more requests would have to be drawn at once than fit into memory."""
    for window in windows:
        requests = window.rate_per_s * length_s[window.workload]
        if requests > _MAX_REQUESTS:
            raise InputError(
                f"{path}: line {window.line}: expected a window of at most {_MAX_REQUESTS:,} requests, "
                f"found {window.rate_per_s:g} per second for {length_s[window.workload]:g} s"
            )


def _length_s(windows: list[_Window]) -> float:
    """The time from window to window; the last is as long as the others."""
    starts = sorted(window.start_s for window in windows)
    steps = np.diff(starts)
    return float(np.median(steps[steps > 0])) if len(steps) and (steps > 0).any() else 600.0


def _quantiles(path: Path, workloads: Sequence[str]) -> _Quantiles:
    if not path.is_file():
        raise InputError(f"{path}: expected the quantiles of the tokens ({','.join(QUANTILE_COLUMNS)}), found no file")
    found: _Quantiles = {}
    for number, _, fields in _table(path, QUANTILE_COLUMNS):
        if fields is None or fields[2] == "mean":
            continue
        level, tokens = parse_number(fields[2]), parse_number(fields[3])
        if level is None or tokens is None or not (0 <= level <= 100 and 0 <= tokens <= MAX_TOKENS):
            raise InputError(f"{path}: line {number}: expected a level from 0 to 100 and a number of tokens")
        levels, values = found.setdefault((fields[0], fields[1]), ([], []))
        if levels and (level <= levels[-1] or tokens < values[-1]):
            raise InputError(f"{path}: line {number}: expected levels that rise and tokens that do not fall")
        levels.append(level)
        values.append(tokens)
    missing = [f"{workload} {field}" for workload in workloads for field in _FIELDS if (workload, field) not in found]
    if missing:
        raise InputError(f"{path}: expected quantiles of {', '.join(missing)}")
    return found


def _drawn(
    window: _Window, length_s: float, quantiles: _Quantiles
) -> tuple[npt.NDArray[np.float64], list[npt.NDArray[np.int32]], _Window]:
    """Times and lengths of the requests of one window."""
    rng = stream(_SEED, f"traces/servegen/{window.workload}/{window.line}")
    count = int(rng.poisson(window.rate_per_s * length_s))
    time_s = np.sort(window.start_s + rng.random(count) * length_s)
    return time_s, [_draw(*quantiles[window.workload, field], rng.random(count)) for field in _FIELDS], window


def _draw(levels: list[float], tokens: list[float], uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Lengths between the quantiles; below the first and above the last they are those."""
    return np.rint(np.interp(uniform * 100, levels, tokens)).astype(np.int32)
