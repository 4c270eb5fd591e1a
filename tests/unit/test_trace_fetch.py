"""Fetching, against a server in this process: what is cut off goes on, what is wrong is not kept."""

import errno
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import InputError, RunError
from traces.fetch import CACHE_VARIABLE, Download, cached, downloads, fetch, find_download

CONTENT = bytes(range(256)) * 4000  # a megabyte


class Server:
    """Serves one file; how well is up to the test."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.status = 200
        self.ranges = True
        self.cut_after: list[int] = []  # bytes of the next answers' bodies
        self.asked: list[str | None] = []  # the Range of each request
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.asked.append(wanted)
                if server.status != 200:
                    self.send_error(server.status)
                    return
                same = self.headers.get("If-Range") in (None, server.etag)
                start = int(wanted[6:-1]) if wanted and server.ranges and same else 0
                if start > len(server.content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(server.content) - start))
                if server.etag:
                    self.send_header("ETag", server.etag)
                self.end_headers()
                body = server.content[start:]
                self.wfile.write(body[: server.cut_after.pop(0)] if server.cut_after else body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/trace.csv"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def download(server: Server, content: bytes | None = CONTENT) -> Download:
    sha256 = None if content is None else hashlib.sha256(content).hexdigest()
    return Download(url=server.url, file="trace.csv", licence="CC0", attribution="nobody", sha256=sha256)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    assert cached(download(server), tmp_path) is None
    seen: list[tuple[int, int | None]] = []
    found = fetch(download(server), folder=tmp_path, progress=lambda have, total: seen.append((have, total)))
    assert (found.path, found.pinned) == (tmp_path / "trace.csv", True)
    assert found.path.read_bytes() == CONTENT
    assert (seen[0], seen[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))
    assert fetch(download(server), folder=tmp_path) == found
    assert server.asked == [None]
    assert cached(download(server), tmp_path) == found.path
    assert names(tmp_path) == ["trace.csv"]


def test_a_cut_connection_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cut_after = [300_000, 400_000]
    assert fetch(download(server), folder=tmp_path).path.read_bytes() == CONTENT
    assert len(server.asked) == 3
    assert server.asked[0] is None
    starts = [int(asked[6:-1]) for asked in server.asked[1:] if asked]
    assert 0 < starts[0] <= 300_000 < starts[1] <= 700_000
    assert names(tmp_path) == ["trace.csv"]


def test_what_has_arrived_is_kept_for_the_next_time(server: Server, tmp_path: Path) -> None:
    server.cut_after = [300_000, 0, 0]
    with pytest.raises(RunError, match=r"cut off 2 times: .* bytes are kept in .*trace.csv.partial, the same command"):
        fetch(download(server), folder=tmp_path, attempts=2)
    kept = (tmp_path / "trace.csv.partial").stat().st_size
    assert 0 < kept <= 300_000
    assert fetch(download(server), folder=tmp_path).path.read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={kept}-"


def test_the_rest_of_another_version_is_not_taken(server: Server, tmp_path: Path) -> None:
    server.cut_after = [300_000, 0]
    with pytest.raises(RunError):
        fetch(download(server, None), folder=tmp_path, attempts=1)
    server.content, server.etag = b"x" * 500_000, '"two"'
    assert fetch(download(server, None), folder=tmp_path).path.read_bytes() == server.content


@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_server_that_cannot_go_on_starts_again(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.ranges, server.etag, server.cut_after = False, etag, [300_000]
    assert fetch(download(server), folder=tmp_path).path.read_bytes() == CONTENT


def test_a_file_that_has_become_shorter(server: Server, tmp_path: Path) -> None:
    server.cut_after = [300_000, 0]
    with pytest.raises(RunError):
        fetch(download(server, None), folder=tmp_path, attempts=1)
    server.content = b"x" * 1000
    assert fetch(download(server, None), folder=tmp_path).path.read_bytes() == server.content


def test_the_wrong_content_is_said_and_removed(server: Server, tmp_path: Path) -> None:
    server.content = b"another file"
    with pytest.raises(RunError) as caught:
        fetch(download(server), folder=tmp_path)
    for sha256 in (hashlib.sha256(CONTENT).hexdigest(), hashlib.sha256(b"another file").hexdigest()):
        assert sha256 in str(caught.value)
    assert not [name for name in names(tmp_path) if "trace.csv" in name and not name.endswith(".etag")]


def test_without_a_published_hash_the_first_download_counts(server: Server, tmp_path: Path) -> None:
    found = fetch(download(server, None), folder=tmp_path)
    assert (found.sha256, found.pinned) == (hashlib.sha256(CONTENT).hexdigest(), False)
    found.path.unlink()
    server.content = b"another file"
    with pytest.raises(RunError, match=r"of the first download, which .*trace.csv.sha256 holds"):
        fetch(download(server, None), folder=tmp_path)


def test_a_file_that_was_changed_in_the_cache(server: Server, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_bytes(b"changed")
    with pytest.raises(RunError, match="the file was removed"):
        fetch(download(server), folder=tmp_path)
    assert fetch(download(server), folder=tmp_path).path.read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "said"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_a_server_that_refuses(server: Server, tmp_path: Path, status: int, said: str) -> None:
    server.status = status
    with pytest.raises(RunError, match=f"the server answered {said}; without a network: .* --from FILE"):
        fetch(download(server), folder=tmp_path)


def test_no_server(server: Server, tmp_path: Path) -> None:
    nowhere = download(server).model_copy(update={"url": "http://127.0.0.1:9/trace.csv"})
    with pytest.raises(RunError, match=r"^http://127.0.0.1:9/trace.csv: cannot be reached: Connection refused; "):
        fetch(nowhere, folder=tmp_path, attempts=1)


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.open

    def open_full(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = whole(path, mode, *arguments, **options)
        if path.name.endswith(".partial"):

            def write(data: bytes) -> int:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

            class Full:
                def __enter__(self) -> "Full":
                    return self

                def __exit__(self, *_: object) -> None:
                    file.close()

                def write(self, data: bytes) -> int:
                    return write(data)

            return Full()
        return file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(RunError, match=r"trace.csv.partial: the disk is full; what has arrived is kept"):
        fetch(download(server), folder=tmp_path)
    monkeypatch.undo()
    assert fetch(download(server), folder=tmp_path).path.read_bytes() == CONTENT


def test_two_at_once_download_it_once(server: Server, tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(download(server), folder=tmp_path).path.read_bytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert names(tmp_path) == ["trace.csv"]


class TestFromAFile:
    def test_it_is_copied_and_checked(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "mine").write_bytes(CONTENT)
        found = fetch(download(server), folder=tmp_path / "cache", given=tmp_path / "mine")
        assert found.path.read_bytes() == CONTENT
        assert server.asked == []

    def test_another_file_is_refused_and_nothing_kept(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "mine").write_bytes(b"another file")
        with pytest.raises(InputError, match=f"--from: {tmp_path / 'mine'}: expected the sha256"):
            fetch(download(server), folder=tmp_path / "cache", given=tmp_path / "mine")
        assert names(tmp_path / "cache") == []
        assert (tmp_path / "mine").read_bytes() == b"another file"

    def test_no_such_file(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="--from: expected a file"):
            fetch(download(server), folder=tmp_path, given=tmp_path / "none")


class TestTheCommand:
    @pytest.fixture
    def known(self, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(
            import_module("experiments.trace.fetch"), "find_download", lambda name: download(server, None)
        )
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))

    @pytest.mark.usefixtures("known")
    def test_standard_output_is_the_path_alone(self, run_cli: Any, tmp_path: Path) -> None:
        done = run_cli("trace", "fetch", "some")
        assert (done.code, done.stdout) == (0, f"{tmp_path / 'cache' / 'trace.csv'}\n")
        assert "some: nobody; licence CC0" in done.stderr
        assert "no published hash is known" in done.stderr
        told = json.loads(run_cli("trace", "fetch", "some", "--json").stdout)
        assert (told["sha256"], told["pinned"]) == (hashlib.sha256(CONTENT).hexdigest(), False)

    @pytest.mark.usefixtures("known")
    def test_a_failure_is_one_line_and_exit_code_1(self, server: Server, run_cli: Any) -> None:
        server.status = 404
        done = run_cli("trace", "fetch", "some")
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr.startswith(f"failed: {server.url}: the server answered 404 Not Found")

    def test_names(self, run_cli: Any, tmp_path: Path) -> None:
        done = run_cli("trace", "fetch", "azure-2023-con")
        assert (done.code, done.stdout) == (2, "")
        assert "did you mean 'azure-2023-conv'" in done.stderr
        done = run_cli("trace", "fetch", "--cache", tmp_path, "--json")
        assert {item["name"] for item in json.loads(done.stdout)["traces"]} == set(downloads())
        assert run_cli("trace", "fetch", "--from", tmp_path).code == 2


def test_the_registry() -> None:
    known = downloads()
    assert {"azure-2023-conv", "azure-2023-code", "azure-2024-conv", "azure-2024-code"} <= set(known)
    assert len({item.file for item in known.values()}) == len(known)
    assert all(item.url.startswith("https://") and item.licence and item.attribution for item in known.values())
    with pytest.raises(InputError):
        find_download("nothing")


def test_the_command_line_does_not_load_it_beforehand() -> None:
    code = "import sys, experiments.cli; sys.exit('requests' in sys.modules or 'pooch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
