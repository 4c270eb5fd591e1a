"""Public traces from where they are published: into a cache folder, resumed where they were cut off, and checked.

`traces/sources.toml` is the registry. What has arrived is kept in `FILE.partial`, and the server is asked for the rest
of the very same version.
"""

import errno
import hashlib
import os
import shutil
import time
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from platformdirs import user_cache_path
from pydantic import Field, TypeAdapter, ValidationError

from simulator.errors import InputError, RunError
from simulator.validation import StrictModel, closest, input_error

CACHE_VARIABLE = "TOKENFLEET_CACHE"
ATTEMPTS = 5
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 2**18
_PAUSE_S = 1.0  # before going on after some progress; twice as long after each attempt without
_LONGEST_PAUSE_S = 30.0
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be another one soon
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

Progress = Callable[[int, int | None], None]
"""Takes the bytes that are there and those that there will be, if that is known."""


class Download(StrictModel):
    """One file that can be fetched.

    Attributes
    ----------
    file
        Its name, in the cache too.
    sha256
        Of the published file, None if it is not known: then that of the first download is kept beside the file.
    bytes
        Size of the published file, None if it is not known.
    """

    url: str
    file: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    licence: str
    attribution: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    bytes: Annotated[int, Field(gt=0)] | None = None


def downloads() -> dict[str, Download]:
    """All files that can be fetched, by name."""
    name = "traces/sources.toml"
    text = (resources.files("traces") / "sources.toml").read_text(encoding="utf-8")
    try:
        return TypeAdapter(dict[str, Download]).validate_python(tomllib.loads(text))
    except ValidationError as error:
        raise input_error(name, error) from None


def find_download(name: str) -> Download:
    """The file of this name.

    Raises
    ------
    InputError
        If there is none.
    """
    known = downloads()
    if name not in known:
        raise InputError(f"there is no trace {name!r} to fetch; {closest(name, known)}")
    return known[name]


def cache_folder() -> Path:
    """`TOKENFLEET_CACHE`, or else the folder that the system has for such files."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else user_cache_path("tokenfleet")


def cached(what: str | Download, cache_dir: Path | None = None) -> Path | None:
    """The file, by its name or as it is described, if it is in the cache; it is not checked.

    Raises
    ------
    InputError
        If there is no download of this name.
    """
    path = _target(what, cache_dir)
    return path if path.is_file() else None


def partial_bytes(what: str | Download, cache_dir: Path | None = None) -> int:
    """How much of a file an interrupted download has left in the cache that the next one can go on from, bytes."""
    return _usable(_beside(_target(what, cache_dir), "partial"))


def known_sha256(what: str | Download, cache_dir: Path | None = None) -> str | None:
    """The pinned hash of a file, or else that of the first download; None before it."""
    download, note = _described(what), _beside(_target(what, cache_dir), "sha256")
    if download.sha256 is not None:
        return download.sha256
    return note.read_text(encoding="ascii").strip() if note.is_file() else None


def fetch(
    what: str | Download,
    cache_dir: Path | None = None,
    *,
    given: Path | None = None,
    progress: Progress | None = None,
    attempts: int = ATTEMPTS,
) -> Path:
    """Put a file into the cache unless it is there, and check it.

    Parameters
    ----------
    what
        Its name in `traces/sources.toml`, or a description of it.
    cache_dir
        Default: `cache_folder()`.
    given
        A file to take it from instead of the network.
    attempts
        How often a connection may be cut one after another without a byte of progress.

    Raises
    ------
    InputError
        If there is no download of this name, or `given` cannot be read or is another file.
    RunError
        If it cannot be downloaded or written, or is another file than it should be. What has arrived is kept for the
        next time, unless it is wrong.
    """
    download, target = _described(what), _target(what, cache_dir)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if given is None and target.is_file():
            _accept(download, target, target)
            return target
        with _Lock(_beside(target, "lock")):
            if given is not None:
                _take(download, given, target)
            elif target.is_file():  # whoever had the lock has fetched it
                _accept(download, target, target)
            else:
                part = _beside(target, "partial")
                _Transfer(download.url, part, progress, attempts).run()
                _accept(download, part, target)
    except OSError as error:
        raise RunError(f"{error.filename or target.parent}: {_why(error)}") from None
    return target


def _described(what: str | Download) -> Download:
    return find_download(what) if isinstance(what, str) else what


def _target(what: str | Download, cache_dir: Path | None) -> Path:
    return (cache_dir or cache_folder()) / _described(what).file


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(f"{target.name}.{ending}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _tag(part: Path) -> str:
    """By what the server will know the version that a partial file is of; without it the rest is not asked for."""
    file = _beside(part, "etag")
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _usable(part: Path) -> int:
    return _size(part) if _tag(part) else 0


def _take(download: Download, given: Path, target: Path) -> None:
    """Copy a file of the user's: under another name until it is known to be the right one."""
    try:
        source = given.open("rb")
    except OSError as error:
        raise InputError(f"--from: {given}: cannot be read: {error.strerror}") from None
    copy = _beside(target, "copy")
    try:
        with source, copy.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)
        _accept(download, copy, target, given)
    finally:
        copy.unlink(missing_ok=True)


def _accept(download: Download, found: Path, target: Path, given: Path | None = None) -> None:
    """Give a file its name in the cache if it is the right one; if it is not, it is not kept."""
    note = _beside(target, "sha256")
    with found.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    expected = known_sha256(download, target.parent)
    if expected is not None and sha256 != expected:
        told = f"expected the sha256 {expected}, found {sha256}"
        if download.sha256 is None:
            told += f" (the first is that of the first download, in {note}; without that file any would be taken)"
        if given is not None:
            raise InputError(f"--from: {given}: {told}")
        _remove(found)
        where = f"{found} in the cache" if found == target else download.url
        raise RunError(f"{where}: {told}; the file was removed: try again, or get it elsewhere and use --from FILE")
    if expected is None:
        note.write_text(f"{sha256}\n", encoding="ascii")
    if found != target:
        found.replace(target)
        _remove(_beside(target, "partial"))


class _Lock:
    """One download of a file at a time; whoever comes second waits and finds it there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        import fcntl

        while True:
            self._file = self._path.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                    return
            except FileNotFoundError:
                pass
            self._file.close()  # who had it has removed it, and the next comer would make and lock a new one

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()


class _Cut(Exception):
    """The server gave less than the file, in a way that may pass."""


class _Transfer:
    """Downloads into a partial file, again and again where it is cut off."""

    def __init__(self, url: str, part: Path, progress: Progress | None, attempts: int) -> None:
        self._url = url
        self._part = part
        self._progress = progress or (lambda _, __: None)
        self._attempts = attempts
        self._answered = False

    def run(self) -> None:
        """Go on until it is whole."""
        import requests

        failed, reached = 0, _size(self._part)
        with requests.Session() as session:
            while True:
                try:
                    self._once(session)
                    return
                except (
                    _Cut,
                    requests.ConnectionError,
                    requests.Timeout,
                    requests.exceptions.ChunkedEncodingError,
                ) as error:
                    cut: Exception = error
                except requests.RequestException as error:
                    raise RunError(f"{self._url}: cannot be fetched: {error}; {_ELSEWHERE}") from None
                except OSError as error:
                    raise RunError(f"{self._part}: {_why(error)}{self._kept()}") from None
                failed = 0 if _size(self._part) > reached else failed + 1
                reached = max(reached, _size(self._part))
                # An address that nobody answers at first is not asked again: there is no network, or a name is wrong.
                if not self._answered:
                    raise RunError(f"{self._url}: cannot be reached: {_reason(cut)}; {_ELSEWHERE}{self._kept()}")
                if failed >= self._attempts:
                    times = f"{failed} times in a row" if failed > 1 else "once"
                    raise RunError(f"{self._url}: cut off {times}: {_reason(cut)}{self._kept() or f'; {_ELSEWHERE}'}")
                time.sleep(min(_PAUSE_S * 2**failed, _LONGEST_PAUSE_S))

    def _once(self, session: Any) -> None:
        """One request, for all of the file or for the rest of it."""
        have, headers = _usable(self._part), {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": _tag(self._part)}
        with session.get(self._url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            self._answered = True
            covers = answer.headers.get("Content-Range", "")
            if answer.status_code == 416 and covers == f"bytes */{have}":
                return  # nothing was left to come
            resumed = answer.status_code == 206
            if answer.status_code == 416 or (resumed and not covers.startswith(f"bytes {have}-")):
                _remove(self._part)
                raise _Cut("the server has another file than the one that was begun")
            self._refuse_wrong(answer)
            start, length = have if resumed else 0, answer.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() and not _is_packed(answer) else None
            self._refuse_without_room(start, total)
            with self._part.open("ab" if resumed else "wb") as file:
                # Only now that what was there of another version is gone.
                _beside(self._part, "etag").write_text(_tag_of(answer), "utf-8")
                self._progress(start, total)
                for data in answer.iter_content(_CHUNK_BYTES):
                    file.write(data)
                    start += len(data)
                    self._progress(start, total)
            if total is not None and start < total:
                raise _Cut(f"the connection ended after {start:,} of {total:,} bytes")

    def _refuse_wrong(self, answer: Any) -> None:
        said = f"{answer.status_code} {answer.reason}"
        if answer.status_code in _PASSING:
            raise _Cut(f"the server answered {said}")
        if answer.status_code not in (200, 206):
            raise RunError(f"{self._url}: the server answered {said}; {_ELSEWHERE}{self._kept()}")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise RunError(f"{self._url}: a web page came instead of the file: does this network ask you to sign in?")

    def _refuse_without_room(self, start: int, total: int | None) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if total is not None and total - start > free:
            raise OSError(errno.ENOSPC, f"{total - start:,} bytes are to come, {free:,} are free")

    def _kept(self) -> str:
        have = _usable(self._part)
        return f"; {have:,} bytes are kept in {self._part}, the same command goes on from there" if have else ""


_ELSEWHERE = "without a network: get the file elsewhere and use --from FILE"


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, "etag").unlink(missing_ok=True)


def _is_packed(answer: Any) -> bool:
    """Whether a server has packed what it was asked to send as it is: lengths and ranges are then of no use."""
    return bool(answer.headers.get("Content-Encoding", "identity") != "identity")


def _tag_of(answer: Any) -> str:
    tag: str = answer.headers.get("ETag", "")
    if not tag or tag.startswith("W/"):  # a weak one is of no use for If-Range
        tag = answer.headers.get("Last-Modified", "")
    return "" if _is_packed(answer) else tag


def _reason(error: BaseException) -> str:
    """What the innermost cause says: the outer ones repeat the address and name Python's classes."""
    import requests

    if "IncompleteRead" in str(error):
        return "the connection ended early"
    who = "the proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
    said, cause = str(error), error.__cause__ or error.__context__
    while cause is not None:
        text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        said, cause = text or said, cause.__cause__ or cause.__context__
    return who + (said if len(said) <= 160 else f"{said[:157]}...")


def _why(error: OSError) -> str:
    if error.errno in _NO_ROOM:
        room = "" if error.strerror in (None, os.strerror(error.errno or 0)) else f": {error.strerror}"
        return f"there is no room on the disk{room}"
    return f"cannot be written: {error.strerror or error}"
