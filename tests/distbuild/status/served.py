"""Serves the pages of a game in which one step says much, and listens to nobody's patience.

It prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import logging
import socket
import sys

from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall

from distbuild.connection import reactor
from distbuild.status import streams
from distbuild.status.serving import serve_status
from tests.distbuild.status.game import Game, source

#: Far more than fits into the buffers of a connection that are set here.
SPOKEN, BUFFER = 200_000, 16_384


class _UntilEnd(Protocol):
    def connectionLost(self, reason: object = None) -> None:
        reactor.stop()


def main() -> None:
    logging.basicConfig(stream=sys.stderr)
    streams.SLOW_SECONDS = 3.0
    game = Game(["w0"])
    game.join("w0")
    game.ask(source("a"))
    job, line = game.jobs["a"], b"x" * 99 + b"\n"
    LoopingCall(lambda: game.history.logs.add(job, line * (SPOKEN // 100))).start(1.0)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    print(listening.getsockname()[1], flush=True)
    serve_status(listening, game.watched, b"", None)
    StandardIO(_UntilEnd())  # type: ignore[no-untyped-call]  # Twisted gives it no types
    reactor.run()


if __name__ == "__main__":
    main()
