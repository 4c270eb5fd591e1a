"""Text files, packed or not, as blocks of complete lines."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from simulator.errors import InputError

_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_PACKED_BYTES = 2**16
MAX_LINE_BYTES = 2**26
"""A longer line is a file of another kind."""


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


def is_packed(path: Path) -> bool:
    """Whether a file is one that `open_bytes` unpacks."""
    with path.open("rb") as raw:
        return raw.read(6).startswith(_PACKED)


def _unpacked(raw: BinaryIO, magic: bytes) -> BinaryIO:
    if magic.startswith(_PACKED[0]):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if magic.startswith(_PACKED[1]):
        return cast(BinaryIO, io.BufferedReader(_Unpacked(raw, bz2.BZ2Decompressor)))
    if magic.startswith(_PACKED[2]):
        return cast(BinaryIO, io.BufferedReader(_Unpacked(raw, lzma.LZMADecompressor)))
    if magic.startswith(_PACKED[3]):
        import pyarrow as pa  # type: ignore[import-untyped]

        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, pa.CompressedInputStream(raw, "zstd"))))
    return raw


class _Unpacked(io.RawIOBase):
    """bzip2 or xz data unpacked: one stream after the other, to the very end of the file.

    `bz2` and `lzma` take what comes after a stream and is none for padding, and so lose what follows damage there.
    """

    def __init__(self, packed: BinaryIO, new: Callable[[], Any]) -> None:
        self._packed = packed
        self._new = new
        self._stream = new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._stream.eof:
                following = self._stream.unused_data.lstrip(b"\0")
                while not following:  # padding may go on
                    more = self._packed.read(_PACKED_BYTES)
                    if not more:
                        return 0
                    following = more.lstrip(b"\0")
                self._stream = self._new()
            elif self._stream.needs_input:
                following = self._packed.read(_PACKED_BYTES)
                if not following:
                    raise EOFError
            else:
                following = b""
            data = self._stream.decompress(following, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


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


def check_packed(path: Path, size: int) -> None:
    """Raise InputError if a file is packed and its beginning, of which `head` tells what it can, is damaged."""
    with open_bytes(path) as file:
        file.read(size)


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
        If the file is packed and the data are damaged or end too early, or a line is longer than `MAX_LINE_BYTES`.
    """
    with open_bytes(path) as file:
        header = file.readline(MAX_LINE_BYTES + 1)
        _check_length(path, 1, header)
        yield Lines(1, 1, header.removeprefix(codecs.BOM_UTF8))
        first_line, rest = 2, b""
        while data := file.read(size):
            end = _end_of_lines(data)
            if not end:
                data, rest = rest + data, b""
                end = _end_of_lines(data)
            if end:
                lines = b"".join((rest, memoryview(data)[:end]))
                count = lines.count(b"\n")
                yield Lines(first_line, count, lines)
                first_line += count
            rest = data[end:]
            _check_length(path, first_line, rest)
    if last := rest.rstrip(b"\r\n"):
        yield Lines(first_line, last.count(b"\n") + 1, last)


def _end_of_lines(data: bytes) -> int:
    """Where lines end that others follow: the end of the file may be near, and line ends there are left out."""
    return data.rfind(b"\n", 0, len(data.rstrip(b"\r\n"))) + 1


def _check_length(path: Path, number: int, line: bytes) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise InputError(
            f"{path}: line {number}: expected a line of at most {MAX_LINE_BYTES:,} bytes, found a longer one"
        )


def check_utf8(path: Path, data: bytes, *, final: bool = True) -> None:
    """Raise InputError unless the first line of a file is UTF-8; if not `final` the last character may be cut."""
    line = data.partition(b"\n")[0]
    if b"\0" in line:
        raise InputError(f"{path}: line 1: expected text in UTF-8, found zero bytes, as in UTF-16")
    try:
        codecs.utf_8_decode(line, "strict", final)
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x}"
        raise InputError(f"{path}: line 1: expected text in UTF-8, found {found} ({error.reason})") from None
