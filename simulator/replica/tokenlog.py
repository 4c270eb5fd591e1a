"""The log of a run in detail: which steps a replica ran, what a request went through, and when each token came.

Both engines write it, the reference one step at a time and the compiled one a segment at a time; the times that are
rebuilt from it are the same. A segment is a row of steps of one kind: step j of it (from 0) takes
`first_ticks + j * growth_ticks`, because the context of the decoding sequences grows by one token each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

IntColumn = npt.NDArray[np.int64]

SEGMENT_COLUMNS = (
    "replica",
    "first_step",  # steps that the replica had completed before
    "start_tick",
    "steps",
    "first_ticks",
    "growth_ticks",
    "sequences",  # that decode in each step
    "prefill_tokens",  # of each step
)
EVENT_COLUMNS = ("request", "kind", "tick", "replica", "step", "tokens")


BETWEEN_STEPS = -1


class LifeEvent(IntEnum):
    """What happens to a request; `step` is the number of steps that the replica has completed at that time.

    Requests queue at any time, not at a boundary: `step` is then `BETWEEN_STEPS`.

    A prompt that is not prefilled in one step goes on in each following one with all that the step prefills, up to its
    end: the chunks follow from the segments.
    """

    QUEUED = 0  # it waits on a replica
    ADMITTED = 1  # the step that starts now prefills `tokens` of its prompt; static: it holds a slot
    DECODING = 2  # its prefill is complete and gave the answer's next token, if it has one; tokens: of the prompt
    PREEMPTED = 3  # its cache is dropped, it waits at the head of the queue; tokens: of the answer so far
    EVICTED = 4  # its replica failed; tokens: of the answer so far
    FINISHED = 5


@dataclass(frozen=True, slots=True, eq=False)
class TokenLog:
    """`segments` (S, 8) int64 with `SEGMENT_COLUMNS`; `events` (E, 6) int64 with `EVENT_COLUMNS`, in order of time."""

    segments: IntColumn
    events: IntColumn

    @staticmethod
    def ordered(segments: IntColumn, events: IntColumn) -> "TokenLog":
        """From rows in any order, but for the events of one request at one tick, which keep theirs."""
        by_replica = np.lexsort((segments[:, 1], segments[:, 0]))
        by_time = np.lexsort((events[:, 0], events[:, 2]))
        return TokenLog(segments[by_replica], events[by_time])


class Recorder:
    """Collects the log while a run goes on, row by row."""

    def __init__(self) -> None:
        self._segments: list[tuple[int, ...]] = []
        self._events: list[tuple[int, ...]] = []

    def step(
        self, replica: int, first_step: int, start_tick: int, ticks: int, sequences: int, prefill_tokens: int
    ) -> None:
        """A step that is complete: a segment of one."""
        self._segments.append((replica, first_step, start_tick, 1, ticks, 0, sequences, prefill_tokens))

    def event(self, request: int, kind: LifeEvent, tick: int, replica: int, step: int, tokens: int) -> None:
        self._events.append((request, kind, tick, replica, step, tokens))

    def log(self) -> TokenLog:
        return TokenLog.ordered(_rows(self._segments, SEGMENT_COLUMNS), _rows(self._events, EVENT_COLUMNS))


def _rows(rows: Sequence[tuple[int, ...]], columns: Sequence[str]) -> IntColumn:
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(columns))
