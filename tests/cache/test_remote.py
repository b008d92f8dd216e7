"""Fetching from a cache server that fails in every way that there is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from morphlib.cache.digests import format_digest
from morphlib.cache.remote import RemoteArtifacts
from morphlib.cache.transfer import Patience
from morphlib.errors import MorphError, Reason
from morphlib.events import AnyEvent, Status
from tests.cache.fickle_server import FickleServer, fickle_server

KEY = "0" * 64
NAME = f"{KEY}.chunk.zlib-libs"
DATA = os.urandom(3_000_000)
HASTE = Patience(connect=2, read=2, pause=0.01)


@pytest.fixture
def server() -> Iterator[FickleServer]:
    with fickle_server() as running:
        running.files[NAME] = DATA
        yield running


class Client(RemoteArtifacts):
    """One that keeps what it told."""

    def __init__(self, url: str, patience: Patience = HASTE) -> None:
        self.told: list[AnyEvent] = []
        super().__init__(url, listener=self.told.append, patience=patience)

    @property
    def warnings(self) -> list[str]:
        return [e.text for e in self.told if isinstance(e, Status) and e.level == "warning"]


def fetch(client: Client, into: Path) -> str:
    digest = client.fetch(NAME, into)
    assert into.read_bytes() == DATA
    return digest


def fail(client: Client, into: Path) -> MorphError:
    with pytest.raises(MorphError) as caught:
        client.fetch(NAME, into)
    assert not into.exists()
    return caught.value


def test_a_file_comes_with_its_digest(server: FickleServer, tmp_path: Path) -> None:
    client = Client(server.url)
    assert fetch(client, tmp_path / "f") == hashlib.sha256(DATA).hexdigest()
    assert client.told == []


def test_what_is_there_takes_one_request(server: FickleServer) -> None:
    names = [f"{KEY}.chunk.c{number}" for number in range(3700)]
    assert Client(server.url).find([*names, NAME]) == {NAME}
    assert len(server.asked) == 1


def test_a_server_without_that_request_is_asked_for_each(server: FickleServer) -> None:
    server.batched = False
    assert Client(server.url).find([NAME, NAME + "x"]) == {NAME}
    assert [method for method, _, _ in server.asked] == ["POST", "HEAD", "HEAD"]


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_who_has_to_come_again_does(server: FickleServer, status: int) -> None:
    server.statuses = [status] * 3
    client = Client(server.url)
    assert client.find([NAME]) == {NAME}
    assert len(server.asked) == 4
    assert not client.warnings


def test_who_always_has_to_come_again_goes_on_without(server: FickleServer) -> None:
    server.statuses = [503] * 10
    client = Client(server.url)
    assert client.find([NAME]) == frozenset()
    assert client.is_dead and len(server.asked) == HASTE.attempts


def test_what_is_too_large_is_left_there(server: FickleServer, tmp_path: Path) -> None:
    """It need not be the server who put it there, which has other things."""
    client = Client(server.url)
    with pytest.raises(MorphError, match="too many"):
        client.fetch(NAME, tmp_path / "f", largest=len(DATA) - 1)
    assert not client.is_dead
    client.fetch(NAME, tmp_path / "f", largest=len(DATA))


def test_a_transfer_goes_on_where_it_broke_off(server: FickleServer, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 500_000]
    fetch(Client(server.url), tmp_path / "f")
    starts = [asked for _, _, asked in server.asked]
    assert starts == ["", "bytes=1000000-", "bytes=1500000-"]


def test_a_transfer_that_always_breaks_off_is_given_up(
    server: FickleServer, tmp_path: Path
) -> None:
    server.cuts = [10] * 100
    client = Client(server.url)
    error = fail(client, tmp_path / "f")
    assert error.reason is Reason.CACHE
    assert NAME in error.message and server.url.rstrip("/") in error.message
    assert len(server.asked) == HASTE.attempts


def test_a_file_that_changes_between_two_parts_starts_anew(
    server: FickleServer, tmp_path: Path
) -> None:
    server.cuts = [1000]
    other = os.urandom(2000)
    client = Client(server.url)

    def change() -> None:
        while not server.asked:
            time.sleep(0.001)
        server.files[NAME] = other

    thread = threading.Thread(target=change)
    thread.start()
    client.fetch(NAME, tmp_path / "f")
    thread.join()
    assert (tmp_path / "f").read_bytes() in (DATA, other)


@pytest.mark.parametrize("digest", ["0" * 64, None])
def test_what_is_not_as_its_digest_says_is_not_taken(
    server: FickleServer, tmp_path: Path, digest: str | None
) -> None:
    server.digests[NAME] = digest
    error = fail(Client(server.url), tmp_path / "f")
    assert "SHA-256" in error.message or "tells no digest" in error.message


def test_what_is_gone_is_not_asked_for_again(server: FickleServer, tmp_path: Path) -> None:
    del server.files[NAME]
    client = Client(server.url)
    assert fail(client, tmp_path / "f").reason is Reason.NOT_FOUND
    assert len(server.asked) == 1
    assert not client.is_dead


@pytest.mark.parametrize("status", [302, 403, 500, 503])
def test_a_server_that_fails_is_left_alone(
    server: FickleServer, tmp_path: Path, status: int
) -> None:
    server.status = status
    client = Client(server.url)
    fail(client, tmp_path / "f")
    assert client.is_dead
    asked = len(server.asked)
    fail(client, tmp_path / "g")
    assert client.find([NAME]) == frozenset()
    assert len(server.asked) == asked
    assert len(client.warnings) == 1


def test_nobody_at_that_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}/")
    assert client.find([NAME]) == frozenset()
    (warning,) = client.warnings
    assert "refused" in warning and "going on without it" in warning


def test_somebody_who_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client = Client(f"http://127.0.0.1:{port}/", Patience(read=0.2, attempts=2, pause=0.01))
        assert client.find([NAME]) == frozenset()
    assert len(client.warnings) == 1


def test_a_server_that_crawls_is_left_alone(server: FickleServer, tmp_path: Path) -> None:
    patience = Patience(read=5, attempts=3, pause=0.01, slow_after=0.1, slowest=10**10)
    server.stalls = 0.2
    client = Client(server.url, patience)
    assert "too slow" in fail(client, tmp_path / "f").message
    assert client.is_dead


def test_a_transfer_ends_when_it_is_stopped(server: FickleServer, tmp_path: Path) -> None:
    server.stalls = 30
    client = Client(server.url, Patience(read=60))
    failures: list[MorphError] = []

    def run() -> None:
        failures.append(fail(client, tmp_path / "f"))

    thread = threading.Thread(target=run)
    thread.start()
    while not server.asked:
        time.sleep(0.01)
    time.sleep(0.2)
    client.stop()
    thread.join(15)
    assert not thread.is_alive()
    assert len(failures) == 1


@contextmanager
def dripping(first: bytes, drip: bytes, pause: float) -> Iterator[str]:
    """A server that reads nothing and never ends. Gives its URL."""
    is_over = threading.Event()

    def answer() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(first)
            while not is_over.wait(pause):
                connection.sendall(drip)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        is_over.set()
        thread.join()


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n["])
def test_a_reply_that_comes_in_drips_is_not_waited_for(first: bytes) -> None:
    patience = Patience(read=0.3, slow_after=0.3)
    before = set(threading.enumerate())
    with dripping(first, b" ", 0.05) as url:
        client = Client(url, patience)
        began = time.monotonic()
        assert client.find([NAME]) == frozenset()
        assert time.monotonic() - began < 5
    assert len(client.warnings) == 1
    assert set(threading.enumerate()) <= before  # builders are forked next


def test_more_than_was_told_is_not_taken(tmp_path: Path) -> None:
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n"
    first += b"Repr-Digest: " + format_digest("0" * 64).encode() + b"\r\n\r\n"
    with dripping(first, b"8\r\n" + b"x" * 8 + b"\r\n", 0.01) as url:
        client = Client(url)
        assert "more than the 10 bytes" in fail(client, tmp_path / "f").message
    assert client.is_dead


@pytest.mark.parametrize("what", ["fetch", "upload"])
def test_what_waits_for_a_silent_server_ends_when_it_is_stopped(tmp_path: Path, what: str) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(50_000_000))
    failures: list[MorphError] = []

    def run() -> None:
        with pytest.raises(MorphError) as caught:
            if what == "fetch":
                client.fetch(NAME, tmp_path / "f")
            else:
                client.upload(KEY, {NAME: (big, "0" * 64)})
        failures.append(caught.value)

    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n" if what == "upload" else b""
    with dripping(answer, b"", 0.05) as url:
        client = Client(url, Patience(connect=60, read=60))
        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.5)
        began = time.monotonic()
        client.stop()
        thread.join(15)
        assert time.monotonic() - began < 3
    assert len(failures) == 1


@pytest.mark.parametrize("reply", [b"", b"[]", b"nonsense", b"[" * 100_000])
def test_replies_that_are_none(reply: bytes) -> None:
    """What is no JSON object means that nothing is there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                length = str(len(reply)).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n")
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        client = Client(f"http://127.0.0.1:{port}/")
        assert client.find([NAME]) == frozenset()
        thread.join()
    assert len(client.warnings) == 1


@pytest.mark.parametrize(
    "url", ["ftp://host/", "file:///etc", "http:///", "host:8080", "http://[x"]
)
def test_urls_of_no_server(url: str) -> None:
    with pytest.raises(MorphError) as caught:
        RemoteArtifacts(url)
    assert caught.value.reason is Reason.CONFIG
