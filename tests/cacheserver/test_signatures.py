"""Signatures on their way through servers: stored beside what they are for, and handed out."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from morphlib.cache.digests import format_digest
from morphlib.cache.signatures import (
    Content,
    Signature,
    Signatures,
    decode_signatures,
    encode_signatures,
)
from morphlib.cache.signing import SigningKey, TrustedKeys, generate_signing_key
from tests.cacheserver.server import KEY, CacheServer, command, running, sha256

NAME = f"{KEY}.chunk.a"
SIGNATURES = f"{KEY}.signatures"
DATA = b"artifact"
CONTENT = Content(sha256(DATA), len(DATA))


@pytest.fixture
def server(home: Path) -> Iterator[CacheServer]:
    with running(home, "--enable-writes") as server:
        yield server


@pytest.fixture
def keys(tmp_path: Path) -> list[SigningKey]:
    return [generate_signing_key(tmp_path / f"key-{number}") for number in range(2)]


def encoded(key: SigningKey, content: Content = CONTENT) -> bytes:
    return encode_signatures(key.sign({NAME: content}))


def signers(server: CacheServer, keys: list[SigningKey]) -> list[int]:
    """The numbers of the keys whose signatures of the artifact the server hands out."""
    answer = server.artifact(SIGNATURES)
    assert answer.status == 200
    found = decode_signatures(answer.body)
    assert found is not None
    trusts = [TrustedKeys(Path("k"), {key.public(): "k"}) for key in keys]
    return [n for n, trust in enumerate(trusts) if trust.contents(NAME, found) == {CONTENT}]


def upload(server: CacheServer, files: dict[str, bytes]) -> int:
    wanted = {name: sha256(data) for name, data in files.items()}
    for data in files.values():
        server.ask("PUT", f"/1.0/uploads/{sha256(data)}", body=data)
    return server.post(f"/1.0/sources/{KEY}", wanted).status


def test_signatures_come_with_an_upload(server: CacheServer, keys: list[SigningKey]) -> None:
    assert upload(server, {NAME: DATA, SIGNATURES: encoded(keys[0])}) == 201
    assert signers(server, keys) == [0]
    answer = server.post("/1.0/artifacts", [NAME, SIGNATURES, "0" * 64 + ".signatures"])
    assert answer.json == {NAME: True, SIGNATURES: True, "0" * 64 + ".signatures": False}


def test_others_may_sign_the_same(server: CacheServer, keys: list[SigningKey]) -> None:
    assert server.put(NAME, DATA).status == 201
    assert server.artifact(SIGNATURES).status == 404
    for key in keys:
        assert server.put(SIGNATURES, encoded(key)).status == 200
    assert signers(server, keys) == [0, 1]
    # The artifact stays whole meanwhile.
    assert server.artifact(NAME).body == DATA
    assert "damaged" not in server.events


def test_signatures_of_something_else_are_not_kept(
    server: CacheServer, keys: list[SigningKey]
) -> None:
    assert server.put(NAME, DATA).status == 201
    server.put(SIGNATURES, encoded(keys[0]))
    other: Signatures = keys[1].sign(
        {NAME: Content(sha256(b"other"), 5), f"{KEY}.chunk.b": CONTENT}
    )
    assert server.put(SIGNATURES, encode_signatures(other)).status == 200
    found = decode_signatures(server.artifact(SIGNATURES).body)
    assert found == keys[0].sign({NAME: CONTENT})


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b" " * (5 << 20)])
def test_what_holds_no_signatures_is_refused(server: CacheServer, data: bytes) -> None:
    assert upload(server, {NAME: DATA, SIGNATURES: data}) == 422
    assert server.artifact(SIGNATURES).status == 404
    assert server.artifact(NAME).status == 404


def test_signatures_of_many_stay_small(server: CacheServer, keys: list[SigningKey]) -> None:
    """Clients read no more of them than servers take at once."""
    assert upload(server, {NAME: DATA, SIGNATURES: encoded(keys[0])}) == 201
    for number in range(3):
        long = Signature(f"key {number}", *CONTENT, "A" * (3 << 20))
        assert server.put(SIGNATURES, encode_signatures({NAME: (long,)})).status == 200
        long = Signature("A" * (3 << 20), *CONTENT, str(number))
        assert server.put(SIGNATURES, encode_signatures({NAME: (long,)})).status == 200
    assert decode_signatures(server.artifact(SIGNATURES).body) == keys[0].sign({NAME: CONTENT})


@pytest.mark.parametrize(("status", "answered"), [(404, 200), (503, 502), (500, 502)])
def test_nothing_loses_its_signatures_on_the_way(
    server: CacheServer, status: int, answered: int
) -> None:
    """What can't be had now might never be asked for again."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("signatures"):
                self.send_error(status)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.send_header("Repr-Digest", format_digest(sha256(DATA)))
            self.end_headers()
            self.wfile.write(DATA)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        wanted = {"host": f"127.0.0.1:{other.server_port}", "cacheid": KEY}
        answer = server.post("/1.0/fetch", {**wanted, "artifacts": ["chunk.a"]})
        other.shutdown()
    assert answer.status == answered
    assert server.artifact(NAME).status == (200 if answered == 200 else 404)


def test_signatures_come_along_when_servers_fetch(
    server: CacheServer, keys: list[SigningKey], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Old controllers name artifacts alone."""
    upload(server, {NAME: DATA, SIGNATURES: encoded(keys[0])})
    with running(tmp_path_factory.mktemp("shared"), "--enable-writes") as shared:
        wanted = {"host": f"127.0.0.1:{server.port}", "cacheid": KEY, "artifacts": ["chunk.a"]}
        answer = shared.post("/1.0/fetch", wanted)
        assert (answer.status, list(answer.json)) == (200, [NAME])
        assert signers(shared, keys) == [0]
        assert shared.put(SIGNATURES, encoded(keys[1])).status == 200
        assert shared.post("/1.0/fetch", wanted).status == 200
        assert signers(shared, keys) == [0, 1]


@pytest.mark.parametrize("junk", [b"junk", b" " * (5 << 20)])
def test_a_server_with_junk_for_signatures_is_fetched_from(
    server: CacheServer, junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server.put(NAME, DATA)
    (server.artifacts / SIGNATURES).write_bytes(junk)
    with running(tmp_path_factory.mktemp("shared"), "--enable-writes") as shared:
        wanted = {"host": f"127.0.0.1:{server.port}", "cacheid": KEY, "artifacts": ["chunk.a"]}
        assert shared.post("/1.0/fetch", wanted).status == 200
        assert shared.artifact(NAME).body == DATA
        assert shared.artifact(SIGNATURES).status == 404
        assert "holds no signatures: left out" in shared.events
        assert [path for path in shared.artifacts.glob("tmp-*") if path.suffix != ".lock"] == []


def test_signatures_are_removed_with_what_they_are_for(
    server: CacheServer, keys: list[SigningKey]
) -> None:
    upload(server, {NAME: DATA, SIGNATURES: encoded(keys[0])})

    gc = command(server.home, "--gc", "--gc-expire-after=1", "--gc-keep-younger-than=0")
    manifest = server.artifacts / f"{KEY}.manifest"

    os.utime(manifest, (1, 1))
    done = subprocess.run(gc, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in server.artifacts.iterdir() if not p.name.startswith("tmp")} == set()
