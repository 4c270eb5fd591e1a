"""What a trace format has to offer, and what reading it gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from simulator.workload import Trace

MAX_PROBLEMS = 5
"""How many bad rows of a file are described; the others are only counted."""

MAX_TOKENS = 10_000_000
"""More tokens than this in one request are a mistake in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Successive rows of a file: the good ones, and an account of the bad ones.

    Attributes
    ----------
    trace
        The good rows. `sources` and `start` are the same in all blocks of a file that have any.
    rows
        Rows, good or bad.
    first_problems
        One message for each of the first `MAX_PROBLEMS` bad rows, naming file, line (or row) and column.
    """

    trace: Trace
    rows: int
    first_problems: tuple[str, ...]


class Reader(Protocol):
    """One trace format."""

    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins with `head` (without byte order mark) is meant to be of this format."""

    def blocks(self, path: Path, *, source: str | None, rows: int) -> Iterator[Block]:
        """Read a file a block at a time: what the blocks hold together does not depend on their size.

        Parameters
        ----------
        source
            The source that all rows belong to. None leaves it to the file: to what it states if the format has sources,
            and to `default_source` of its name if not.
        rows
            About how many rows a block has.

        Raises
        ------
        InputError
            If the file as a whole cannot be used. Bad rows are returned, not raised.
        """


def default_source(path: Path) -> str:
    """The last word of a file's name: `AzureLLMInferenceTrace_conv.csv` -> `conv`, `Week.csv` -> `week`."""
    return (path.stem.rpartition("_")[2] or path.stem).lower()
