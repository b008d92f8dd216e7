"""Uploading, fetching from other servers, listing and removing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from morphlib.cache.digests import format_digest
from morphlib.cache.store import ArtifactStore
from morphlib.process import wait_until
from tests.cacheserver.server import (
    KEY,
    OTHER_KEY,
    Answer,
    CacheServer,
    command,
    running,
    sha256,
)
from tests.sources.servers import serve


@pytest.fixture(autouse=True)
def empty(writable: CacheServer) -> None:
    for path in writable.artifacts.iterdir():
        if not path.name.startswith("tmp"):
            path.unlink()


def stored(server: CacheServer) -> dict[str, bytes]:
    """Every file but manifests and locks, temporary ones too."""
    return {
        path.name: path.read_bytes()
        for path in server.artifacts.iterdir()
        if not path.name.endswith((".manifest", ".lock"))
    }


def stage(server: CacheServer, data: bytes) -> str:
    digest = sha256(data)
    assert server.ask("PUT", f"/1.0/uploads/{digest}", body=data).status == 201
    return digest


def publish(server: CacheServer, key: str, files: dict[str, str]) -> Answer:
    return server.post(f"/1.0/sources/{key}", files)


# ---- Single files --------------------------------------------------------------------------------


def test_an_upload_is_stored_under_its_name(writable: CacheServer) -> None:
    name = f"{KEY}.chunk.a"
    answer = writable.put(name, b"data")
    assert (answer.status, answer.json) == (201, {"new": True})
    assert writable.artifact(name).body == b"data"
    with ArtifactStore(writable.artifacts) as store:
        assert store.check(KEY, [name])
        assert store.digest(name) == sha256(b"data")


def test_the_same_upload_again_changes_nothing(writable: CacheServer) -> None:
    name = f"{KEY}.chunk.a"
    writable.put(name, b"data")
    before = (writable.artifacts / name).stat()
    answer = writable.put(name, b"data")
    assert (answer.status, answer.json) == (200, {"new": False})
    assert (writable.artifacts / name).stat().st_ino == before.st_ino
    assert stored(writable) == {name: b"data"}


def test_other_bytes_never_replace_an_artifact(writable: CacheServer) -> None:
    name = f"{KEY}.chunk.a"
    writable.put(name, b"data")
    assert writable.put(name, b"other").status == 409
    assert stored(writable) == {name: b"data"}


def test_a_damaged_artifact_may_be_replaced(writable: CacheServer) -> None:
    name = f"{KEY}.chunk.a"
    writable.put(name, b"data")
    (writable.artifacts / name).write_bytes(b"xxxx")
    assert writable.put(name, b"data").status == 201
    assert writable.artifact(name).body == b"data"


def test_build_logs_and_metadata_may_change(writable: CacheServer) -> None:
    for name in (f"{KEY}.build-log", f"{KEY}.meta"):
        for data in (b"one", b"two"):
            assert writable.put(name, data).status in (200, 201)
            assert writable.artifact(name).body == data


def test_an_upload_that_is_not_what_it_says_is_not_stored(writable: CacheServer) -> None:
    answer = writable.put(f"{KEY}.chunk.a", b"data", sha256(b"promised"))
    assert answer.status == 422
    assert sha256(b"data") in answer.json["error"]
    assert stored(writable) == {}


@pytest.mark.parametrize(
    "digest", ["", "sha-256=x", "sha-256=:AAAA:", f"md5=:{'A' * 43}=:", f"sha-256=:{'A' * 44}:"]
)
def test_an_upload_needs_a_digest(writable: CacheServer, digest: str) -> None:
    headers = {"Repr-Digest": digest} if digest else {}
    query = {"filename": f"{KEY}.chunk.a"}
    answer = writable.ask("PUT", "/1.0/artifacts", query, b"data", headers)
    assert answer.status == 400
    assert stored(writable) == {}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../x",
        "/x",
        "a/b",
        ".x",
        "tmp-x",
        f"{KEY}.manifest",
        "x" * 256,
        "..",
        f"{KEY}\0.chunk.a",
    ],
)
def test_names_that_artifacts_can_not_have(writable: CacheServer, name: str) -> None:
    assert writable.put(name, b"data").status == 403
    assert writable.ask("DELETE", "/1.0/artifacts", {"filename": name}).status == 403
    assert stored(writable) == {}


def test_an_upload_that_breaks_off_leaves_nothing(writable: CacheServer) -> None:
    head = (
        f"PUT /1.0/artifacts?filename={KEY}.chunk.a HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: 9000000\r\nRepr-Digest: {format_digest(sha256(b''))}\r\n\r\n"
    )
    with socket.create_connection((writable.host, writable.port)) as client:
        client.sendall(head.encode() + b"x" * 3_000_000)
        assert wait_until(lambda: any(map(len, stored(writable).values())), 10)
    assert wait_until(lambda: stored(writable) == {}, 10)


def test_uploads_have_a_largest_size_and_are_not_read_beyond_it(home: Path) -> None:
    with running(home, "--enable-writes", "--max-artifact-size=1000") as server:
        assert server.put(f"{KEY}.chunk.a", b"x" * 1000).status == 201
        assert server.put(f"{KEY}.chunk.b", b"x" * 1001).status == 413
        connection = server.connect()
        connection.putrequest("PUT", f"/1.0/artifacts?filename={KEY}.chunk.c")
        connection.putheader("Content-Length", str(1 << 50))
        connection.putheader("Repr-Digest", format_digest(sha256(b"")))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()
        assert set(stored(server)) == {f"{KEY}.chunk.a"}


def test_bodies_of_unknown_length_are_refused(writable: CacheServer) -> None:
    path = f"/1.0/artifacts?filename={KEY}.chunk.a"
    head = f"PUT {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((writable.host, writable.port)) as client:
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 411 ")
        assert client.recv(1000) == b""


# ---- Sources -------------------------------------------------------------------------------------


def test_files_of_a_source_appear_together(writable: CacheServer) -> None:
    files = {f"{KEY}.chunk.{name}": name.encode() for name in ("bins", "libs", "doc")}
    digests = {}
    for name, data in files.items():
        assert writable.ask("GET", f"/1.0/uploads/{sha256(data)}").status == 404
        digests[name] = stage(writable, data)
        assert writable.ask("HEAD", f"/1.0/uploads/{sha256(data)}").status == 200
        assert writable.artifact(name).status == 404
    assert publish(writable, KEY, digests).status == 201
    assert stored(writable) == files
    assert all(writable.post("/1.0/artifacts", list(files)).json.values())
    assert publish(writable, KEY, digests).json == {"new": False}


def test_nobody_ever_sees_half_of_a_source(writable: CacheServer) -> None:
    """Asked all the time while sources appear and are removed."""
    names = [f"{KEY}.chunk.{number}" for number in range(20)]
    halves: list[dict[str, bool]] = []
    seen: set[bool] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            found = writable.post("/1.0/artifacts", names).json
            seen.update(found.values())
            if len(set(found.values())) > 1:
                halves.append(found)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for each in lookers:
        each.start()
    with ArtifactStore(writable.artifacts) as store:
        for _ in range(20):
            digest = stage(writable, b"")
            assert publish(writable, KEY, dict.fromkeys(names, digest)).status == 201
            store.remove(KEY)
    done.set()
    for each in lookers:
        each.join()
    assert halves == []
    assert seen == {True, False}


def test_nothing_appears_unless_all_is_there(writable: CacheServer) -> None:
    digest = stage(writable, b"bins")
    wanted = {f"{KEY}.chunk.bins": digest, f"{KEY}.chunk.libs": sha256(b"libs")}
    answer = publish(writable, KEY, wanted)
    assert answer.status == 409
    assert f"{KEY}.chunk.libs" in answer.json["error"]
    assert writable.post("/1.0/artifacts", list(wanted)).json == dict.fromkeys(wanted, False)
    stage(writable, b"libs")
    assert publish(writable, KEY, wanted).status == 201


def test_what_vanished_is_stored_again(writable: CacheServer) -> None:
    name = f"{KEY}.chunk.vanishing"
    wanted = {name: stage(writable, b"vanishing")}
    assert publish(writable, KEY, wanted).status == 201
    (writable.artifacts / name).unlink()
    stage(writable, b"vanishing")
    assert publish(writable, KEY, wanted).status == 201
    assert writable.artifact(name).body == b"vanishing"


def test_two_names_may_have_the_same_bytes(writable: CacheServer) -> None:
    digest = stage(writable, b"")
    names = [f"{KEY}.chunk.{name}" for name in "abc"]
    assert publish(writable, KEY, dict.fromkeys(names, digest)).status == 201
    with ArtifactStore(writable.artifacts) as store:
        assert store.check(KEY, names)
    assert len({(writable.artifacts / name).stat().st_ino for name in names}) == 3


def test_a_source_has_its_key_in_all_its_names(writable: CacheServer) -> None:
    digest = stage(writable, b"x")
    for name in (f"{OTHER_KEY}.chunk.a", "../x", f"{KEY}", f"{KEY}.manifest"):
        answer = publish(writable, KEY, {f"{KEY}.chunk.a": digest, name: digest})
        assert answer.status == (403 if name != KEY else 201), name


@pytest.mark.parametrize("body", [b"{}", b"[]", b"", b'{"a": 1}', b'{"a": "b"}', b"\xff"])
def test_sources_that_are_none(writable: CacheServer, body: bytes) -> None:
    assert writable.ask("POST", f"/1.0/sources/{KEY}", body=body).status == 400


def test_a_staged_file_must_be_what_its_name_says(writable: CacheServer) -> None:
    assert writable.ask("PUT", f"/1.0/uploads/{sha256(b'x')}", body=b"y").status == 422
    assert writable.ask("PUT", "/1.0/uploads/xyz", body=b"y").status == 400
    assert stored(writable) == {}


def test_what_is_staged_goes_with_the_server(home: Path) -> None:
    with running(home, "--enable-writes") as server:
        stage(server, b"x")
        assert len(stored(server)) == 1
        assert server.stop() == 0
        assert stored(server) == {}


def test_a_server_that_is_killed_leaves_nothing_that_counts(home: Path) -> None:
    with running(home, "--enable-writes") as server:
        stage(server, b"staged")
        with socket.create_connection((server.host, server.port)) as client:
            head = f"PUT /1.0/uploads/{sha256(b'')} HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"
            client.sendall(head.encode() + b"x" * 50_000)
            assert wait_until(lambda: len(stored(server)) == 2, 10)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
    assert len(stored(server)) == 2
    with running(home, "--enable-writes") as server:
        assert server.get("/1.0/list").json["files"] == {}
        assert server.put(f"{KEY}.chunk.a", b"x").status == 201
        assert stored(server) == {f"{KEY}.chunk.a": b"x"}


# ---- Fetching from other servers -----------------------------------------------------------------


@contextmanager
def source_server(home: Path, files: dict[str, bytes]) -> Iterator[CacheServer]:
    """Another server that has these files of KEY."""
    home.mkdir()
    with running(home) as server:
        with ArtifactStore(server.artifacts) as store:
            paths = {name: store.temporary() for name in files}
            for name, data in files.items():
                paths[name].write_bytes(data)
            store.publish(KEY, paths)
        yield server


FILES = {f"{KEY}.stratum.core": b'["a"]', f"{KEY}.stratum.core.meta": b"{}" * 100}
WANTED = {"cacheid": KEY, "artifacts": ["stratum.core", "stratum.core.meta"]}


def test_artifacts_are_fetched_from_another_server(writable: CacheServer, home: Path) -> None:
    with source_server(home / "other", FILES) as other:
        answer = writable.post("/1.0/fetch", {**WANTED, "host": f"127.0.0.1:{other.port}"})
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.json == {
        name: {"size": len(data), "used": (writable.artifacts / name).stat().st_blocks * 512}
        for name, data in FILES.items()
    }
    assert stored(writable) == FILES
    assert all(writable.post("/1.0/artifacts", list(FILES)).json.values())


def test_one_connection_does_for_all_that_is_fetched(writable: CacheServer) -> None:
    connections: list[object] = []

    class Other(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.append(self)
            super().setup()

        def do_GET(self) -> None:
            body = self.path.rpartition(".")[2].encode()
            if self.path.endswith("signatures"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Repr-Digest", format_digest(sha256(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        wanted = {"host": f"127.0.0.1:{other.server_port}", "cacheid": KEY}
        names = [f"chunk.{letter}" for letter in "abcdef"]
        answer = writable.post("/1.0/fetch", {**wanted, "artifacts": names})
        other.shutdown()
    assert answer.status == 200, answer
    assert stored(writable)[f"{KEY}.chunk.f"] == b"f"
    assert len(connections) == 1


def test_a_server_may_fetch_from_itself(writable: CacheServer) -> None:
    writable.put(f"{KEY}.chunk.a", b"data")
    host = f"localhost:{writable.port}"
    wanted = {"host": host, "cacheid": KEY, "artifacts": ["chunk.a"]}
    assert writable.post("/1.0/fetch", wanted).json == {f"{KEY}.chunk.a": {"size": 4, "used": 4096}}


def test_all_is_fetched_or_nothing(writable: CacheServer, home: Path) -> None:
    with source_server(home / "other", FILES) as other:
        wanted = {**WANTED, "artifacts": ["stratum.core", "stratum.gone"]}
        answer = writable.post("/1.0/fetch", {**wanted, "host": f"127.0.0.1:{other.port}"})
    assert answer.status == 502
    assert stored(writable) == {}


def test_what_is_fetched_does_not_replace_other_bytes(writable: CacheServer, home: Path) -> None:
    writable.put(f"{KEY}.stratum.core", b"mine")
    with source_server(home / "other", FILES) as other:
        answer = writable.post("/1.0/fetch", {**WANTED, "host": f"127.0.0.1:{other.port}"})
    assert answer.status == 409
    assert stored(writable) == {f"{KEY}.stratum.core": b"mine"}


def test_a_server_that_lies_or_sends_no_digest_is_not_believed(writable: CacheServer) -> None:
    with serve(lambda method, path, body: (200, b"anything")) as liar:
        wanted = {**WANTED, "host": liar.url.removeprefix("http://").rstrip("/")}
        assert writable.post("/1.0/fetch", wanted).status == 502
        assert len(liar.requests) == 1
    assert stored(writable) == {}


@pytest.mark.parametrize("promised", [b"promised", b"sent and more", b"sens"])
def test_what_comes_must_be_what_was_promised(writable: CacheServer, promised: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        connection = writable.connect()
        wanted = {**WANTED, "host": f"127.0.0.1:{port}"}
        connection.request("POST", "/1.0/fetch", json.dumps(wanted))
        client = listener.accept()[0]
        client.recv(10_000)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(promised)}\r\n"
            f"Repr-Digest: {format_digest(sha256(promised))}\r\n\r\n"
        )
        client.sendall(head.encode() + b"sent")
        client.close()
        assert connection.getresponse().status == 502
        connection.close()
    assert stored(writable) == {}


def test_only_servers_that_are_named_are_asked(home: Path) -> None:
    with (
        serve(lambda method, path, body: (200, b"secret")) as elsewhere,
        running(home, "--enable-writes", "--fetch-from=worker,127.0.0.1:1") as server,
    ):
        port = elsewhere.server_address[1]
        for host in (
            f"127.0.0.1:{port}",
            f"localhost:{port}",
            "169.254.169.254",
            "worker@127.0.0.1",
        ):
            assert server.post("/1.0/fetch", {**WANTED, "host": host}).status in (400, 403), host
        assert elsewhere.requests == []


def test_redirects_are_not_followed(writable: CacheServer) -> None:
    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return 302, b""

    with serve(answer) as elsewhere:
        wanted = {**WANTED, "host": f"127.0.0.1:{elsewhere.server_address[1]}"}
        assert writable.post("/1.0/fetch", wanted).status == 502
        assert len(elsewhere.requests) == 1


@pytest.mark.parametrize(
    "host",
    ["", ":80", "127.0.0.1:0", "127.0.0.1:x", "a b", "127.0.0.1:80/x", "[::1", "localhost\r\nX: y"],
)
def test_hosts_that_are_none(writable: CacheServer, host: str) -> None:
    assert writable.post("/1.0/fetch", {**WANTED, "host": host}).status == 400


@pytest.mark.parametrize(
    ("key", "artifacts"),
    [("../x", ["a"]), (KEY, ["../../x"]), (KEY, ["a/b"]), ("", ["a"]), (f"{KEY}.x", ["a"])],
)
def test_names_to_fetch_that_lead_elsewhere(
    writable: CacheServer, key: str, artifacts: list[str]
) -> None:
    wanted = {"host": "127.0.0.1:1", "cacheid": key, "artifacts": artifacts}
    assert writable.post("/1.0/fetch", wanted).status == 403


# ---- Listing and removing ------------------------------------------------------------------------


def test_the_list_tells_sizes_ages_and_room(writable: CacheServer) -> None:
    names = [f"{KEY}.chunk.a", f"{KEY}.build-log"]
    for name in names:
        writable.put(name, b"x" * 5000)
    stage(writable, b"staged")
    (writable.artifacts / ".dl.x").write_bytes(b"x")
    answer = writable.get("/1.0/list")
    assert answer.headers["cache-control"] == "no-cache"
    assert sorted(answer.json["files"]) == sorted(names)
    status = (writable.artifacts / names[0]).stat()
    found = answer.json["files"][names[0]]
    assert (found["size"], found["used"]) == (5000, status.st_blocks * 512)
    assert abs(found["atime"] - status.st_mtime) < 5
    room = os.statvfs(writable.artifacts)
    assert abs(answer.json["freespace"] - room.f_bavail * room.f_frsize) < 1 << 30


def test_an_artifact_is_removed(writable: CacheServer) -> None:
    names = [f"{KEY}.chunk.a", f"{KEY}.chunk.b"]
    told = len(writable.events)
    for name in names:
        writable.put(name, b"x")
    query = {"filename": names[0]}
    answer = writable.ask("DELETE", "/1.0/artifacts", query)
    assert (answer.status, answer.json) == (200, {"status": 0, "reason": "success"})
    assert [writable.artifact(name).status for name in names] == [404, 200]
    answer = writable.ask("DELETE", "/1.0/artifacts", query)
    assert answer.status == 404
    assert answer.json == {"status": 2, "reason": "No such file or directory"}
    assert writable.ask("DELETE", "/1.0/artifacts", {"filename": names[1]}).status == 200
    assert list(writable.artifacts.glob("*.manifest")) == []
    assert "damaged" not in writable.events[told:]


# ---- Old clients ---------------------------------------------------------------------------------


def test_nothing_is_written_through_get(writable: CacheServer) -> None:
    writable.put(f"{KEY}.chunk.a", b"x")
    query = {"host": f"127.0.0.1:{writable.port}", "cacheid": KEY, "artifacts": "chunk.a"}
    assert writable.ask("GET", "/1.0/fetch", query).status == 405
    assert writable.ask("GET", "/1.0/delete", {"artifact": f"{KEY}.chunk.a"}).status == 404
    assert writable.artifact(f"{KEY}.chunk.a").status == 200


def test_old_clients_write_by_get_where_that_is_asked_for(home: Path) -> None:
    with (
        source_server(home / "other", FILES) as other,
        running(home, "--enable-writes", "--get-writes") as server,
    ):
        artifacts = "stratum.core,stratum.core.meta"
        query = {"host": f"localhost:{other.port}", "cacheid": KEY, "artifacts": artifacts}
        answer = server.ask("GET", "/1.0/fetch", query)
        assert sorted(answer.json) == sorted(FILES)
        name = f"{KEY}.stratum.core"
        for expected in (
            {"status": 0, "reason": "success"},
            {"status": 2, "reason": "No such file or directory"},
        ):
            answer = server.get("/1.0/delete", artifact=name)
            assert (answer.status, answer.json) == (200, expected)
        answer = server.get("/1.0/delete", artifact="../events")
        assert (answer.status, answer.json["status"]) == (200, 22)
        assert "listening" in server.events


def test_the_directory_may_be_a_link_to_another_disk(home: Path, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (home / "artifacts").symlink_to(tmp_path / "large")
    name = f"{KEY}.chunk.a"
    with running(home, "--enable-writes") as server:
        assert server.put(name, b"data").status == 201
        assert server.artifact(name).body == b"data"
        assert server.ask("DELETE", "/1.0/artifacts", {"filename": name}).status == 200
        assert server.put(name, b"other").status == 201
        assert server.stop() == 0
        assert "ERROR" not in server.events
    gc = command(home, "--gc", "--gc-max-size=1", "--gc-keep-younger-than=0")
    done = subprocess.run(gc, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "large").iterdir()} == {".hits"}


def test_without_writes_there_is_nothing_to_write_to(home: Path) -> None:
    with running(home) as server:
        (server.artifacts / f"{KEY}.build-log").write_bytes(b"x")
        assert server.put(f"{KEY}.chunk.a", b"x").status in (404, 405)
        assert server.ask("DELETE", f"/1.0/artifacts?filename={KEY}.build-log").status == 405
        for path in ("fetch", "list", "delete", f"uploads/{KEY}", f"sources/{KEY}"):
            for method in ("GET", "POST", "PUT"):
                assert server.ask(method, f"/1.0/{path}").status == 404
        assert stored(server) == {f"{KEY}.build-log": b"x"}


def test_a_connection_is_kept_for_several_requests(writable: CacheServer) -> None:
    connection = writable.connect()
    for number in range(5):
        data = str(number).encode()
        connection.request("PUT", f"/1.0/uploads/{sha256(data)}", data)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (201, None)
        answer.read()
    assert isinstance(connection.sock, socket.socket)
    connection.close()


def test_missing_directories_are_told_and_not_made(home: Path) -> None:
    with running(home, "--enable-writes") as server:
        server.artifacts.rmdir()
        assert server.put(f"{KEY}.chunk.a", b"x").status == 500
        assert server.get("/healthz").status == 503
        assert server.artifact(f"{KEY}.chunk.a").status == 404
        assert not server.artifacts.exists()
        assert "Traceback" not in server.events
