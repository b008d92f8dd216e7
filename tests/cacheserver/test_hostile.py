"""Requests that no friend would send, against what the server says of itself."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_from_bytes

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from cacheserver.answers import Part, parse_range
from cacheserver.openapi import describe_requests
from cacheserver.pulling import parse_origin
from cacheserver.repositories import path_below_root
from morphlib.cache.digests import format_digest, is_sha256, parse_digest
from tests.cacheserver.server import KEY, Answer, CacheServer, running, sha256
from tests.sources.repositories import Repository, git_environment

SECRET = b"nobody may read this"
OPERATIONS = [
    (path, method)
    for path, item in describe_requests()["paths"].items()
    for method in item
    if method != "parameters"
]
PIECES = [
    "..",
    ".",
    "/",
    "\\",
    "%2e%2e",
    "%2f",
    "%00",
    "\0",
    "secret",
    "artifacts",
    KEY,
    ".chunk.a",
]
PIECES += ["git://h/r", "file://", "::1", "tmp-", ".manifest", "~", "-", "--help", "\u202e", "\r\n"]
NAMES = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.text(st.characters(codec="utf-8"), max_size=50),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheServer]:
    """Writable, with something of everything, and a secret beside its directories."""
    home = tmp_path_factory.mktemp("hostile")
    (home / "secret").write_bytes(SECRET)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in git_environment(home).items():
            patch.setenv(name, value)
        made = Repository(home / "gits" / "r")
        made.git("commit", "-q", "--allow-empty", "-m", "x")
    options = ("--enable-writes", "--get-writes", "--direct-mode", "--fetch-from=localhost:1")
    with running(home, *options, "--timeout=5") as server:
        assert server.put(f"{KEY}.chunk.a", b"data").status == 201
        yield server


@pytest.fixture(autouse=True)
def unharmed(server: CacheServer) -> Iterator[None]:
    """Whatever a test does, the server lives on and nothing outside is touched."""
    before = around(server.home)
    yield
    assert around(server.home) == before
    assert server.get("/healthz").status == 200
    assert "Traceback" not in server.events
    assert (server.home / "secret").read_bytes() == SECRET


def around(home: Path) -> set[str]:
    """All there is beside the artifacts."""
    return {
        str(path.relative_to(home)) for path in home.rglob("*") if "artifacts/" not in str(path)
    }


def check(answer: Answer, path: str, method: str) -> None:
    """Is this one of the answers that the description has, and does it tell nothing?"""
    described = describe_requests()["paths"][path][method]["responses"]
    assert str(answer.status) in described, (answer, path, method)
    assert SECRET not in answer.body
    content = described[str(answer.status)].get("content", {})
    if answer.status == 200 and "application/json" in content:
        jsonschema.validate(answer.json, content["application/json"]["schema"])


def test_the_description_is_one() -> None:
    validate(describe_requests())


def test_the_description_is_told_and_complete(server: CacheServer) -> None:
    assert server.get("/openapi.json").json == describe_requests()
    told = {(path, method.upper()) for path, method in OPERATIONS}
    for path in ("/1.0/artifacts", "/1.0/uploads/{sha256}", "/1.0/sources/{key}", "/1.0/fetch"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            known = server.ask(method, path.replace("{", "x").replace("}", "x")).status != 405
            if (path, method) == ("/1.0/fetch", "GET"):
                continue  # that is for old clients
            assert known == ((path, method) in told), (path, method)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_is_described_works_on_hostile_values(
    server: CacheServer, path: str, method: str
) -> None:
    operation = describe_requests()["paths"][path][method]
    names = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
    bodies: st.SearchStrategy[bytes | None] = st.none()
    if "requestBody" in operation:
        bodies = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values=st.tuples(*[NAMES for _ in names]), piece=NAMES, body=bodies, data=st.data())
    def attack(
        values: tuple[str, ...], piece: str, body: bytes | None, data: st.DataObject
    ) -> None:
        place = path.replace("{sha256}", quote(piece, safe="")).replace(
            "{key}", quote(piece, safe="")
        )
        headers = {}
        if method == "put":
            right = data.draw(st.booleans())
            digest = sha256(body or b"" if right else b"other")
            headers = {"Repr-Digest": format_digest(digest)}
        query = dict(zip(names, values, strict=True))
        answer = server.ask(method.upper(), place, query, body, headers)
        if "{" in path and (not piece or "/" in piece or answer.status == 404):
            return  # another path, which there is not
        check(answer, path, method)

    attack()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    raw=st.binary(max_size=40), where=st.sampled_from(["artifacts?filename=", "sha1s?repo=", ""])
)
@example(raw=b"../secret", where="artifacts?filename=")
@example(raw=b"%2e%2e%2fsecret", where="artifacts?filename=")
@example(raw=b"..%c0%af..%c0%afsecret", where="artifacts?filename=")
def test_no_bytes_in_a_url_lead_elsewhere(server: CacheServer, raw: bytes, where: str) -> None:
    for text in (quote_from_bytes(raw), quote_from_bytes(raw, safe="/%&=?+")):
        answer = server.ask("GET", f"/1.0/{where}{text}")
        assert answer.status in (200, 400, 403, 404, 405)
        assert SECRET not in answer.body


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(min_size=1, max_size=300), head=st.sampled_from([b"", b"GET / HTTP/1.1\r\n"]))
@example(data=b"Content-Length: -1\r\n\r\n", head=b"POST /1.0/artifacts HTTP/1.1\r\n")
@example(
    data=b"Content-Length: 99999999999999999999\r\n\r\n", head=b"POST /1.0/artifacts HTTP/1.1\r\n"
)
@example(data=b"Content-Length: +5\r\n\r\n12345", head=b"PUT /1.0/uploads/x HTTP/1.1\r\n")
@example(
    data=b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
    head=b"PUT /1.0/uploads/x HTTP/1.1\r\n",
)
def test_what_is_no_http_is_refused(server: CacheServer, data: bytes, head: bytes) -> None:
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        client.sendall(head + data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while block := client.recv(4096):
                answer += block
        except ConnectionError:
            return
    status = answer.split(b" ", 2)[1:2]
    if not data.endswith(b"\r\n\r\n"):
        return
    assert not status or status[0][:1] in (b"2", b"4", b"5"), answer


def test_large_headers_and_paths_are_refused(server: CacheServer) -> None:
    for path, headers, status in (
        ("/" + "x" * 100_000, {}, 414),
        ("/healthz", {"X": "x" * 100_000}, 413),
    ):
        connection = server.connect()
        try:
            connection.request("GET", path, headers=headers)
            assert connection.getresponse().status == status
        except ConnectionError:
            pass  # refused before all of it was sent
        finally:
            connection.close()


def test_a_large_body_is_not_read(home: Path) -> None:
    with running(home, "--max-request-size=1000") as server:
        assert server.post("/1.0/artifacts", ["x" * 900]).status == 200
        connection = server.connect()
        connection.putrequest("POST", "/1.0/sha1s")
        connection.putheader("Content-Length", str(1 << 40))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()


def test_idle_connections_take_no_threads(home: Path) -> None:
    with running(home, "--threads=2") as server:
        idle = [socket.create_connection((server.host, server.port)) for _ in range(50)]
        assert server.get("/healthz").status == 200
        for client in idle:
            client.close()


def test_clients_that_send_a_byte_now_and_then_are_dropped(home: Path) -> None:
    with running(home, "--timeout=2", "--threads=2") as server:
        dripping = [socket.create_connection((server.host, server.port)) for _ in range(2)]
        ended = 0
        for byte in b"GET /healthz HTTP/1.1\r\nX: 012345678901234567890123456789":
            for client in dripping:
                try:
                    client.sendall(bytes([byte]))
                except OSError:
                    ended += 1
            if ended:
                break
            time.sleep(0.2)
        assert ended
        assert server.get("/healthz").status == 200
        for client in dripping:
            client.close()


def test_clients_that_stall_are_dropped(home: Path) -> None:
    with running(home, "--timeout=1", "--enable-writes", "--threads=2") as server:
        stalled = []
        for head in (
            b"GET /healthz HTT",
            b"PUT /1.0/uploads/x HTTP/1.1\r\nContent-Length: 9\r\n\r\nx",
        ):
            client = socket.create_connection((server.host, server.port), timeout=20)
            client.sendall(head)
            stalled.append(client)
        assert server.get("/healthz").status == 200
        for client in stalled:
            while client.recv(1000):
                pass
            client.close()


# ---- Parsers -------------------------------------------------------------------------------------


@given(st.text(max_size=30), st.integers(0, 1000))
@example("bytes=0-", 1)
def test_parts_lie_in_the_file(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except ValueError:
        return
    if part is not None:
        assert part.length > 0 and part.offset >= 0 and part.offset + part.length <= size


def test_parts() -> None:
    assert parse_range("bytes=1-2", 10) == Part(1, 2)
    assert parse_range("bytes= 1 - 2 ", 10) == Part(1, 2)


@given(st.binary(max_size=10))
def test_digests_in_headers_are_read_as_written(data: bytes) -> None:
    digest = sha256(data)
    assert is_sha256(digest)
    assert parse_digest(f"md5=:x:, {format_digest(digest)}") == digest


@given(st.text(max_size=80))
def test_what_is_read_of_headers_is_a_digest_or_nothing(text: str) -> None:
    found = parse_digest(text)
    assert found is None or is_sha256(found)


@given(st.one_of(NAMES, st.lists(st.sampled_from(["git://h", "/", "..", "a", "."])).map("".join)))
def test_paths_of_urls_stay_below_the_root(url: str) -> None:
    path = path_below_root(url)
    if path is not None:
        assert Path("/root") in Path("/root", path).parents
        assert ".." not in path.split("/")


@given(NAMES)
def test_origins_hold_nothing_but_a_host_and_a_port(text: str) -> None:
    try:
        origin = parse_origin(text, 80)
    except ValueError:
        return
    assert 0 < origin.port < 65536
    connection = http.client.HTTPConnection(origin.host, origin.port)
    assert connection.host.strip("[]") == origin.host
