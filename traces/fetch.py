"""Public traces from where they are published: into a cache folder, resumed where they were cut off, and checked.

`traces/sources.toml` is the registry. Pooch has the cache folder and the hashes; it cannot resume, so the download is
here: what has arrived is kept in `FILE.partial`, and the server is asked for the rest of the very same version.
"""

import errno
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from simulator.errors import InputError, RunError
from simulator.validation import StrictModel, closest, input_error

CACHE_VARIABLE = "TOKENFLEET_CACHE"
ATTEMPTS = 5
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 2**18

Progress = Callable[[int, int | None], None]
"""Takes the bytes that are there and those that there will be, if that is known."""


class Download(StrictModel):
    """One file that can be fetched.

    Attributes
    ----------
    file
        Its name, in the cache too.
    sha256
        Of the published file, None if it is not known.
    """

    url: str
    file: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    licence: str
    attribution: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    bytes: Annotated[int, Field(gt=0)] | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is in the cache. `pinned` tells whether its hash was known beforehand."""

    path: Path
    sha256: str
    pinned: bool


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
    import pooch  # here: it takes longer to load than the other commands on traces

    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path(pooch.os_cache("tokenfleet"))


def cached(download: Download, folder: Path | None = None) -> Path | None:
    """The file if it is in the cache."""
    path = (folder or cache_folder()) / download.file
    return path if path.is_file() else None


def fetch(
    download: Download,
    *,
    folder: Path | None = None,
    given: Path | None = None,
    progress: Progress | None = None,
    attempts: int = ATTEMPTS,
) -> Fetched:
    """Put a file into the cache unless it is there, and check it.

    Parameters
    ----------
    folder
        The cache; default: `cache_folder()`.
    given
        A file to take it from instead of the network.
    attempts
        How often a connection may be cut without a byte of progress.

    Raises
    ------
    InputError
        If `given` cannot be read or is another file.
    RunError
        If it cannot be downloaded or written, or is another file than it should be. What has arrived is kept for the
        next time, unless it is wrong.
    """
    folder = folder or cache_folder()
    target = folder / download.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if given is not None:
            return _taken(download, given, target)
        if target.is_file():
            return _checked(download, target, target)
        part = target.with_name(f"{target.name}.partial")
        with _Lock(target.with_name(f"{target.name}.lock")):
            if not target.is_file():
                _Transfer(download, part, progress, attempts).run()
                return _checked(download, part, target)
        return _checked(download, target, target)
    except OSError as error:
        raise RunError(_system(folder, error)) from None


def _taken(download: Download, given: Path, target: Path) -> Fetched:
    if not given.is_file():
        raise InputError(f"--from: expected a file, found nothing of the name {given}")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    copy = Path(name)
    try:
        shutil.copyfile(given, copy)
        copy.chmod(0o644)
        return _checked(download, copy, target, given)
    finally:
        copy.unlink(missing_ok=True)


def _checked(download: Download, found: Path, target: Path, given: Path | None = None) -> Fetched:
    """Give a file its name in the cache if it is the right one; if it is not, it is not kept."""
    import pooch

    note = target.with_name(f"{target.name}.sha256")
    noted = note.read_text(encoding="ascii").strip() if note.is_file() else None
    expected, sha256 = download.sha256 or noted, pooch.file_hash(str(found), alg="sha256")
    if expected is not None and sha256 != expected:
        where = "of the published file" if download.sha256 else f"of the first download, which {note} holds"
        told = f"expected the sha256 {expected} {where}, found {sha256}"
        if given is not None:
            raise InputError(f"--from: {given}: {told}")
        found.unlink()
        raise RunError(f"{download.url}: {told}; the file was removed: try again, or get it elsewhere and use --from")
    if download.sha256 is None and noted is None:
        note.write_text(f"{sha256}\n", encoding="ascii")
    if found != target:
        found.replace(target)
        target.with_name(f"{target.name}.partial.etag").unlink(missing_ok=True)
    return Fetched(target, sha256, pinned=download.sha256 is not None)


class _Lock:
    """One download of a file at a time; whoever comes second waits and finds it there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        import fcntl

        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()


class _Transfer:
    """Downloads into a partial file, again and again where it is cut off."""

    def __init__(self, download: Download, part: Path, progress: Progress | None, attempts: int) -> None:
        self._url = download.url
        self._part = part
        self._tag = part.with_name(f"{part.name}.etag")
        self._progress = progress or (lambda _, __: None)
        self._attempts = attempts

    def run(self) -> None:
        """Go on until it is whole."""
        import requests

        left, reached = self._attempts, self._size()
        with requests.Session() as session:
            while True:
                try:
                    self._once(session)
                    return
                except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                    left = self._attempts if self._size() > reached else left - 1
                    reached = self._size()
                    if left <= 0:
                        raise RunError(self._cut(error)) from None
                except requests.RequestException as error:
                    raise RunError(f"{self._url}: cannot be fetched: {error}; {_ELSEWHERE}") from None

    def _once(self, session: Any) -> None:
        """One request, for all of the file or for the rest of it."""
        import requests

        have = self._size()
        tag = self._tag.read_text(encoding="utf-8") if have and self._tag.is_file() else ""
        # Without a tag it is not known whether the rest would be of the same version.
        headers = {"Accept-Encoding": "identity"}
        if have and tag:
            headers |= {"Range": f"bytes={have}-", "If-Range": tag}
        with session.get(self._url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                self._part.unlink(missing_ok=True)  # longer than the file is now: from the start
                raise requests.ConnectionError("the server has a shorter file than what was there of it")
            if answer.status_code >= 400:
                reason = f"{answer.status_code} {answer.reason}"
                raise RunError(f"{self._url}: the server answered {reason}; {_ELSEWHERE}")
            resumed = answer.status_code == requests.codes.partial_content
            start = have if resumed else 0
            length = answer.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else None
            self._tag.write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "", "utf-8")
            with self._part.open("ab" if resumed else "wb") as file:
                self._progress(start, total)
                for data in answer.iter_content(_CHUNK_BYTES):
                    file.write(data)
                    start += len(data)
                    self._progress(start, total)
            if total is not None and start < total:
                raise requests.ConnectionError(f"the connection ended after {start} of {total} bytes")

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0

    def _cut(self, error: Exception) -> str:
        have = self._size()
        if not have:
            return f"{self._url}: cannot be reached: {_reason(error)}; {_ELSEWHERE}"
        return (
            f"{self._url}: cut off {self._attempts} times: {_reason(error)}; {have:,} bytes are kept in {self._part}, "
            "the same command goes on from there"
        )


_ELSEWHERE = "without a network: get the file elsewhere and use --from FILE"


def _reason(error: BaseException) -> str:
    """The innermost cause that says something to a person."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _system(folder: Path, error: OSError) -> str:
    place = error.filename or folder
    if error.errno == errno.ENOSPC:
        return (
            f"{place}: the disk is full; what has arrived is kept: make room, then the same command goes on from there"
        )
    return f"{place}: cannot be written: {error.strerror or error}"
