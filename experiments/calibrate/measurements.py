"""Measured step times of LLM engines, from three kinds of files, as one table."""

import csv
import gzip
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError

IntColumn = npt.NDArray[np.int64]
FloatColumn = npt.NDArray[np.float64]

SHOWN_PROBLEMS = 20
MIXED_UNITS = 100  # times of one point that are this far apart are not of one unit
STOPS_EARLY = 128  # runs of splitwise that ask for more tokens than this stop before
PHASES = {"prefill": True, "decode": False}
PARTS = ("gemm", "lm_head", "attention", "allreduce")
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurements:
    """Columns of equal length; a row is one engine step: the prefill of some prompts, or one decode step.

    Attributes
    ----------
    path, kind
        The file, and which of `KINDS` it is.
    gpu, precision, model
        As the file writes them.
    prefill
        Whether a row is a prefill, bool.
    tensor_parallel, pipeline_parallel, batch, query_tokens, context_tokens
        Degrees, sequences, tokens that each of them processes (1 in decode), and tokens in its KV cache with these,
        int64.
    step_s
        Duration [s].
    parts_s
        Durations of "gemm", "lm_head", "attention" and "allreduce" [s] where the file has them.
    line
        Line in the file; the header is line 1.
    """

    path: str
    kind: str
    gpu: tuple[str, ...]
    precision: tuple[str, ...]
    model: tuple[str, ...]
    prefill: npt.NDArray[np.bool_]
    tensor_parallel: IntColumn
    pipeline_parallel: IntColumn
    batch: IntColumn
    query_tokens: IntColumn
    context_tokens: IntColumn
    step_s: FloatColumn
    line: IntColumn
    parts_s: Mapping[str, FloatColumn] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.step_s)

    def rows(self, which: npt.NDArray[np.bool_]) -> "Measurements":
        """The rows that a boolean mask selects."""
        kept = np.flatnonzero(which).tolist()
        columns: dict[str, Any] = {name: getattr(self, name)[kept] for name in _ARRAYS}
        columns |= {name: tuple(getattr(self, name)[k] for k in kept) for name in _NAMES}
        return Measurements(
            path=self.path,
            kind=self.kind,
            **columns,
            parts_s={name: column[kept] for name, column in self.parts_s.items()},
        )


_NAMES = ("gpu", "precision", "model")
_ARRAYS = (
    "prefill",
    "tensor_parallel",
    "pipeline_parallel",
    "batch",
    "query_tokens",
    "context_tokens",
    "step_s",
    "line",
)

Row = Mapping[str, str]
Step = dict[str, Any]


class _Cells:
    """Reads the cells of one row and remembers what is wrong with them."""

    def __init__(self, row: Row, tell: Callable[[str], None]) -> None:
        self._row = row
        self._tell = tell

    def text(self, name: str) -> str:
        value = self._row[name].strip()
        if not value:
            self._tell(f"{name}: empty, expected a name")
        return value

    def whole(self, name: str) -> int:
        value = self._number(name)
        if not (value >= 1 and value == int(value) and value < 1e12):
            self._tell(f"{name}: found {self._row[name]!r}, expected a whole number of at least 1")
            return 1
        return int(value)

    def seconds(self, name: str, *, zero: bool = False) -> float:
        """A time given in ms."""
        value = self._number(name)
        if not (0 < value < 1e9 or (zero and value == 0)):
            least = "at least" if zero else "above"
            self._tell(f"{name}: found {self._row[name]!r}, expected a time in ms, {least} 0")
            return 1e-3
        return value / 1e3

    def phase(self, name: str) -> bool:
        value = self._row[name].strip().lower()
        if value not in PHASES:
            self._tell(f"{name}: found {self._row[name]!r}, expected prefill or decode")
        return PHASES.get(value, True)

    def _number(self, name: str) -> float:
        try:
            value = float(self._row[name])
        except ValueError:
            return math.nan
        return value if math.isfinite(value) else math.nan


def _composed(cells: _Cells, names: Sequence[str]) -> Iterable[Step]:
    parts = {
        "gemm": "gemm_layers_ms",
        "lm_head": "lm_head_ms",
        "attention": "attention_ms",
        "allreduce": "allreduce_ms",
    }
    del names
    yield {
        "prefill": cells.phase("phase"),
        "gpu": cells.text("gpu"),
        "precision": cells.text("gemm_dtype"),
        "model": cells.text("model"),
        "tensor_parallel": cells.whole("tp"),
        "pipeline_parallel": 1,
        "batch": cells.whole("batch"),
        "query_tokens": cells.whole("query_len"),
        "context_tokens": cells.whole("context_len"),
        "step_s": cells.seconds("step_ms"),
        "parts_s": {part: cells.seconds(column, zero=True) for part, column in parts.items()},
    }


def _splitwise(cells: _Cells, names: Sequence[str]) -> Iterable[Step]:
    del names
    prompt, asked = cells.whole("prompt_tokens"), cells.whole("requested_output_tokens")
    common = {
        "gpu": cells.text("gpu"),
        "precision": "fp16",
        "model": cells.text("model"),
        "tensor_parallel": cells.whole("tensor_parallel"),
        "pipeline_parallel": 1,
        "batch": cells.whole("batch_size"),
        "parts_s": {},
    }
    yield common | {
        "prefill": True,
        "query_tokens": prompt,
        "context_tokens": prompt,
        "step_s": cells.seconds("prefill_ms"),
    }
    if asked > 1:
        yield common | {
            "prefill": False,
            "query_tokens": 1,
            "context_tokens": prompt + min(asked, STOPS_EARLY) // 2,
            "step_s": cells.seconds("decode_step_ms_mean"),
        }


def _own(cells: _Cells, names: Sequence[str]) -> Iterable[Step]:
    with_parts = all(f"{part}_ms" in names for part in PARTS)
    yield {
        "prefill": cells.phase("phase"),
        "gpu": cells.text("gpu"),
        "precision": cells.text("precision"),
        "model": cells.text("model"),
        "tensor_parallel": cells.whole("tensor_parallel"),
        "pipeline_parallel": cells.whole("pipeline_parallel") if "pipeline_parallel" in names else 1,
        "batch": cells.whole("batch"),
        "query_tokens": cells.whole("query_tokens"),
        "context_tokens": cells.whole("context_tokens"),
        "step_s": cells.seconds("step_ms"),
        "parts_s": {part: cells.seconds(f"{part}_ms", zero=True) for part in PARTS} if with_parts else {},
    }


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: the columns that it must have, and the steps of one of its rows."""

    columns: tuple[str, ...]
    steps: Callable[[_Cells, Sequence[str]], Iterable[Step]]


KINDS: dict[str, Kind] = {
    "composed": Kind(
        (
            *("phase", "gpu", "gemm_dtype", "model", "tp", "batch", "query_len", "context_len"),
            *("gemm_layers_ms", "lm_head_ms", "attention_ms", "allreduce_ms", "step_ms"),
        ),
        _composed,
    ),
    "splitwise": Kind(
        (
            *("gpu", "model", "tensor_parallel", "prompt_tokens", "batch_size", "requested_output_tokens"),
            *("prefill_ms", "decode_step_ms_mean"),
        ),
        _splitwise,
    ),
    "tokenfleet": Kind(
        (
            *("phase", "gpu", "precision", "model", "tensor_parallel", "batch", "query_tokens", "context_tokens"),
            "step_ms",
        ),
        _own,
    ),
}
"""`composed` and `splitwise` are public tables; `tokenfleet` is our own schema (docs/calibration.md)."""


def read_measurements(path: Path) -> Measurements:
    """Read a file of measured steps; its kind is told by its header.

    Raises
    ------
    InputError
        With file, line and column of everything that cannot be used: missing columns, times that are not above zero,
        times of one point that cannot be of one unit.
    """
    names, rows = _table(path)
    kind = _kind(path, names)
    problems: list[str] = []
    steps: list[Step] = []
    for line, row in rows:
        cells = _Cells(row, lambda text, line=line: problems.append(f"{path}:{line}: {text}"))  # type: ignore[misc]
        for step in KINDS[kind].steps(cells, names):
            if not step["prefill"] and step["query_tokens"] != 1:
                problems.append(f"{path}:{line}: a decode step processes 1 token of each sequence")
            if step["context_tokens"] < step["query_tokens"]:
                problems.append(f"{path}:{line}: the context holds the tokens of the query and cannot be shorter")
            steps.append(step | {"line": line})
    if not problems:
        problems = _mixed_units(path, steps)
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        raise InputError(problems[:SHOWN_PROBLEMS] + [f"{path}: and {more} more"] * (more > 0))
    if not steps:
        raise InputError(f"{path}: there is no row below the header")
    columns: dict[str, Any] = {name: np.array([step[name] for step in steps]) for name in _ARRAYS}
    columns |= {name: tuple(step[name] for step in steps) for name in _NAMES}
    return Measurements(
        path=str(path),
        kind=kind,
        **columns,
        parts_s={name: np.array([step["parts_s"][name] for step in steps]) for name in steps[0]["parts_s"]},
    )


def _table(path: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    """Header and rows with their lines."""
    try:
        data = path.read_bytes()
        if data.startswith(GZIP_MAGIC):
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected CSV in UTF-8, gzipped or not: {error}") from None
    reader = csv.reader(io.StringIO(text))
    try:
        names = [name.strip() for name in next(reader, [])]
        cells = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: expected CSV: {error}") from None
    if not any(names):
        raise InputError(f"{path}: empty, expected a header and rows")
    wrong = [
        f"{path}:{line}: {len(row)} cells, the header has {len(names)}" for line, row in cells if len(row) != len(names)
    ]
    if wrong:
        raise InputError(wrong[:SHOWN_PROBLEMS])
    return names, [(line, dict(zip(names, row, strict=True))) for line, row in cells]


def _kind(path: Path, names: Sequence[str]) -> str:
    """The kind of file with such a header."""
    missing = {kind: [name for name in entry.columns if name not in names] for kind, entry in KINDS.items()}
    for kind, lacking in missing.items():
        if not lacking:
            return kind
    nearest = min(missing, key=lambda kind: len(missing[kind]) / len(KINDS[kind].columns))
    times = [name for name in names if name.startswith("step_") and name != "step_ms"]
    hint = f"; times are expected in ms in step_ms, found {times[0]}" if times and "step_ms" in missing[nearest] else ""
    raise InputError(f"{path}: columns {', '.join(missing[nearest])} are missing ({nearest} steps){hint}")


def _mixed_units(path: Path, steps: Sequence[Step]) -> list[str]:
    """Find rows of the same measured point whose times differ so much that their units must differ."""
    points: dict[tuple[Any, ...], list[Step]] = defaultdict(list)
    for step in steps:
        key = ("prefill", "gpu", "precision", "model", "tensor_parallel", "pipeline_parallel", "batch")
        points[tuple(step[name] for name in (*key, "query_tokens", "context_tokens"))].append(step)
    problems = []
    for own in points.values():
        middle = float(np.median([step["step_s"] for step in own]))
        problems += [
            f"{path}:{step['line']}: {step['step_s'] * 1e3:g} ms, where other rows of the same point say "
            f"{middle * 1e3:g}: mixed units?"
            for step in own
            if not 1 / MIXED_UNITS < step["step_s"] / middle < MIXED_UNITS
        ]
    return problems
