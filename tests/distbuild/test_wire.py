"""Sockets that are heard and spoken to at the same time, plain and with TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from distbuild.wire import Wire
from tests.distbuild.authorities import Authority

LINES = 3000


def server_context(authority: Authority, *names: str, **how: float) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.sign("server", *names, **how))  # type: ignore[arg-type]
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(60)
        yield ours, theirs


def echo(peer: socket.socket, context: ssl.SSLContext | None) -> None:
    """Send back what comes."""
    if context is not None:
        peer = context.wrap_socket(peer, server_side=True)
    with peer, suppress(OSError):  # it may be closed where it is read
        while data := peer.recv(1 << 16):
            peer.sendall(data)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
def test_threads_speak_while_another_hears(
    pair: tuple[socket.socket, socket.socket], authority: Authority, secured: bool
) -> None:
    ours, theirs = pair
    context = server_context(authority, "big") if secured else None
    threading.Thread(target=echo, args=[theirs, context], daemon=True).start()
    wire = Wire(ours, 60)
    if secured:
        client = authority.identity("client").client_context()
        assert wire.start_tls(client, "big", 60)

    def speak(letter: bytes) -> None:
        for number in range(LINES):
            wire.send(letter * (number % 400) + b"\n")

    letters = (b"a", b"b", b"c")
    speakers = [threading.Thread(target=speak, args=[letter]) for letter in letters]
    for speaker in speakers:
        speaker.start()
    lengths: dict[bytes, list[int]] = {b"a": [], b"b": [], b"c": [], b"": []}
    for _ in range(3 * LINES):
        line = wire.read_line(1000)
        assert line is not None
        assert len(set(line)) <= 1, "lines of several threads got mixed"
        lengths[line[:1]].append(len(line))
    for speaker in speakers:
        speaker.join()
    for letter in letters:
        assert lengths[letter] == [n % 400 for n in range(LINES) if n % 400]
    assert len(lengths[b""]) == 3 * len(range(0, LINES, 400))
    wire.close()
    with pytest.raises(OSError):
        wire.send(b"x")


def test_lines_end_and_are_not_endless(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    wire = Wire(ours, 60)
    theirs.sendall(b"one\n\ntw")
    assert (wire.read_line(10), wire.read_line(10)) == (b"one", b"")
    theirs.sendall(b"o\n0123456789abcdef")
    assert wire.read_line(10) == b"two"
    with pytest.raises(ValueError, match="longer than 10 bytes"):
        wire.read_line(10)
    theirs.close()
    assert wire.read_line(100) is None
    assert wire.read_line(100) is None


def test_silence_ends(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    wire = Wire(ours, 0.2)
    with pytest.raises(TimeoutError, match="silent for 0 seconds"):
        wire.read_line(10)
    with pytest.raises(TimeoutError):
        wire.send(b"x" * (64 << 20))
    theirs.close()


def test_a_handshake_that_goes_nowhere_ends(
    pair: tuple[socket.socket, socket.socket], authority: Authority
) -> None:
    ours, _ = pair
    with pytest.raises(TimeoutError):
        Wire(ours, 60).start_tls(authority.identity("client").client_context(), "big", 0.2)


def test_the_server_has_to_have_the_name(
    pair: tuple[socket.socket, socket.socket], authority: Authority
) -> None:
    ours, theirs = pair
    context = server_context(authority, "big", "192.0.2.1")

    def serve() -> None:
        with pytest.raises(OSError):
            context.wrap_socket(theirs, server_side=True)

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(ssl.SSLCertVerificationError) as raised:
        Wire(ours, 60).start_tls(authority.identity("client").client_context(), "192.0.2.2", 60)
    assert raised.value.verify_code == 64
    ours.close()
    server.join()
