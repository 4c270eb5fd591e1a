"""Fetching, against a server in this process: what is cut off goes on, what is wrong is not kept."""

import csv
import gzip
import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.errors import InputError, RunError
from traces.io.fetch import (
    CACHE_VARIABLE,
    Download,
    cached,
    downloads,
    fetch,
    find_download,
    known_sha256,
    partial_bytes,
)

CONTENT = bytes(range(256)) * 4000  # a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves one file; how well is up to the test."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.known_by: str | None = None  # what it takes for If-Range, if not the tag
        self.headers: dict[str, str] = {}
        self.statuses: list[int] = []  # of the next answers, instead of the file
        self.ranges = True
        self.shift = 0  # of the ranges that it gives
        self.states_length = True
        self.cut_after: list[int] = []  # bytes of the next answers' bodies
        self.stall = threading.Event()  # where it is cut, wait for this
        self.stall.set()
        self.asked: list[str | None] = []  # the Range of each request
        self.busy = self.busiest = 0  # requests at a time
        guard, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with guard:
                    server.busy += 1
                    server.busiest = max(server.busiest, server.busy)
                try:
                    self.answer()
                except ConnectionError:
                    pass  # whoever asked has gone
                finally:
                    with guard:
                        server.busy -= 1

            def answer(self) -> None:
                wanted = self.headers.get("Range")
                server.asked.append(wanted)
                if server.statuses:
                    self.send_error(server.statuses.pop(0))
                    return
                same = self.headers.get("If-Range") in (None, server.known_by or server.etag)
                start = int(wanted[6:-1]) if wanted and server.ranges and same else 0
                size = len(server.content)
                if start >= size:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{size}")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if start:
                    start += server.shift
                    self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
                if server.states_length:
                    self.send_header("Content-Length", str(size - start))
                if server.etag:
                    self.send_header("ETag", server.etag)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                cut = server.cut_after.pop(0) if server.cut_after else None
                self.wfile.write(server.content[start:][:cut])
                if cut is not None:
                    server.stall.wait()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/trace.csv"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.stall.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, seconds, that were not made."""
    made: list[float] = []
    monkeypatch.setattr("traces.io.fetch.time.sleep", made.append)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):  # the server is here
        monkeypatch.delenv(name, raising=False)
    return made


def download(server: Server, sha256: str | None = SHA256) -> Download:
    return Download(url=server.url, file="trace.csv", licence="CC0", attribution="nobody", sha256=sha256)


def begun(server: Server, folder: Path, sha256: str | None = SHA256) -> int:
    """Leave a part of the file in the cache; the bytes of it."""
    server.cut_after = [600_000, 0]
    with pytest.raises(RunError, match="the same command goes on from there"):
        fetch(download(server, sha256), folder, attempts=1)
    kept = partial_bytes(download(server), folder)
    assert 0 < kept <= 600_000
    return kept


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    assert cached(download(server), tmp_path) is None
    seen: list[tuple[int, int | None]] = []
    path = fetch(download(server), tmp_path, progress=lambda have, total: seen.append((have, total)))
    assert path == tmp_path / "trace.csv"
    assert path.read_bytes() == CONTENT
    assert (seen[0], seen[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))
    assert fetch(download(server), tmp_path) == path
    assert server.asked == [None]
    assert cached(download(server), tmp_path) == path
    assert names(tmp_path) == ["trace.csv"]


def test_what_is_packed_stays_packed(server: Server, tmp_path: Path) -> None:
    server.content = gzip.compress(CONTENT, mtime=0)
    server.headers = {"Content-Type": "application/gzip"}
    assert fetch(download(server, None), tmp_path).read_bytes() == server.content


def test_what_a_server_packs_is_unpacked(server: Server, tmp_path: Path) -> None:
    server.content, server.headers = gzip.compress(CONTENT, mtime=0), {"Content-Encoding": "gzip"}
    server.cut_after = [len(server.content) // 2]
    totals: set[int | None] = set()
    assert fetch(download(server), tmp_path, progress=lambda _, total: totals.add(total)).read_bytes() == CONTENT
    assert server.asked == [None, None]
    assert totals == {None}


class TestCutOff:
    def test_it_goes_on_where_it_ended(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        server.cut_after = [300_000, 400_000]
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT
        assert len(server.asked) == 3
        assert server.asked[0] is None
        starts = [int(asked[6:-1]) for asked in server.asked[1:] if asked]
        assert 0 < starts[0] <= 300_000 < starts[1] <= 700_000
        assert names(tmp_path) == ["trace.csv"]
        assert pauses == [1, 1]

    def test_the_pauses_grow_while_nothing_comes(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        server.cut_after = [300_000, 0, 0, 0, 0, 0]
        with pytest.raises(RunError, match=r"cut off 5 times in a row: the connection ended early; .* bytes are kept"):
            fetch(download(server), tmp_path)
        assert pauses == [1, 2, 4, 8, 16]

    def test_what_has_arrived_is_kept_for_the_next_time(self, server: Server, tmp_path: Path) -> None:
        kept = begun(server, tmp_path)
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT
        assert server.asked[-1] == f"bytes={kept}-"
        assert names(tmp_path) == ["trace.csv"]

    def test_a_length_that_is_not_stated(self, server: Server, tmp_path: Path) -> None:
        server.states_length = False
        seen: list[int | None] = []
        assert fetch(download(server), tmp_path, progress=lambda _, total: seen.append(total)).read_bytes() == CONTENT
        assert set(seen) == {None}

    @pytest.mark.parametrize("etag", ['"one"', None])
    def test_a_server_that_cannot_go_on_starts_again(self, server: Server, tmp_path: Path, etag: str | None) -> None:
        server.ranges, server.etag, server.cut_after = False, etag, [300_000]
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT

    def test_a_server_that_starts_again_for_ever(self, server: Server, tmp_path: Path) -> None:
        server.ranges, server.cut_after = False, [600_000] + [300_000, 600_000] * 9
        with pytest.raises(RunError, match="cut off 5 times in a row"):
            fetch(download(server), tmp_path)

    def test_all_of_it_had_come(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "trace.csv.partial").write_bytes(CONTENT)
        (tmp_path / "trace.csv.partial.etag").write_text('"one"')
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT
        assert server.asked == [f"bytes={len(CONTENT)}-"]

    def test_another_range_than_was_asked_for(self, server: Server, tmp_path: Path) -> None:
        begun(server, tmp_path)
        server.shift = 10
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT
        assert server.asked[-1] is None

    @pytest.mark.parametrize(("size", "etag"), [(1_500_000, '"two"'), (1000, '"two"'), (1000, '"one"'), (9000, None)])
    def test_another_version(self, server: Server, tmp_path: Path, size: int, etag: str | None) -> None:
        begun(server, tmp_path, None)
        server.content, server.etag = b"x" * size, etag
        assert fetch(download(server, None), tmp_path).read_bytes() == server.content

    @pytest.mark.parametrize("ending", [".partial", ".etag"])
    def test_a_stop_between_bytes_and_tag_mixes_no_versions(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
    ) -> None:
        begun(server, tmp_path, None)
        server.content, server.etag = b"x" * 2_000_000, '"two"'
        whole = Path.open

        def stop(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if path.name.endswith(ending) and "w" in mode:
                raise KeyboardInterrupt
            return whole(path, mode, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", stop)
            with pytest.raises(KeyboardInterrupt):
                fetch(download(server, None), tmp_path)
        assert fetch(download(server, None), tmp_path).read_bytes() == server.content

    @pytest.mark.parametrize("etag", [None, 'W/"one"'])
    def test_without_a_tag_it_starts_again_and_says_so(self, server: Server, tmp_path: Path, etag: str | None) -> None:
        server.etag, server.cut_after = etag, [600_000, 600_000]
        with pytest.raises(RunError, match="cut off once: the connection ended early; without a network: "):
            fetch(download(server, None), tmp_path, attempts=1)
        assert partial_bytes(download(server), tmp_path) == 0
        server.content = b"x" * 1_500_000
        assert fetch(download(server, None), tmp_path).read_bytes() == server.content
        assert server.asked == [None] * 3

    def test_a_date_will_do(self, server: Server, tmp_path: Path) -> None:
        server.etag, server.headers = 'W/"one"', {"Last-Modified": "Mon, 23 Nov 2026 12:00:00 GMT"}
        server.known_by = server.headers["Last-Modified"]
        kept = begun(server, tmp_path)
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT
        assert server.asked[-1] == f"bytes={kept}-"

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        steps=st.lists(st.tuples(st.integers(0, 400_000), st.integers(1, 3)), max_size=6),
        tagged=st.booleans(),
        ranges=st.booleans(),
    )
    def test_what_comes_of_it_is_one_version(
        self, server: Server, steps: list[tuple[int, int]], tagged: bool, ranges: bool
    ) -> None:
        server.ranges = ranges
        with TemporaryDirectory() as folder:
            for cut, version in [*steps, (0, 1)]:
                server.content = bytes([version]) * (version * 100_000)
                server.etag = f'"{version}"' if tagged else None
                server.cut_after = [cut, 0] if cut < len(server.content) else []
                with suppress(RunError):
                    assert fetch(download(server, None), Path(folder), attempts=1).read_bytes() == server.content
                    return
            server.cut_after = []
            assert fetch(download(server, None), Path(folder)).read_bytes() == server.content


class TestWrongContent:
    def test_it_is_said_and_removed(self, server: Server, tmp_path: Path) -> None:
        server.content = b"another file"
        found = hashlib.sha256(server.content).hexdigest()
        with pytest.raises(RunError, match=f"^{server.url}: expected the sha256 {SHA256}, found {found}; .* removed"):
            fetch(download(server), tmp_path)
        assert names(tmp_path) == []

    def test_without_a_pinned_hash_the_first_download_counts(self, server: Server, tmp_path: Path) -> None:
        assert known_sha256(download(server, None), tmp_path) is None
        fetch(download(server, None), tmp_path).unlink()
        assert known_sha256(download(server, None), tmp_path) == SHA256
        server.content = b"another file"
        with pytest.raises(RunError, match=r"the first is that of the first download, in .*trace.csv.sha256; without"):
            fetch(download(server, None), tmp_path)
        (tmp_path / "trace.csv.sha256").unlink()
        assert fetch(download(server, None), tmp_path).read_bytes() == server.content

    def test_a_file_that_was_changed_in_the_cache(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "trace.csv").write_bytes(b"changed")
        with pytest.raises(RunError, match=r"trace.csv in the cache: expected the sha256 .* the file was removed"):
            fetch(download(server), tmp_path)
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT

    def test_a_web_page(self, server: Server, tmp_path: Path) -> None:
        server.headers = {"Content-Type": "text/html; charset=utf-8"}
        with pytest.raises(RunError, match="a web page came instead of the file"):
            fetch(download(server, None), tmp_path)
        assert names(tmp_path) == []


class TestNobodyAnswers:
    def test_a_refusal(self, server: Server, tmp_path: Path) -> None:
        server.statuses = [404]
        with pytest.raises(RunError, match=r"the server answered 404 Not Found; without a network: .* --from FILE"):
            fetch(download(server), tmp_path)
        assert server.asked == [None]

    def test_a_refusal_that_passes(self, server: Server, tmp_path: Path) -> None:
        server.statuses = [503, 429]
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT

    def test_a_refusal_that_does_not_pass(self, server: Server, tmp_path: Path) -> None:
        server.statuses = [503] * 5
        with pytest.raises(
            RunError, match=r"5 times in a row: the server answered 503 .*; without a network: .* --from"
        ):
            fetch(download(server), tmp_path)

    def test_nobody(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        kept = begun(server, tmp_path)
        pauses.clear()
        nowhere = download(server).model_copy(update={"url": "http://127.0.0.1:9/trace.csv"})
        said = f"^http://127.0.0.1:9/trace.csv: cannot be reached: Connection refused; .* --from FILE; {kept:,} bytes"
        with pytest.raises(RunError, match=said):
            fetch(nowhere, tmp_path)
        assert pauses == []

    def test_a_proxy(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        elsewhere = download(server).model_copy(update={"url": "http://elsewhere.invalid/trace.csv"})
        with pytest.raises(RunError, match=r"cannot be reached: the proxy: Connection refused; without a network: "):
            fetch(elsewhere, tmp_path)

    def test_an_unknown_host(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: object) -> None:
            raise OSError(-2, "Name or service not known")

        monkeypatch.setattr("socket.getaddrinfo", unknown)
        with pytest.raises(RunError, match=r"cannot be reached: Name or service not known; without a network: "):
            fetch(download(server), tmp_path)


class TestNoRoom:
    def test_it_is_known_beforehand(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patched:
            usage = namedtuple("usage", "free")
            patched.setattr(shutil, "disk_usage", lambda _: usage(len(CONTENT) - 1))
            said = "no room on the disk: 1,024,000 bytes are to come, 1,023,999 are free"
            with pytest.raises(RunError, match=said):
                fetch(download(server), tmp_path)
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
    def test_it_is_found_while_writing(self, server: Server, tmp_path: Path) -> None:
        for name in ("trace.csv.partial", "trace.csv.copy"):
            (tmp_path / name).symlink_to("/dev/full")
        with pytest.raises(RunError, match=r"trace.csv.partial: there is no room on the disk$"):
            fetch(download(server), tmp_path)
        (tmp_path / "mine").write_bytes(CONTENT)
        with pytest.raises(RunError, match=r"there is no room on the disk$"):
            fetch(download(server), tmp_path, given=tmp_path / "mine")
        (tmp_path / "trace.csv.partial").unlink()
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT

    def test_what_was_written_is_kept(self, server: Server, tmp_path: Path) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
            with pytest.raises(RunError, match=r"partial: cannot be written: File too large; 300,000 bytes are kept"):
                fetch(download(server), tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT
        assert server.asked[-1] == "bytes=300000-"

    def test_a_cache_that_is_no_folder(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match=f"^{tmp_path / 'file'}: cannot be written: "):
            fetch(download(server), tmp_path / "file")


class TestAtOnce:
    def test_it_is_downloaded_once(self, server: Server, tmp_path: Path) -> None:
        found: list[bytes] = []
        self._run(4, lambda: found.append(fetch(download(server), tmp_path).read_bytes()))
        assert found == [CONTENT] * 4
        assert len(server.asked) == 1
        assert names(tmp_path) == ["trace.csv"]

    def test_never_two_write_into_the_same_part(self, server: Server, tmp_path: Path) -> None:
        server.cut_after = [0] * 1000

        def fail_often() -> None:
            for _ in range(10):
                with pytest.raises(RunError):
                    fetch(download(server), tmp_path, attempts=1)

        self._run(8, fail_often)
        assert len(server.asked) == 80
        assert server.busiest == 1

    @staticmethod
    def _run(threads: int, what: Any) -> None:
        errors: list[BaseException] = []

        def guarded() -> None:
            try:
                what()
            except BaseException as error:
                errors.append(error)

        running = [threading.Thread(target=guarded) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        assert errors == []


class TestFromAFile:
    @pytest.mark.parametrize("sha256", [SHA256, None])
    def test_it_is_copied_and_checked(self, server: Server, tmp_path: Path, sha256: str | None) -> None:
        begun(server, tmp_path / "cache")
        server.asked.clear()
        (tmp_path / "mine").write_bytes(CONTENT)
        path = fetch(download(server, sha256), tmp_path / "cache", given=tmp_path / "mine")
        assert path.read_bytes() == CONTENT
        assert server.asked == []
        assert names(tmp_path / "cache") == ["trace.csv"] + ["trace.csv.sha256"] * (sha256 is None)
        assert fetch(download(server, sha256), tmp_path / "cache", given=path) == path

    def test_another_file_is_refused_and_nothing_changed(self, server: Server, tmp_path: Path) -> None:
        fetch(download(server), tmp_path / "cache")
        (tmp_path / "mine").write_bytes(b"another file")
        with pytest.raises(InputError, match=f"--from: {tmp_path / 'mine'}: expected the sha256 {SHA256}, found "):
            fetch(download(server), tmp_path / "cache", given=tmp_path / "mine")
        assert names(tmp_path / "cache") == ["trace.csv"]
        assert (tmp_path / "mine").read_bytes() == b"another file"

    @pytest.mark.parametrize(("name", "reason"), [("none", "No such file or directory"), (".", "Is a directory")])
    def test_no_such_file(self, server: Server, tmp_path: Path, name: str, reason: str) -> None:
        with pytest.raises(InputError, match=f"--from: .*: cannot be read: {reason}"):
            fetch(download(server), tmp_path, given=tmp_path / name)


class TestTheCommand:
    @pytest.fixture
    def known(self, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        command = import_module("experiments.cli.trace.fetch")  # before what it imports is another
        monkeypatch.setattr("traces.io.fetch.downloads", lambda: {"some": download(server, None)})
        monkeypatch.setattr(command, "downloads", lambda: {"some": download(server, None)})
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))

    @pytest.mark.usefixtures("known")
    def test_standard_output_is_the_path_alone(self, server: Server, run_cli: Any, tmp_path: Path) -> None:
        path = tmp_path / "cache" / "trace.csv"
        for _ in range(2):  # from the server, and from the cache
            done = run_cli("trace", "fetch", "some")
            assert (done.code, done.stdout) == (0, f"{path}\n")
            assert "some: nobody; licence CC0" in done.stderr
            assert f"some: no pinned hash: {SHA256}, the sha256 of the first download, is recorded" in done.stderr
        assert json.loads(run_cli("trace", "fetch", "some", "--json").stdout) == {
            "name": "some",
            "path": str(path),
            "sha256": SHA256,
            "bytes": len(CONTENT),
            "licence": "CC0",
            "attribution": "nobody",
            "url": server.url,
            "pinned": False,
        }

    @pytest.mark.usefixtures("known")
    def test_the_list(self, server: Server, run_cli: Any, tmp_path: Path) -> None:
        assert "in part" not in run_cli("trace", "fetch").stdout
        begun(server, tmp_path / "cache", None)
        assert "in part" in run_cli("trace", "fetch").stdout
        run_cli("trace", "fetch", "some")
        assert "yes" in run_cli("trace", "fetch", "--list").stdout
        told = json.loads(run_cli("trace", "fetch", "--json").stdout)["traces"][0]
        assert (told["name"], told["bytes"], told["sha256"]) == ("some", None, SHA256)

    @pytest.mark.usefixtures("known")
    def test_a_failure_is_one_line_and_exit_code_1(self, server: Server, run_cli: Any) -> None:
        server.statuses = [404]
        done = run_cli("trace", "fetch", "some")
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith(f"failed: {server.url}: the server answered 404 Not Found")

    @pytest.mark.usefixtures("known")
    def test_a_part_is_told(self, server: Server, run_cli: Any, tmp_path: Path) -> None:
        kept = begun(server, tmp_path / "cache")
        done = run_cli("trace", "fetch", "some")
        assert f"some: unknown size from {server.url}, {kept:,} bytes of it are here" in done.stderr

    def test_bad_input(self, run_cli: Any, tmp_path: Path) -> None:
        done = run_cli("trace", "fetch", "azure-2023-con")
        assert (done.code, done.stdout) == (2, "")
        assert "there is no trace 'azure-2023-con' to fetch; did you mean 'azure-2023-conv'" in done.stderr
        assert run_cli("trace", "fetch", "--from", tmp_path).code == 2
        assert run_cli("trace", "fetch", "azure-2023-conv", "--list").code == 2
        done = run_cli("trace", "fetch", "azure-2023-conv", "--from", tmp_path / "none", "--cache", tmp_path)
        assert (done.code, done.stdout) == (2, "")

    def test_every_name_is_listed(self, run_cli: Any, tmp_path: Path) -> None:
        shown = run_cli("trace", "fetch", "--cache", tmp_path).stdout
        told = json.loads(run_cli("trace", "fetch", "--cache", tmp_path, "--json").stdout)
        assert {item["name"] for item in told["traces"]} == set(downloads())
        assert all(name in shown for name in downloads())

    def test_control_c_keeps_what_has_arrived(self, server: Server, tmp_path: Path) -> None:
        server.cut_after = [600_000]
        server.stall.clear()
        code = (
            "import traces.io.fetch as f; from experiments.cli.app import main; "
            f"f.downloads = lambda: {{'some': f.Download(url={server.url!r}, file='trace.csv', licence='', "
            "attribution='')}; main()"
        )
        command = [sys.executable, "-c", code, "trace", "fetch", "some", "--cache", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while not partial_bytes(download(server), tmp_path) and process.poll() is None:
                threading.Event().wait(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
        kept = partial_bytes(download(server), tmp_path)
        assert kept > 0
        assert (process.returncode, out) == (130, "")
        said = f"interrupted: some: {kept:,} bytes are kept, the same command goes on from there"
        assert err.splitlines()[-1] == said
        server.stall.set()
        assert fetch(download(server), tmp_path).read_bytes() == CONTENT
        assert server.asked[-1] == f"bytes={kept}-"


def test_the_registry(tmp_path: Path) -> None:
    known = downloads()
    assert {f"azure-{year}-{kind}" for year in (2023, 2024) for kind in ("conv", "code")} <= set(known)
    assert len({item.file for item in known.values()}) == len(known)
    assert all(item.url.startswith("https://") and item.licence and item.attribution for item in known.values())
    assert [name for name, item in known.items() if item.sha256 is None] == ["azure-lmm-2025"]
    assert cached("azure-2023-conv", tmp_path) is None
    (tmp_path / "AzureLLMInferenceTrace_conv.csv").write_text("")
    assert cached("azure-2023-conv", tmp_path) == tmp_path / "AzureLLMInferenceTrace_conv.csv"
    for call in (find_download, cached, fetch):
        with pytest.raises(InputError, match="there is no trace 'nothing'"):
            call("nothing")


@pytest.mark.parametrize("kind", ["conv", "code"])
def test_the_published_files_have_the_pinned_hashes(data_dir: Path, tmp_path: Path, kind: str) -> None:
    given = data_dir / "traces" / f"AzureLLMInferenceTrace_{kind}.csv"
    path = fetch(f"azure-2023-{kind}", tmp_path, given=given)
    assert path.stat().st_size == downloads()[f"azure-2023-{kind}"].bytes


def test_the_published_synthetic_trace_has_the_pinned_hash(data_dir: Path, tmp_path: Path) -> None:
    """Its rows as they are here, written as they were published."""
    with gzip.open(data_dir / "traces" / "mooncake_synthetic.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "mine").open("w") as file:
        for row in rows:
            line = {
                "timestamp": round(1000 * float(row["arrival_s"])),
                "input_length": int(row["input_tokens"]),
                "output_length": int(row["output_tokens"]),
                "hash_ids": [int(block) for block in row["hash_ids"].split()],
            }
            file.write(f"{json.dumps(line)}\n")
    path = fetch("mooncake-synthetic", tmp_path, given=tmp_path / "mine")
    assert path.stat().st_size == downloads()["mooncake-synthetic"].bytes


def test_the_command_line_does_not_load_it_beforehand() -> None:
    code = "import sys, experiments.cli.app; sys.exit('requests' in sys.modules or 'pooch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
