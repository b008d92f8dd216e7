"""What clients do that mean harm, or are broken: to other clients, to disks, memory and logs."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cacheserver import program
from cacheserver.answers import parse_date
from cacheserver.artifacts import Artifacts
from cacheserver.hits import Hits
from cacheserver.room import BusyError, Room
from cacheserver.uploads import Uploads
from morphlib.cache.digests import format_digest
from morphlib.events import silence
from morphlib.process import wait_until
from tests.cacheserver.server import KEY, OTHER_KEY, CacheServer, running, sha256
from tests.sources.repositories import Repository, git_environment

NAME = f"{KEY}.chunk.a"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def exchange(server: CacheServer, data: bytes) -> list[int]:
    """The statuses of the answers to what is sent."""
    with socket.create_connection((server.host, server.port), timeout=30) as client:
        client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while block := client.recv(1 << 16):
                answer += block
    parts = answer.split(b"HTTP/1.1 ")[1:]
    return [int(part[:3]) for part in parts]


@pytest.fixture
def git(home: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name, value in git_environment(home).items():
        monkeypatch.setenv(name, value)
    return Repository(home / "gits" / "r")


# ---- Requests within requests --------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 2\r\nContent-Length: 64\r\n",
        b"Content-Length: 64\r\nContent-Length: 2\r\n",
        b"Content-Length : 2\r\n",
        b"Content-Length: 2\r\n 64\r\n",
        b" Content-Length: 2\r\n",
        b"Content-Length\r\n",
        b"Content-Length: 2\r\nHost: y\r\n",
        b"Content-Length: 2\r\nX: a\rb\r\n",
        b"Content-Length: 2\r\nX: a\0b\r\n",
        b"Content-Length: 2\r\nX\x01: a\r\n",
        b"Content-Length: 2\nX: a\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
    ],
)
def test_headers_that_two_servers_may_read_in_two_ways(
    writable: CacheServer, headers: bytes
) -> None:
    request = b"POST /1.0/artifacts HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n[]" + GET
    assert exchange(writable, request) == [400]
    assert "Traceback" not in writable.events


def test_headers_may_be_repeated_that_are_lists(writable: CacheServer) -> None:
    writable.put(NAME, b"data")
    tag = f'"{sha256(b"data")}"'.encode()
    head = f"GET /1.0/artifacts?filename={NAME} HTTP/1.1\r\nHost: x\r\n".encode()
    tags = b'If-None-Match: "other"\r\nIf-None-Match: ' + tag
    assert exchange(writable, head + tags + b"\r\nConnection: close\r\n\r\n") == [304]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        (b"POST", b"/nowhere", 404),
        (b"PUT", b"/1.0/uploads/x", 400),
        (b"PUT", b"/1.0/artifacts?filename=..", 403),
        (b"DELETE", b"/1.0/artifacts?filename=none", 404),
        (b"GET", b"/healthz", 200),
    ],
)
def test_a_body_that_nobody_reads_is_no_request(
    writable: CacheServer, method: bytes, path: bytes, status: int
) -> None:
    digest = format_digest("0" * 64).encode()
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\nRepr-Digest: " + digest
    length = b"\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    assert exchange(writable, head + length + smuggled + GET) == [status, 200]


def test_uploads_may_wait_to_be_wanted(writable: CacheServer) -> None:
    data = b"x" * 100_000
    with socket.create_connection((writable.host, writable.port), timeout=30) as client:
        head = f"PUT /1.0/uploads/{sha256(data)} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(data)
        assert client.recv(100).startswith(b"HTTP/1.1 201 ")


# ---- HEAD ----------------------------------------------------------------------------------------


def test_head_is_get_without_a_body(home: Path, git: Repository) -> None:
    git.git("commit", "-q", "--allow-empty", "-m", "x")
    with running(home, "--enable-writes", "--direct-mode") as server:
        server.put(NAME, b"data")
        for path in (
            *("/", "/?kind=chunk", "/hits", f"/sources/{KEY}", f"/sources/{OTHER_KEY}"),
            *("/style.css", "/openapi.json", "/healthz", "/metrics", "/1.0/list", "/nowhere"),
            f"/1.0/artifacts?filename={NAME}",
            "/1.0/artifacts?filename=none",
            "/1.0/sha1s?repo=git://h/r&ref=master",
            "/1.0/trees?repo=git://h/r&ref=master",
            "/1.0/bundles?repo=git://h/r",
            f"/1.0/uploads/{'0' * 64}",
        ):
            head, got = server.ask("HEAD", path), server.ask("GET", path)
            assert (head.status, head.body) == (got.status, b""), path
            assert head.headers["content-type"] == got.headers["content-type"], path


def test_head_changes_nothing(home: Path) -> None:
    with running(home, "--enable-writes", "--get-writes") as server:
        server.put(NAME, b"data")
        host = f"127.0.0.1:{server.port}"
        for path in (
            f"/1.0/delete?artifact={NAME}",
            f"/1.0/fetch?host={host}&cacheid={KEY}&artifacts=chunk.a",
        ):
            assert server.ask("HEAD", path).status == 405
        assert server.artifact(NAME).body == b"data"


# ---- Time ----------------------------------------------------------------------------------------


def drip(server: CacheServer, head: bytes, stop: threading.Event) -> None:
    """Send a head, and then a byte now and then."""
    address = (server.host, server.port)
    with socket.create_connection(address, timeout=30) as client, contextlib.suppress(OSError):
        client.sendall(head)
        while not stop.wait(0.2):
            client.sendall(b" ")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /1.0/artifacts HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
        b"POST /1.0/sha1s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
        f"PUT /1.0/uploads/{'0' * 64} HTTP/1.1\r\nHost: localhost\r\n".encode()
        + b"Content-Length: 1000\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
    ],
)
def test_bodies_that_come_byte_by_byte_hold_no_threads(home: Path, head: bytes) -> None:
    with running(home, "--enable-writes", "--timeout=1", "--threads=2") as server:
        stop = threading.Event()
        with ThreadPoolExecutor(4) as threads:
            try:
                for _ in range(4):
                    threads.submit(drip, server, head, stop)
                time.sleep(0.5)
                assert server.get("/healthz").status == 200
            finally:
                stop.set()


# ---- Memory --------------------------------------------------------------------------------------


def test_of_many_files_no_more_is_read_than_is_answered(home: Path, git: Repository) -> None:
    """A list may name the same large file thousands of times."""
    (git.path / "large").write_bytes(b"\0" * 1_900_000)
    (git.path / "small").write_bytes(b"small")
    git.git("add", ".")
    git.git("commit", "-q", "-m", "x")
    sha1 = git.head
    with running(home, "--direct-mode", "--max-file-size=2M") as server:
        names = ["large"] * 8000 + ["small"]
        wanted = [{"repo": "git://h/r", "ref": sha1, "filename": name} for name in names]
        began = cpu_of(server)
        found = server.post("/1.0/files", wanted).json
        assert cpu_of(server) - began < 5
        assert sum("data" in each for each in found) == 2
        assert found[1]["error"] == "There are too many bytes in one answer"
        assert "data" in found[-1]


def cpu_of(server: CacheServer) -> float:
    """Seconds of the processor that the server took."""
    words = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_huge_directories_are_refused(home: Path, git: Repository) -> None:
    blob = git.git("hash-object", "-w", "--stdin", stdin=b"x")
    lines = "".join(f"100644 blob {blob}\tfile-{number:06}\n" for number in range(20_000))
    tree = git.git("mktree", stdin=lines.encode())
    commit = git.git("commit-tree", tree, "-m", "x")
    git.git("update-ref", "refs/heads/master", commit)
    with running(home, "--direct-mode", "--max-file-size=1M") as server:
        assert server.get("/1.0/trees", repo="git://h/r", ref=commit).status == 404
    with running(home, "--direct-mode") as server:
        answer = server.get("/1.0/trees", repo="git://h/r", ref=commit)
        assert len(answer.json["tree"]) == 20_000


def test_slow_clients_can_not_fill_the_memory(home: Path, git: Repository) -> None:
    """Files of repositories are held until they are sent: of so many at once, some are refused."""
    (git.path / "large").write_bytes(os.urandom(3_000_000))
    git.git("add", ".")
    git.git("commit", "-q", "-m", "x")
    sha1 = git.head
    path = f"/1.0/files?repo=git://h/r&ref={sha1}&filename=large"
    with running(home, "--direct-mode", "--max-file-size=3M", "--threads=16") as server:
        slow = []
        for _ in range(12):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((server.host, server.port))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            slow.append(client)
        heads = []
        for client in slow:
            client.settimeout(30)
            heads.append(client.recv(12)[9:12])
        assert b"503" in heads
        assert heads.count(b"200") >= 4
        busy = server.ask("GET", path)
        assert (busy.status, busy.headers["retry-after"]) == (503, "1")
        for client in slow:
            client.close()
        assert wait_until(lambda: server.ask("GET", path).status == 200, 30)


def test_room_is_given_back() -> None:
    room = Room(10)
    with room.hold() as held:
        held.take(6)
        with room.hold() as other, pytest.raises(BusyError):
            other.take(5)
        held.take(4)
    with room.hold() as held:
        held.take(10)


# ---- Disks ---------------------------------------------------------------------------------------


def test_of_uploads_of_one_name_one_wins(writable: CacheServer) -> None:
    name = f"{KEY}.chunk.raced"
    contents = [b"%d" % number * 10_000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda data: writable.put(name, data).status, contents))
    assert sorted(statuses) == [201] + [409] * 7
    assert writable.artifact(name).body == contents[statuses.index(201)]


def test_sources_may_have_files_in_common(writable: CacheServer) -> None:
    """Two clients ask whether a file is uploaded; it is, and both rely on it."""
    digest = sha256(b"log")
    assert writable.ask("PUT", f"/1.0/uploads/{digest}", body=b"log").status == 201
    for key in (KEY, OTHER_KEY):
        wanted = {f"{key}.build-log": digest, f"{key}.chunk.common": digest}
        assert writable.post(f"/1.0/sources/{key}", wanted).status == 201
        assert writable.artifact(f"{key}.chunk.common").body == b"log"
        assert writable.artifact(f"{key}.build-log").body == b"log"


def test_uploads_that_nobody_wants_go_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    artifacts = Artifacts(tmp_path, silence, serve_unlisted=False)
    uploads = Uploads(artifacts, 100, now=lambda: now[0])
    uploads.stage(io.BytesIO(b"data"), 4, sha256(b"data"))
    monkeypatch.setattr(program, "_TIDY_SECONDS", 0.05)
    now[0] = 3601.0
    stop = program.keep_tidy(Hits(artifacts.store), uploads)
    try:
        assert wait_until(lambda: {p.suffix for p in tmp_path.glob("tmp-*")} <= {".lock"}, 30)
    finally:
        stop.set()
        uploads.close()


def test_links_among_the_artifacts_lead_nowhere(writable: CacheServer) -> None:
    secret = writable.home / "secret"
    secret.write_text("secret")
    for suffix in ("chunk.link", "build-log", "meta", "signatures"):
        name = f"{OTHER_KEY}.{suffix}"
        (writable.artifacts / name).unlink(missing_ok=True)
        (writable.artifacts / name).symlink_to(secret)
        assert writable.artifact(name).status == 404
        assert writable.post("/1.0/artifacts", [name]).json == {name: False}
        (writable.artifacts / name).unlink()
    assert writable.get(f"/sources/{OTHER_KEY}/log").status == 404


def test_pipes_and_devices_are_not_waited_for(writable: CacheServer) -> None:
    name = f"{OTHER_KEY}.build-log"
    (writable.artifacts / name).unlink(missing_ok=True)
    os.mkfifo(writable.artifacts / name)
    assert writable.artifact(name).status == 404
    (writable.artifacts / name).unlink()


# ---- Logs ----------------------------------------------------------------------------------------


def test_nobody_writes_lines_of_his_own_into_logs(writable: CacheServer) -> None:
    name = f"{KEY}.chunk.a\n2000-01-01 00:00:00 ERROR forged \x1b[31m"
    assert writable.put(name, b"data").status == 201
    (writable.artifacts / name).write_bytes(b"damaged")
    assert writable.artifact(name).status == 404
    assert "is damaged" in writable.events
    assert "\n2000-01-01" not in writable.events
    assert "\x1b" not in writable.events
    writable.get("/1.0/artifacts", headers={"User-Agent": "a\tb"}, filename="x\ny\x1b")
    assert wait_until(lambda: "%1B" in (writable.home / "requests").read_text(), 30)
    for line in (writable.home / "requests").read_text().splitlines():
        assert json.loads(line)["time"]


# ---- What other servers say ----------------------------------------------------------------------


@pytest.mark.parametrize("length", ["9" * 5000, "\xb2", "-1", "1e3", ""])
def test_lengths_that_other_servers_make_up(writable: CacheServer, length: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nRepr-Digest: {format_digest('0' * 64)}\r\n"
    head += f"Content-Length: {length}\r\n\r\n"
    with answering(head.encode("latin-1")) as port:
        wanted = {"host": f"127.0.0.1:{port}", "cacheid": KEY, "artifacts": ["chunk.odd"]}
        assert writable.post("/1.0/fetch", wanted).status == 502
    assert "Traceback" not in writable.events


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[int]:
    """A server that says the same to everybody. Its port is given."""

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(1 << 16)
            connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    answer(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            thread.join()


@given(st.text(max_size=60))
@example(" ")
@example(",")
@example("Mon, 99 Foo 99999999 99:99:99 GMT")
@example("1 Jan 2000 0:0:0 +99999999999999999999")
@example("Thu, 01 Jan 0001 00:00:00 -0001")
@example("0" * 5000)
def test_any_text_is_a_date_or_none(text: str) -> None:
    found = parse_date(text)
    assert found is None or isinstance(found, int)


def test_more_clients_than_files_may_be_open(home: Path) -> None:
    """Those that find no room wait or are turned away; the server goes on."""
    with running(home, "--threads=2", wrap=["prlimit", "--nofile=64:64"]) as server:
        clients = []
        for _ in range(150):
            with contextlib.suppress(OSError):
                clients.append(socket.create_connection((server.host, server.port), timeout=5))
        began = cpu_of(server)
        time.sleep(2)
        assert cpu_of(server) - began < 1.5
        # Who comes now is served, in spite of those that say nothing.
        assert server.get("/healthz").status == 200
        assert server.events.count("too many connections") == 1
        assert "Traceback" not in server.events
        for client in clients:
            client.close()

        def is_well() -> bool:
            try:
                return server.get("/healthz").status == 200
            except (OSError, http.client.HTTPException):
                return False

        assert wait_until(is_well, 60)
