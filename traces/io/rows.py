"""Requests that are read one by one, gathered into blocks: for the formats that are no tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from traces.io.reader import MAX_TOKENS, Asked, BadRow, Block, default_source, is_name, short, shown
from traces.io.times import EXPECTED_ANY, NS_LIMIT, TimeForm, TimeKind, form_of


class Rows:
    """Gathers rows; a row that cannot be used is kept as a bad one.

    Parameters
    ----------
    unit
        What a row is called in messages.
    time_unit
        Of times that are numbers; None: from the first one (see `traces.io.times.form_of`).
    extras
        Names of the further columns.
    """

    def __init__(
        self, path: Path, asked: Asked, *, unit: str, time_unit: str | None = None, extras: tuple[str, ...] = ()
    ) -> None:
        self._unit = unit
        self._time_unit = asked.time_unit or time_unit
        self._extras = extras
        self._given = asked.source
        self._default = default_source(path)
        self._names: dict[str, int] = {}
        self._form: TimeForm | None = None
        self._clear()

    def _clear(self) -> None:
        self._rows = 0
        self._good: list[tuple[int | float, int, list[int]]] = []
        self._numbers: list[int] = []
        self._texts: list[str] = []
        self._bad: list[BadRow] = []
        self._failed = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, number: int, text: str, fields: Mapping[str, Any], names: Mapping[str, str]) -> bool:
        """Take in a row; say whether it is good.

        Parameters
        ----------
        fields
            Its values: `arrival_s`, `input_tokens`, `output_tokens`, further columns, and `source` if the format has
            sources.
        names
            What the file calls them.
        """
        self._rows += 1
        time = self._time(fields.get("arrival_s"))
        if time is None:
            wanted = self._form.expected if self._form else EXPECTED_ANY
            return self._refuse(number, text, "arrival_s", wanted, fields, names)
        source = self._given or fields.get("source", self._default)
        if not isinstance(source, str) or not is_name(source):
            return self._refuse(number, text, "source", "a name", fields, names)
        counts = []
        for role in ("input_tokens", "output_tokens", *self._extras):
            value: Any = fields.get(role)
            if value is None and role in self._extras:
                value = 0
            if not is_count(value):
                return self._refuse(number, text, role, f"an integer from 0 to {MAX_TOKENS}", fields, names)
            counts.append(int(value))
        self._good.append((time, self._names.setdefault(source, len(self._names)), counts))
        self._numbers.append(number)
        self._texts.append(text)
        return True

    def refuse(self, number: int, problem: str, text: str) -> None:
        """Take in a row that is no request at all."""
        self._rows += 1
        self._bad.append(BadRow(number, f"{self._unit} {number}: {problem}", text))

    def fail(self) -> None:
        """Take in a request that failed before it was sent: it states no time."""
        self._rows += 1
        self._failed += 1

    def block(self) -> Block:
        """What was gathered since the last block."""
        relative = self._form is not None and self._form.kind is TimeKind.RELATIVE
        counts = np.array([row[2] for row in self._good], dtype=np.int32).reshape(-1, 2 + len(self._extras))
        inputs, outputs, *extras = (np.ascontiguousarray(column) for column in counts.T)
        numbers, texts = self._numbers, self._texts
        moments = [row[0] for row in self._good]
        block = Block(
            time=np.array(moments, dtype=np.float64) if relative else np.array(moments, dtype=np.int64),
            sources=tuple(self._names),
            source=np.array([row[1] for row in self._good], dtype=np.int32),
            input_tokens=inputs,
            output_tokens=outputs,
            extras=dict(zip(self._extras, extras, strict=True)),
            rows=self._rows,
            bad=self._bad,
            failed=self._failed,
            row_of=lambda index: (numbers[index], texts[index]),
            zoned=self._form is not None and self._form.kind is TimeKind.ZONED_TEXT,
        )
        self._clear()
        return block

    def _time(self, value: Any) -> int | float | None:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return None
        text = value if isinstance(value, str) else repr(value)
        if self._form is None:
            self._form = form_of(text, self._time_unit)
        return None if self._form is None else self._form.parse(text)

    def _refuse(
        self, number: int, text: str, role: str, wanted: str, fields: Mapping[str, Any], names: Mapping[str, str]
    ) -> bool:
        found = short(shown(fields[role]))[1:-1] if role in fields else "nothing"
        name = names.get(role, role)
        self._bad.append(BadRow(number, f"{self._unit} {number}, field {name}: expected {wanted}, found {found}", text))
        return False


def is_count(value: Any) -> bool:
    """Whether a value of a JSON file is a number of tokens."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= MAX_TOKENS and float(value).is_integer()


def in_blocks(rows: Rows, asked: Asked, some: Iterator[None]) -> Iterator[Block]:
    """Blocks from rows as they are gathered: `some` gathers one at a time."""
    for _ in some:
        if len(rows) >= asked.rows:
            yield rows.block()
    if len(rows):
        yield rows.block()


def clock_zeros(runs: Iterable[Sequence[Any]]) -> list[float]:
    """What to take off the start times of each run for them to follow each other on one clock, from zero on.

    Where the clock of a client went on from run to run it stays; else a run begins where the one before it ends.
    """
    zeros: list[float] = []
    end_s = 0.0
    for run in runs:
        times = [time for time in run if is_time(time)] or [0.0]
        goes_on = zeros and min(times) - zeros[-1] >= end_s
        zeros.append(zeros[-1] if goes_on else min(times) - end_s)
        end_s = max(times) - zeros[-1]
    return zeros


def is_time(value: object) -> bool:
    """Whether it can be a time: JSON may have numbers of any size, and NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < NS_LIMIT
