"""Who may take part, and how each side finds out about the other."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from distbuild.addresses import Address, listen, parse_address, write_port_file
from distbuild.conversation import ConnectionLost, Conversation
from distbuild.framing import encode
from distbuild.handshake import Party, RefusedError, is_loopback, read_secret
from distbuild.messages import Hello, Proof, Role, ToInitiator
from morphlib.errors import MorphError

SECRET = b"a secret of enough letters"
CONTROLLER, WORKER = Party(Role.CONTROLLER, SECRET), Party(Role.WORKER, SECRET)


def hello(role: Role, protocol: int = 5) -> Hello:
    return Hello(role=role, protocol=protocol, program="1.0", nonce="0123456789abcdef")


def test_both_sides_prove_that_they_know_the_secret() -> None:
    ours, theirs = CONTROLLER.hello(), WORKER.hello()
    CONTROLLER.check_proof(WORKER.prove(theirs, ours), ours, theirs)
    WORKER.check_proof(CONTROLLER.prove(ours, theirs), theirs, ours)


@pytest.mark.parametrize("secret", [b"", b"another secret of enough letters"])
def test_another_secret_proves_nothing(secret: bytes) -> None:
    ours, theirs = CONTROLLER.hello(), WORKER.hello()
    with pytest.raises(RefusedError, match="different secrets"):
        CONTROLLER.check_proof(Party(Role.WORKER, secret).prove(theirs, ours), ours, theirs)


def test_a_proof_can_not_be_used_again_or_thrown_back() -> None:
    ours, theirs = CONTROLLER.hello(), WORKER.hello()
    proof = WORKER.prove(theirs, ours)
    with pytest.raises(RefusedError):
        CONTROLLER.check_proof(proof, CONTROLLER.hello(), theirs)
    with pytest.raises(RefusedError):
        CONTROLLER.check_proof(CONTROLLER.prove(ours, theirs), ours, theirs)


def test_without_a_secret_only_this_machine_is_listened_to() -> None:
    Party(Role.WORKER).check_address("127.0.0.1")
    WORKER.check_address("192.0.2.1")
    with pytest.raises(RefusedError, match=r"192\.0\.2\.1 is another machine: set distbuild-secre"):
        Party(Role.WORKER).check_address("192.0.2.1")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["10.0.0.1", "fe80::1%eth0", "::", "0.0.0.0", "localhost", ""])
def test_not_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize(("protocol", "older"), [(4, "worker"), (6, "controller")])
def test_another_version_is_told_who_is_to_be_updated(protocol: int, older: str) -> None:
    with pytest.raises(RefusedError, match=rf"version {protocol}\. Update the {older}\."):
        CONTROLLER.check_hello(hello(Role.WORKER, protocol), [Role.WORKER])


def test_another_role_is_refused() -> None:
    with pytest.raises(RefusedError, match="a controller does not listen to a helper here"):
        CONTROLLER.check_hello(hello(Role.HELPER), [Role.INITIATOR])


def test_secrets_are_kept_from_others_and_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert read_secret(None) == b""
    with pytest.raises(MorphError, match="can't read the secret"):
        read_secret(path)
    path.write_text("0123456789abcdef\n")
    path.chmod(0o640)
    with pytest.raises(MorphError, match="others may read the secret"):
        read_secret(path)
    path.chmod(0o600)
    assert read_secret(path) == b"0123456789abcdef"
    path.write_text("short")
    with pytest.raises(MorphError, match="shorter than 16"):
        read_secret(path)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("big", Address("big", 3434)),
        ("big:1", Address("big", 1)),
        ("192.0.2.1:65535", Address("192.0.2.1", 65535)),
        ("::1", Address("::1", 3434)),
        ("[::1]", Address("::1", 3434)),
        ("[::1]:7", Address("::1", 7)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text, 3434) == address
    assert parse_address(str(address), 0) == address


@pytest.mark.parametrize("text", ["", ":1", "big:0", "big:65536", "big:x", "a b", "a/b", "[::1]x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(MorphError, match="is no HOST or HOST:PORT"):
        parse_address(text, 3434)


def test_port_files_are_written_once_something_listens(tmp_path: Path) -> None:
    import os

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with listen("127.0.0.1", 0) as listening:
        writer = threading.Thread(target=write_port_file, args=[str(pipe), listening])
        writer.start()
        port = int(pipe.read_text())
        writer.join()
        assert pipe.is_fifo()
        socket.create_connection(("127.0.0.1", port)).close()
        write_port_file("", listening)
        with pytest.raises(MorphError, match="can't write the port to"):
            write_port_file(str(tmp_path / "nowhere" / "x"), listening)
        with pytest.raises(MorphError, match="can't listen at"):
            listen("127.0.0.1", port)


def test_all_addresses_are_those_of_both_kinds() -> None:
    with listen("", 0) as listening:
        port = listening.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()


class Answering(threading.Thread):
    """Listens for one connection, and says some lines to it."""

    def __init__(self, *lines: bytes) -> None:
        super().__init__(daemon=True)
        self._lines = lines
        self._listening = listen("127.0.0.1", 0)
        self.address = Address("127.0.0.1", self._listening.getsockname()[1])
        self.heard = b""
        self.start()

    def run(self) -> None:
        peer, _ = self._listening.accept()
        with peer:
            peer.sendall(b"".join(self._lines))
            peer.shutdown(socket.SHUT_WR)
            while data := peer.recv(1000):
                self.heard += data


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "closed the connection"),
        ([b"HTTP/1.1 400 Bad Request\r\n"], "does not speak as it should"),
        ([encode(hello(Role.WORKER))], "an? initiator does not listen to a worker"),
        ([encode(hello(Role.CONTROLLER, 9))], "Update the initiator"),
        ([encode(hello(Role.CONTROLLER)), encode(Proof(value="0" * 64))], "different secrets"),
        ([b"x" * (1 << 21)], "does not speak as it should: a line longer than 1048576 bytes"),
    ],
)
def test_an_initiator_says_why_it_does_not_go_on(lines: list[bytes], message: str) -> None:
    answering = Answering(*lines)
    with pytest.raises(MorphError, match=message):
        Conversation(
            answering.address, Party(Role.INITIATOR, SECRET), [Role.CONTROLLER], ToInitiator
        )


def test_nobody_there() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(ConnectionLost, match=rf"Couldn't connect to 127\.0\.0\.1:{port}: "):
        Conversation(Address("127.0.0.1", port), Party(Role.INITIATOR), [], ToInitiator)
