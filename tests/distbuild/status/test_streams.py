"""Pages that are slow to listen, and those that are not."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.commandline import MORPH
from tests.distbuild.status.game import key_of
from tests.distbuild.status.served import BUFFER

PAGE = f"/builds/build-1/steps/{key_of('a')}"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.distbuild.status.served"],
        cwd=MORPH.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        yield int(child.stdout.readline())
        child.stdin.close()
        assert child.wait(30) == 0


@contextmanager
def asking(port: int, path: str) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        yield connection


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while data := connection.recv(1 << 16):
        found += data
    return found


def events_of(port: int) -> str:
    with asking(port, PAGE) as connection:
        page = read_all(connection).decode()
    stream = page.partition('data-stream="')[2].partition('"')[0]
    stamp = page.partition('data-stamp="')[2].partition('"')[0]
    return f"{stream}&since={stamp}"


def test_who_does_not_listen_is_let_go(port: int) -> None:
    with asking(port, events_of(port)) as slow:
        time.sleep(12)  # far longer than it is waited for
        with pytest.raises(ConnectionResetError):
            read_all(slow)


def test_who_listens_is_told_for_as_long_as_it_does(port: int) -> None:
    with asking(port, events_of(port)) as quick:
        found = b""
        began = time.monotonic()
        while time.monotonic() - began < 10:
            data = quick.recv(1 << 16)
            assert data
            found += data
    events = [part for part in found.split(b"\n\n") if b"data: " in part]
    assert len(events) >= 3
    # Nothing is told twice, and what was too much to be kept is not told at all.
    assert sum(event.count(b"xxx\\n") for event in events) <= 2000 * 13


def test_who_pauses_for_a_moment_misses_nothing_that_is_kept(port: int) -> None:
    """What came meanwhile is told at once."""
    with asking(port, events_of(port)) as connection:
        time.sleep(1.5)
        found = b""
        began = time.monotonic()
        while found.count(b"\ndata: ") < 4 and time.monotonic() - began < 60:
            found += connection.recv(1 << 16)
    assert found.count(b"\ndata: ") >= 4


def test_a_body_without_end_is_not_kept(port: int) -> None:
    """Requests may have bodies, and nothing is done with them."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(100):
            connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200")
