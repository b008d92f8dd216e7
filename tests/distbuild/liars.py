"""Parties that lie, on sockets of their own: their words are good, and what they say is not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from distbuild.framing import encode
from distbuild.handshake import Party
from distbuild.messages import Message, Role
from tests.distbuild.network import PATIENCE

Say = Callable[[Message], None]


@contextmanager
def daemon(role: Role, hear: Callable[[dict[str, Any], Say], None]) -> Iterator[int]:
    """The port of a daemon. `hear` is called with each message that it gets, the hello first."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        is_over = threading.Event()

        def serve() -> None:
            while not is_over.is_set():
                with contextlib.suppress(TimeoutError):
                    peer, _ = listening.accept()
                    threading.Thread(target=talk, args=[peer], daemon=True).start()

        def talk(peer: socket.socket) -> None:
            with contextlib.suppress(OSError), peer, peer.makefile("rb") as lines:
                peer.settimeout(PATIENCE)
                peer.sendall(encode(Party(role).hello()))
                for line in lines:
                    hear(msgspec.json.decode(line), lambda said: peer.sendall(encode(said)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            is_over.set()
            thread.join()


@contextmanager
def controller(*lies: Message) -> Iterator[int]:
    """The port of a controller that answers any request with the same messages."""

    def hear(message: dict[str, Any], say: Say) -> None:
        if message["type"] not in ("hello", "ping"):
            for lie in lies:
                say(lie)

    with daemon(Role.CONTROLLER, hear) as port:
        yield port


@contextmanager
def worker(offer: Message, answers: Callable[[str], Sequence[Message]]) -> Iterator[int]:
    """The port of a worker. `answers` tells what it says of a job that it is given."""

    def hear(message: dict[str, Any], say: Say) -> None:
        if message["type"] == "hello":
            say(offer)
        elif message["type"] == "run-step":
            time.sleep(0.1)
            for answer in answers(message["job"]):
                say(answer)

    with daemon(Role.WORKER, hear) as port:
        yield port
