"""What a controller does about peers that say too much, too fast, or come too often."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from distbuild import connection as connections
from distbuild.connection import Connection
from distbuild.framing import encode
from distbuild.handshake import Party
from distbuild.messages import BuildRequest, ListRequests, Message, Ping, Role
from distbuild.pacing import Room
from morphlib.process import wait_until
from tests.distbuild.network import PATIENCE, Network
from tests.distbuild.test_connection import Peer

FLOOD = 100_000


def memory_of(network: Network) -> int:
    """Bytes of the controller."""
    status = Path(f"/proc/{network.processes['controller'].child.pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def connect(network: Network) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.ports["controller"]), PATIENCE)


@contextlib.contextmanager
def initiator(network: Network) -> Iterator[socket.socket]:
    with connect(network) as peer:
        peer.sendall(encode(Party(Role.INITIATOR).hello()))
        yield peer


def is_answered(network: Network) -> bool:
    """Whether others are listened to."""
    began = time.monotonic()
    ran = network.run("distbuild-list-jobs")
    assert ran.status == 0, ran.err
    return time.monotonic() - began < 20


def pour(peer: socket.socket, data: bytes, times: int) -> threading.Thread:
    """Send something again and again, until the other side has enough."""

    def send() -> None:
        with contextlib.suppress(OSError):
            for _ in range(times):
                peer.sendall(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("message", [ListRequests(id="x"), Ping()], ids=["questions", "pings"])
def test_a_flood_of_messages_keeps_nobody_from_being_answered(
    network: Network, message: Message
) -> None:
    before = memory_of(network)
    with initiator(network) as peer:
        thread = pour(peer, encode(message) * 1000, FLOOD // 1000)  # and reads no answer
        for _ in range(3):
            assert is_answered(network)
        assert memory_of(network) - before < 32 << 20
        peer.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_an_initiator_that_reads_gets_all_answers(network: Network) -> None:
    with initiator(network) as peer, peer.makefile("rb") as file:
        peer.sendall(encode(ListRequests(id="x")) * 250)
        answers = 0
        while answers < 250:
            answers += b"request-output" in file.readline()


def test_an_endless_line_ends_the_connection(network: Network) -> None:
    before = memory_of(network)
    with initiator(network) as peer:
        thread = pour(peer, b"x" * (1 << 20), 1024)
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the controller goes on reading"
    assert memory_of(network) - before < 32 << 20
    network.wait_for("controller", "127.0.0.1 refused: a line is longer than 1048576 bytes")
    assert is_answered(network)


def test_who_connects_again_and_again_keeps_nobody_out(network: Network) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    peers = []
    try:
        for _ in range(10_000):
            peers.append(connect(network))
        assert is_answered(network)
        files = Path(f"/proc/{network.processes['controller'].child.pid}/fd")
        # Long before they are let go for saying nothing.
        assert wait_until(lambda: len(list(files.iterdir())) < 200, 10)
    finally:
        for peer in peers:
            peer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert is_answered(network)


def test_who_does_not_read_what_is_said_is_let_go(networks: Callable[..., Network]) -> None:
    network = networks(peer_timeout="6")
    with initiator(network) as peer:
        pour(peer, b"x" * (1 << 16), 64)
        pid = network.processes["controller"].child.pid
        network.wait_for("controller", "a line is longer than")

        def is_gone() -> bool:
            links = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()
            port = f"{peer.getsockname()[1]:04X}"
            return not any(f":{port} " in link.split()[2] + " " for link in links)

        assert wait_until(is_gone, PATIENCE)


def test_builds_on_one_connection_are_few(network: Network) -> None:
    ref = network.world.definitions.head
    repo = str(network.world.definitions.path)
    requests: list[Any] = [
        BuildRequest(id=f"r-{number}", repo=repo, ref=ref, morphology=f"systems/{number}.morph")
        for number in range(200)
    ]
    before = len(network.builds())
    with initiator(network) as peer, peer.makefile("rb") as file:
        peer.sendall(b"".join(encode(each) for each in requests))
        refused = 0
        while refused < 150:
            refused += b"many builds on one connection" in file.readline()
        assert is_answered(network)
    assert len(network.builds()) - before <= 50
    # They are over when their initiator is gone.
    assert wait_until(
        lambda: "0 distbuild requests" in network.run("distbuild-list-jobs").out, PATIENCE
    )


# ---- Connections alone -----------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    make: Any = Clock
    clock = make()
    monkeypatch.setattr(connections, "reactor", clock)
    return clock


class Heard:
    """Counts the messages that it hears."""

    union: Any = Ping | ListRequests

    def __init__(self) -> None:
        self.number = 0

    def greeted(self, connection: Connection) -> None:
        self.connection = connection

    def heard(self, message: Any) -> None:
        self.number += 1

    def lost(self, reason: str) -> None:
        pass


def listener(role: Role) -> tuple[Heard, Peer]:
    heard = Heard()
    peer = Peer(Connection(Party(Role.CONTROLLER), {role: lambda hello: heard}))
    peer.say(Party(role).hello())
    return heard, peer


@pytest.mark.parametrize(("role", "most"), [(Role.WORKER, 10_000), (Role.INITIATOR, 100)])
def test_what_is_said_too_fast_is_heard_later(clock: Any, role: Role, most: int) -> None:
    heard, peer = listener(role)
    peer.send(encode(ListRequests(id="x")) * (2 * most + most // 2))
    assert most - 5 <= heard.number <= most
    assert peer.transport.producerState == "paused"
    for _ in range(3):
        clock.advance(1)
    assert heard.number == 2 * most + most // 2
    assert peer.transport.producerState == "producing"
    peer.say(ListRequests(id="x"))
    assert heard.number == 2 * most + most // 2 + 1


def test_who_does_not_read_answers_may_not_ask_on(clock: Any) -> None:
    heard, peer = listener(Role.INITIATOR)
    heard.connection.pauseProducing()
    peer.say(ListRequests(id="x"), ListRequests(id="y"))
    clock.advance(20)
    assert heard.number == 0
    heard.connection.resumeProducing()
    clock.advance(2)
    assert heard.number == 2
    # A worker is heard all the same: it may have ended what we wait for.
    heard, peer = listener(Role.WORKER)
    heard.connection.pauseProducing()
    peer.say(ListRequests(id="x"))
    assert heard.number == 1


def test_nothing_is_heard_after_the_end(clock: Any) -> None:
    heard, peer = listener(Role.INITIATOR)
    peer.send(encode(ListRequests(id="x")) * 150)
    heard.connection.close("enough")
    number = heard.number
    clock.advance(5)
    assert heard.number == number
    # Nor is it waited for ever that the other side takes what it was told.
    assert not peer.transport.disconnected
    clock.advance(6)
    assert peer.transport.disconnected


class Guest:
    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.end = ""

    def abort(self, reason: str) -> None:
        self.end = reason


def test_a_crowd_of_one_machine_keeps_no_other_out() -> None:
    room = Room()
    early = Guest("192.0.2.1")
    room.enter(early)
    crowd = [Guest("192.0.2.7") for _ in range(500)]
    for guest in crowd:
        room.enter(guest)
    late = Guest("192.0.2.2")
    room.enter(late)
    assert not early.end
    assert not late.end
    assert [bool(guest.end) for guest in crowd] == [True] * 402 + [False] * 98
    for guest in crowd[:402]:
        room.leave(guest)
    for guest in (early, late, *crowd[402:]):
        room.settle(guest)
    # Who has begun stays, until there are too many of those.
    guests = []
    for number in range(2500):
        guest = Guest(f"192.0.2.{number % 100}")
        room.enter(guest)
        if not guest.end:
            room.settle(guest)
            guests.append(guest)
        else:
            room.leave(guest)
    assert len(guests) + 98 + 2 == 2000
    assert not early.end
