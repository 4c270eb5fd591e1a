"""Any table with a row per request, delimited text or Parquet: columns by their names or as the user says."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from simulator.errors import InputError
from traces.io.columns import find_columns, has_columns
from traces.io.delimited import delimited_blocks
from traces.io.doubts import doubted
from traces.io.header import header_of
from traces.io.lines import head
from traces.io.parquet import MAGIC, parquet_blocks
from traces.io.reader import HEAD_BYTES, Asked, Block


class Table:
    """See the module: a `traces.io.reader.Reader`."""

    unit = "line"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether there are columns for time, input tokens and output tokens."""
        try:
            names = pq.read_schema(path).names if head.startswith(MAGIC) else header_of(head, path).names
        except (InputError, pa.ArrowException, OSError):
            return False
        return has_columns(names)

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`."""
        first_bytes = head(path, HEAD_BYTES)
        if first_bytes.startswith(MAGIC):
            yield from parquet_blocks(path, asked, own=False)
            return
        header = header_of(first_bytes, path)
        columns = find_columns(header.names, asked, path, "line 1")
        blocks = delimited_blocks(path, columns, header, asked)
        yield from blocks if columns.time_unit else doubted(blocks, path, asked, "s")


READER = Table()


def refuse_what_lacks_columns(head: bytes, path: Path) -> None:
    """Raise InputError if a table of no known format has some of the columns, and say which are not found."""
    try:
        names = pq.read_schema(path).names if head.startswith(MAGIC) else header_of(head, path).names
    except (InputError, pa.ArrowException, OSError):
        return
    if has_columns(names, some=True):
        find_columns(names, Asked(), path, "line 1")
