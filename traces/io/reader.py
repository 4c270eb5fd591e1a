"""What a trace format has to offer, and what reading it gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

MAX_PROBLEMS = 5
"""How many bad rows of a file are described; the others are only counted."""

MAX_TOKENS = 10_000_000
"""More tokens than this in one request are a mistake in the file."""

SERVICES = ("conv", "code")
"""The services of the Azure traces, by which their files are named."""

HEAD_BYTES = 2**16
"""How much of a file is looked at to recognise it."""

Times = npt.NDArray[np.int64] | npt.NDArray[np.float64]


class BadRow(NamedTuple):
    """A row that cannot be used: its number, what is wrong with it (without the file), and the row as it stands."""

    number: int
    problem: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Successive rows of a file: the requests of the good ones, in the order of the file, and the bad ones.

    Attributes
    ----------
    time
        int64: nanoseconds since 1970 in UTC. float64: seconds since `start`, finite and at least zero. The same
        in all blocks of a file.
    sources
        Names; those of a block are the beginning of those of the next.
    source
        Index into `sources`, int32.
    input_tokens, output_tokens
        int32, from 0 to `MAX_TOKENS`.
    extras
        As in `simulator.workload.Trace`; the same names in all blocks of a file.
    rows
        Rows of the file, good or bad.
    failed
        Those of `rows` that are requests which failed before they were sent: they state no time, and are no arrivals.
    row_of
        The number of a request's row and the row as it stands, from its index in the block.
    zoned
        Of int64 times: whether the file states a time zone.
    start
        Of float64 times: the wall-clock time of zero, if the file states it.
    """

    time: Times
    sources: tuple[str, ...]
    source: npt.NDArray[np.int32]
    input_tokens: npt.NDArray[np.int32]
    output_tokens: npt.NDArray[np.int32]
    rows: int
    bad: Sequence[BadRow] = ()
    failed: int = 0
    row_of: Callable[[int], tuple[int, str]]
    extras: Mapping[str, npt.NDArray[np.int32]] = field(default_factory=dict)
    zoned: bool = False
    start: datetime | None = None

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user says of a file.

    Attributes
    ----------
    source
        The source that all rows belong to. None leaves it to the file: to what it states if the format has sources,
        and to `default_source` of its name if not.
    columns
        Columns of the file by what they hold (`arrival_s`, `source`, `input_tokens`, `output_tokens`, or a further
        column). Only for formats that are `mapped`.
    time_unit
        `s`, `ms`, `us` or `ns`: of times that are numbers, whatever the file or its format says.
    block_tokens
        Tokens of a block that `hash_ids` names, whatever the format says.
    rows
        About how many rows a block has.
    tell
        Gets what the user should know about how the file was read, a sentence each.
    """

    source: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: str | None = None
    block_tokens: int | None = None
    rows: int = 2**17
    tell: Callable[[str], None] = lambda text: None


class Reader(Protocol):
    """One trace format."""

    @property
    def unit(self) -> str:
        """What a row is called in messages, `line` or `row`."""

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a file is meant to be of this format.

        `head` is its beginning, unpacked and without byte order mark.
        """

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """Read a file a block at a time: what the blocks hold together does not depend on their size.

        Raises
        ------
        InputError
            If the file as a whole cannot be used. Bad rows are returned, not raised.
        """


def default_source(path: Path) -> str:
    """The service that a file's name tells, or else its last word.

    `AzureLLMInferenceTrace_conv_1week.csv` -> `conv`, `requests_Code.csv.gz` -> `code`, `Week.csv` -> `week`.
    """
    stem = (path.name.partition(".")[0] or path.stem).lower()
    words = [word for word in stem.split("_") if word]
    return next((word for word in words if word in SERVICES), words[-1] if words else stem)


def is_name(text: str) -> bool:
    """Whether a source may be called so: some text, without half characters, which cannot be written anywhere."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def shown(value: object) -> str:
    """A value of a JSON file for a message."""
    try:
        return repr(value)
    except RecursionError:
        return "what is nested too deeply"


def short(text: str, width: int = 80) -> str:
    """A text for a message: quoted, and cut where it is long."""
    return repr(text if len(text) <= width else text[: width - 3] + "...")
