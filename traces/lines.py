"""Text files, packed or not, as blocks of complete lines."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa  # type: ignore[import-untyped]

from simulator.errors import InputError

_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; gzip, bzip2, xz and zstd, known by their first bytes, are unpacked.

    Raises
    ------
    InputError
        From within the `with` block, if packed data are damaged or end too early.
    """
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        try:
            with _unpacked(raw, magic) as file:
                yield file
        except EOFError:
            raise InputError(f"{path}: the packed file ends in the middle: it was cut off; fetch it again") from None
        except (zlib.error, lzma.LZMAError) as error:
            raise InputError(f"{path}: the packed file is damaged: {error}") from None
        except OSError as error:
            if error.errno is None:  # what the unpackers raise has none
                raise InputError(f"{path}: the packed file is damaged: {error}") from None
            raise


def _unpacked(raw: BinaryIO, magic: bytes) -> BinaryIO:
    if magic.startswith(_PACKED[0]):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if magic.startswith(_PACKED[1]):
        return cast(BinaryIO, bz2.BZ2File(raw))
    if magic.startswith(_PACKED[2]):
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if magic.startswith(_PACKED[3]):
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, pa.CompressedInputStream(raw, "zstd"))))
    return raw


def head(path: Path, size: int) -> bytes:
    """The first bytes of a file, unpacked and without byte order mark; fewer where packed data are damaged."""
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        pieces = []
        try:
            with _unpacked(raw, magic) as file:
                while size > 0 and (piece := file.read(min(size, 4096))):
                    pieces.append(piece)
                    size -= len(piece)
        except (EOFError, zlib.error, lzma.LZMAError):
            pass
        except OSError as error:
            if error.errno is not None:
                raise
    return b"".join(pieces).removeprefix(codecs.BOM_UTF8)


class Lines(NamedTuple):
    """Successive lines of a file: the number of the first, counting from one, how many there are, and all of them."""

    first: int
    rows: int
    data: bytes


def line_blocks(path: Path, size: int) -> Iterator[Lines]:
    """Read a text file a block of complete lines at a time; the first line is a block of its own.

    Left out are a byte order mark at the beginning of the file and line ends at its end.

    Parameters
    ----------
    size
        Bytes to read at once; a block is about as large, or as large as its line if that is longer.

    Yields
    ------
    Lines
        With their ends.

    Raises
    ------
    InputError
        If the file is packed and the data are damaged or end too early.
    """
    with open_bytes(path) as file:
        header = file.readline().removeprefix(codecs.BOM_UTF8)
        yield Lines(1, 1, header)
        first_line, rest = 2, b""
        while data := file.read(size):
            rest += data
            # The end of the file may be near: line ends are passed on only together with a line that follows them.
            end = rest.rfind(b"\n", 0, len(rest.rstrip(b"\r\n"))) + 1
            if end:
                lines, rest = rest[:end], rest[end:]
                count = lines.count(b"\n")
                yield Lines(first_line, count, lines)
                first_line += count
    if last := rest.rstrip(b"\r\n"):
        yield Lines(first_line, last.count(b"\n") + 1, last)


def check_utf8(path: Path, data: bytes, *, final: bool = True) -> None:
    """Raise InputError unless the first line of a file is UTF-8; if not `final` the last character may be cut."""
    try:
        codecs.utf_8_decode(data.partition(b"\n")[0], "strict", final)
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x}"
        raise InputError(f"{path}: line 1: expected text in UTF-8, found {found} ({error.reason})") from None
