"""Formats that are delimited text with columns of certain names."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from simulator.errors import InputError
from traces.io.columns import Columns
from traces.io.delimited import delimited_blocks
from traces.io.header import header_of
from traces.io.lines import head
from traces.io.reader import HEAD_BYTES, Asked, Block, short


@dataclass(frozen=True, slots=True)
class NamedColumns:
    """A trace format of one header: a `traces.io.reader.Reader`.

    Attributes
    ----------
    needs
        Columns that show that a file is meant to be of this format: if most are there a missing one is worth a message.
    refuses
        Columns that show that it is of another.
    """

    columns: Columns
    needs: frozenset[str]
    refuses: frozenset[str] = frozenset()
    unit: str = "line"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether the header has the columns that only this format has."""
        try:
            names = header_of(head, path).names
        except InputError:
            return False
        return self.needs.issubset(names) and self.refuses.isdisjoint(names)

    def blocks(self, path: Path, asked: Asked) -> Iterator[Block]:
        """See `traces.io.reader.Reader.blocks`. Columns may come in any order, and others beside them."""
        header = header_of(head(path, HEAD_BYTES), path)
        wanted = self.columns.names()
        missing = [name for name in wanted if name not in header.names]
        twice = [name for name in wanted if header.names.count(name) > 1]
        if missing or twice:
            reasons = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"twice: {', '.join(twice)}"] * bool(twice)
            found = short(header.delimiter.join(header.names), 100)
            raise InputError(
                f"{path}: line 1: expected the columns {','.join(wanted)}, found {found} ({'; '.join(reasons)})"
            )
        columns = replace(self.columns, time_unit=asked.time_unit or self.columns.time_unit)
        yield from delimited_blocks(path, columns, header, asked)
