"""Text files as blocks of complete lines, for the formats that are text."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from simulator.errors import InputError


def line_blocks(path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Read a text file a block of complete lines at a time; the first line is a block of its own.

    Left out are a byte order mark at the beginning of the file and line ends at its end.

    Parameters
    ----------
    size
        Bytes to read at once; a block is about as large, or as large as its line if that is longer.

    Yields
    ------
    tuple of int and bytes
        Number of the first line, counting from one, and the lines with their ends: valid UTF-8.

    Raises
    ------
    InputError
        If a line is not UTF-8.
    """
    with path.open("rb") as file:
        header = file.readline().removeprefix(codecs.BOM_UTF8)
        check_utf8(path, header, 1)
        yield 1, header
        first_line, rest = 2, b""
        while data := file.read(size):
            rest += data
            # The end of the file may be near: line ends are passed on only together with a line that follows them.
            end = rest.rfind(b"\n", 0, len(rest.rstrip(b"\r\n"))) + 1
            if end:
                lines, rest = rest[:end], rest[end:]
                check_utf8(path, lines, first_line)
                yield first_line, lines
                first_line += lines.count(b"\n")
    check_utf8(path, rest, first_line)
    if last := rest.rstrip(b"\r\n"):
        yield first_line, last


def check_utf8(path: Path, data: bytes, first_line: int, *, final: bool = True) -> None:
    """Raise InputError unless the lines are UTF-8; if not `final` the last character may be cut."""
    try:
        codecs.utf_8_decode(data, "strict", final)
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        found = f"byte 0x{data[error.start]:02x}"
        raise InputError(f"{path}: line {line}: expected text in UTF-8, found {found} ({error.reason})") from None
