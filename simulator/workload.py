"""Requests that arrive: the one table that every trace reader and generator gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Arrivals in the order of time, as columns of equal length.

    Attributes
    ----------
    start
        Wall-clock time at which `arrival_s` is zero, None where the source has only relative times.
    arrival_s
        Seconds since `start`, float64, never decreasing, at least zero.
    source
        Index into `sources` of each request, int32 (for instance 0 = conv, 1 = code).
    input_tokens, output_tokens
        Tokens of prompt and answer, int32, at least zero.
    extras
        Further columns by name, int32, at least zero. Nothing in the engine uses them. Known are `images` (images of a
        prompt) and `prefix_tokens` (tokens at the start of a prompt that were seen before in the same order).
    """

    sources: tuple[str, ...]
    arrival_s: npt.NDArray[np.float64]
    source: npt.NDArray[np.int32]
    input_tokens: npt.NDArray[np.int32]
    output_tokens: npt.NDArray[np.int32]
    start: datetime | None = None
    extras: Mapping[str, npt.NDArray[np.int32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns: list[npt.NDArray[Any]] = [self.arrival_s, self.source, self.input_tokens, self.output_tokens]
        for column in (*columns, *self.extras.values()):
            column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def span_s(self) -> float:
        """Time of the last arrival, 0 for an empty trace."""
        return float(self.arrival_s[-1]) if len(self) else 0.0

    def rows(self, which: "slice | npt.NDArray[np.int64]") -> "Trace":
        """Some of the requests, still in the order of time."""
        return replace(
            self,
            arrival_s=self.arrival_s[which],
            source=self.source[which],
            input_tokens=self.input_tokens[which],
            output_tokens=self.output_tokens[which],
            extras={name: column[which] for name, column in self.extras.items()},
        )


def merge_traces(traces: Sequence[Trace]) -> Trace:
    """Put several traces on one clock and in one order.

    Traces that all know their wall-clock start keep their distance; the merged start is the earliest. If one does not,
    all are laid over each other from time zero. Requests of equal time keep the order of the arguments. A further
    column that only some of them have is zero for the others.

    Raises
    ------
    InputError
        If there is no trace, or if only some of them mix zoned and unzoned starts.
    """
    if not traces:
        raise InputError("no trace was given")
    sources = tuple(dict.fromkeys(name for trace in traces for name in trace.sources))
    starts = [trace.start for trace in traces if trace.start is not None]
    if len(starts) < len(traces):
        start, shifts = None, [0.0] * len(traces)
    else:
        if len({moment.tzinfo is None for moment in starts}) > 1:
            raise InputError("some traces state a time zone and others do not: they cannot be put on one clock")
        start = min(starts)
        shifts = [(moment - start) / timedelta(seconds=1) for moment in starts]
    arrival_s = np.concatenate([trace.arrival_s + shift for trace, shift in zip(traces, shifts, strict=True)])
    source = np.concatenate(
        [np.array([sources.index(name) for name in trace.sources], dtype=np.int32)[trace.source] for trace in traces]
    )
    order = np.argsort(arrival_s, kind="stable")
    names = dict.fromkeys(name for trace in traces for name in trace.extras)
    extras = {
        name: np.concatenate([trace.extras.get(name, np.zeros(len(trace), dtype=np.int32)) for trace in traces])[order]
        for name in names
    }
    return Trace(
        sources=sources,
        start=start,
        arrival_s=arrival_s[order],
        source=source[order],
        input_tokens=np.concatenate([trace.input_tokens for trace in traces])[order],
        output_tokens=np.concatenate([trace.output_tokens for trace in traces])[order],
        extras=extras,
    )
