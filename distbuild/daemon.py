"""What daemons have in common: the reactor, the log, listening."""

from __future__ import annotations

import logging
import resource
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, formatEvent, globalLogBeginner

from distbuild.connection import Connection, Speaker, reactor
from distbuild.handshake import Party
from distbuild.messages import Hello, Role
from distbuild.pacing import Room

_log = logging.getLogger("morph.distbuild")

Speakers = Mapping[Role, Callable[[Hello], Speaker]]


class ConnectionFactory(Factory):
    """Makes a `Connection` for each that connects here, or that we connect to."""

    noisy = False

    def __init__(self, party: Party, speakers: Speakers, *, is_client: bool) -> None:
        self._party = party
        self._is_client = is_client
        self._room = Room()
        self._speakers = dict(speakers)

    def buildProtocol(self, addr: Any) -> Connection:
        return Connection(self._party, self._speakers, is_client=self._is_client, room=self._room)


def make_factory(party: Party, speakers: Speakers, host: str | None) -> Any:
    """One for connections to a host, or without one for those that come from others."""
    factory = ConnectionFactory(party, speakers, is_client=host is not None)
    if party.identity is None:
        return factory
    from distbuild.tls import secure

    return secure(factory, party.identity, host)


def accept_at(listening: socket.socket, party: Party, speakers: Speakers) -> None:
    """Let the roles in `speakers` connect to a socket that listens."""
    listening.setblocking(False)
    factory = make_factory(party, speakers, None)
    reactor.adoptStreamPort(listening.fileno(), listening.family, factory)
    listening.close()  # the reactor has a copy


def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what waits in a thread of the reactor's pool. Gives a Deferred."""
    return deferToThread(function, *arguments)


def run() -> None:
    """Run until SIGTERM or SIGINT comes."""
    _allow_many_files()
    observers: list[Any] = [observe]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)
    reactor.run()


def _allow_many_files() -> None:
    """As many connections as the machine lets us have: each is a file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def observe(event: Any) -> None:
    """What Twisted logs, of which errors matter: those that nobody caught."""
    level = event.get("log_level")
    failure = event.get("log_failure")
    if failure is not None:
        _log.critical("internal error\n%s", failure.getTraceback())
    elif level is not None and level >= LogLevel.error:
        _log.error("%s", formatEvent(event))
