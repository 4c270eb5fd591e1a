"""Where requests come from, a chunk at a time: a trace in memory, or files that may be larger than memory."""

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from simulator.errors import InputError, RunError
from simulator.workload import Trace, merge_traces
from traces.formats.registry import CHUNK_ROWS, OutOfOrder, Reading, TraceRead, read_chunks
from traces.io.on_bad_row import OnBadRow
from traces.io.quarantine import Quarantine
from traces.io.reader import BadRow


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """What one pass over a trace tells.

    Attributes
    ----------
    sources, start
        As in `simulator.workload.Trace`.
    span_s
        Time of the last arrival in seconds since `start`, 0 for an empty trace.
    sha256
        Of the requests in their order, column by column, with their sources by name. Chunks, formats, `start`, and
        sources without a request make no difference.
    reads
        One per file.
    """

    sources: tuple[str, ...]
    start: datetime | None
    requests: int
    span_s: float
    sha256: str
    reads: tuple[TraceRead, ...]


class TraceSource(Protocol):
    """A trace that can be gone through as often as needed."""

    def survey(self, visit: Callable[[Trace], None] | None = None) -> Survey:
        """Go through the trace once and check every row.

        Parameters
        ----------
        visit
            Called with each chunk. What it saw is good only if `survey` returns.

        Raises
        ------
        InputError
            If the trace cannot be used, with all problems together.
        """

    def chunks(self) -> Iterator[Trace]:
        """Go through the trace, once surveyed, again: successive parts of it with the same `sources` and `start`."""


class TraceInMemory:
    """A trace that is in memory already: one chunk."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def survey(self, visit: Callable[[Trace], None] | None = None) -> Survey:
        summary = Summary()
        summary.add(self._trace)
        if visit is not None:
            visit(self._trace)
        return summary.survey(())

    def chunks(self) -> Iterator[Trace]:
        yield self._trace


class TraceFiles:
    """Trace files on one clock and in one order, as by `simulator.workload.merge_traces`, read anew in each pass.

    Parameters
    ----------
    files
        Paths, each with the name of its source or None (see `traces.formats.registry.read_chunks`).
    reading
        How they are read. Bad rows are written to files by the survey, if that is asked for.
    chunk_rows
        About how many rows of each file are in memory at once.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, str | None]],
        reading: Reading | None = None,
        *,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        self._files = tuple(files)
        self._reading = reading or Reading()
        self._chunk_rows = chunk_rows
        self._surveyed: list[_Version | None] = []

    def paths(self) -> tuple[tuple[Path, str | None], ...]:
        """The files and their sources, as given."""
        return self._files

    def survey(self, visit: Callable[[Trace], None] | None = None) -> Survey:
        self._surveyed = self._versions()
        outcomes: list[TraceRead | InputError | None] = [None] * len(self._files)

        quarantines: dict[int, Quarantine] = {}

        def checked(index: int) -> Iterator[Trace]:
            """All files are read to their ends, so that their problems are told together."""
            path, source = self._files[index]
            on_bad = None
            if self._reading.on_bad_row is OnBadRow.QUARANTINE:
                nth = 1 + sum(other.name == path.name for other, _ in self._files[:index])
                quarantines[index] = Quarantine(path, self._reading.quarantine, nth)
                on_bad = quarantines[index].add
            try:
                outcomes[index] = yield from self._read(path, source, on_bad)
            except InputError as error:
                outcomes[index] = error

        summary = Summary()
        try:
            for chunk in merge_chunks([checked(index) for index in range(len(self._files))]):
                summary.add(chunk)
                if visit is not None:
                    visit(chunk)
            late = next((outcome for outcome in outcomes if isinstance(outcome, OutOfOrder)), None)
            if late is not None:
                raise late
            problems = [p for outcome in outcomes if isinstance(outcome, InputError) for p in outcome.problems]
            if problems:
                raise InputError(problems)
            self._refuse_changes()
            kept = {index: quarantine.keep() for index, quarantine in quarantines.items()}
        finally:
            for quarantine in quarantines.values():
                quarantine.close()
        reads = [
            replace(outcome, quarantine=kept.get(index))
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, TraceRead)
        ]
        return summary.survey(tuple(reads))

    def chunks(self) -> Iterator[Trace]:
        self._refuse_changes()
        yield from merge_chunks([self._read(path, source) for path, source in self._files])
        self._refuse_changes()

    def _read(
        self, path: Path, source: str | None, on_bad: Callable[[BadRow], None] | None = None
    ) -> Generator[Trace, None, TraceRead]:
        return read_chunks(path, self._reading, source=source, chunk_rows=self._chunk_rows, on_bad=on_bad)

    def _versions(self) -> list["_Version | None"]:
        return [_version(path) for path, _ in self._files]

    def _refuse_changes(self) -> None:
        """Raise RunError unless the files are those that were surveyed."""
        for (path, _), now, before in zip(self._files, self._versions(), self._surveyed, strict=True):
            if now != before:
                raise RunError(f"{path}: has changed since it was first read; start again")


def merge_chunks(streams: Sequence[Iterator[Trace]]) -> Iterator[Trace]:
    """Merge traces that come in chunks: what `merge_traces` of the whole traces gives, in chunks.

    No more than one chunk of each stream is held. Chunks have at least one request; those of one stream the same
    `start`, and sources that go on where those of the chunk before ended. Merged, sources are in the order of their
    first requests, and a chunk has those that have been seen by its end.

    Raises
    ------
    InputError
        As `merge_traces` does.
    """
    first = {k: chunk for k, stream in enumerate(streams) if (chunk := next(stream, None)) is not None}
    if streams and not first:
        return
    clock = merge_traces([chunk.rows(slice(0)) for chunk in first.values()])
    # Merged with nothing, a chunk is put on the clock: that changes times and numbers of sources, but no order.
    waiting = {k: merge_traces([clock, chunk]) for k, chunk in first.items()}
    names: dict[str, int] = {}
    while waiting:
        # The chunk that ends first. Before its end all requests are at hand; at its very end, only those of the streams
        # up to its own: the next chunk of it may go on at the same time.
        end_s, ending = min((chunk.span_s, k) for k, chunk in waiting.items())
        ready = []
        for k, chunk in waiting.items():
            cut = int(np.searchsorted(chunk.arrival_s, end_s, side="right" if k <= ending else "left"))
            ready.append(chunk.rows(slice(cut)))
            waiting[k] = chunk.rows(slice(cut, None))
        yield _numbered(merge_traces(ready), names)
        following = next(streams[ending], None)
        if following is None:
            del waiting[ending]
        else:
            waiting[ending] = merge_traces([clock, following])


def _numbered(trace: Trace, names: dict[str, int]) -> Trace:
    """The trace with its sources numbered as in `names`, to which new ones are added."""
    seen, first_rows = np.unique(trace.source, return_index=True)
    for number in seen[np.argsort(first_rows)].tolist():
        names.setdefault(trace.sources[number], len(names))
    number_of = np.array([names.get(name, -1) for name in trace.sources], dtype=np.int32)
    return replace(trace, sources=tuple(names), source=number_of[trace.source])


class _Version(NamedTuple):
    """What changes when a file does."""

    size: int
    modified_ns: int


def _version(path: Path) -> _Version | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Version(status.st_size, status.st_mtime_ns)


class Summary:
    """What a survey tells, added up chunk by chunk: `add` each, then `survey`."""

    def __init__(self) -> None:
        self._last: Trace | None = None
        self._requests = 0
        self._span_s = 0.0
        self._numbers: dict[str, int] = {}  # of the sources in the order of their first requests
        self._columns = [hashlib.sha256() for _ in range(4)]

    def add(self, chunk: Trace) -> None:
        self._last = chunk
        self._requests += len(chunk)
        self._span_s = chunk.span_s
        unseen = [name for name in chunk.sources if name not in self._numbers]
        firsts = {name: np.flatnonzero(chunk.source == chunk.sources.index(name))[:1].tolist() for name in unseen}
        for name in sorted((name for name in unseen if firsts[name]), key=firsts.__getitem__):
            self._numbers[name] = len(self._numbers)
        number = np.array([self._numbers.get(name, -1) for name in chunk.sources], dtype="<i4")
        columns = (
            chunk.arrival_s.astype("<f8", copy=False),
            number[chunk.source],
            chunk.input_tokens.astype("<i4", copy=False),
            chunk.output_tokens.astype("<i4", copy=False),
        )
        for digest, column in zip(self._columns, columns, strict=True):
            digest.update(column.tobytes())

    def survey(self, reads: tuple[TraceRead, ...]) -> Survey:
        assert self._last is not None
        digest = hashlib.sha256(json.dumps(list(self._numbers)).encode())
        for column in self._columns:
            digest.update(column.digest())
        return Survey(
            sources=self._last.sources,
            start=self._last.start,
            requests=self._requests,
            span_s=self._span_s,
            sha256=digest.hexdigest(),
            reads=reads,
        )
