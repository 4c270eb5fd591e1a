"""What a trace format has to offer, and what reading it gives."""

from dataclasses import dataclass
from typing import Protocol

from simulator.workload import Trace

MAX_PROBLEMS = 5
"""How many bad rows of a file are described; the others are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRows:
    """The good rows of a file and an account of the bad ones.

    Attributes
    ----------
    trace
        The good rows, empty if there is none.
    rows_in_file
        Rows after the header, good or bad.
    rows_skipped
        Bad rows: `len(trace) + rows_skipped == rows_in_file`.
    first_problems
        One message for each of the first `MAX_PROBLEMS` bad rows, naming file, line and column.
    """

    trace: Trace
    rows_in_file: int
    rows_skipped: int
    first_problems: tuple[str, ...]


class Reader(Protocol):
    """One trace format. Neither function touches the file system."""

    def recognises(self, header: str) -> bool:
        """Whether a file whose first line is `header` is meant to be of this format."""

    def parse(self, data: bytes, *, name: str, source: str) -> ParsedRows:
        """Parse a file's content: UTF-8 without byte order mark, not empty, without line ends at its end.

        Parameters
        ----------
        name
            What messages call the file.
        source
            The source that rows belong to where the format does not say it itself.

        Raises
        ------
        InputError
            If the header is not that of the format. Bad rows are returned, not raised.
        """
