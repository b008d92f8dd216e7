"""The status page at a socket, within limits that those keep whom nobody has let in yet."""

from __future__ import annotations

import io
import socket
from typing import Any

from twisted.protocols.policies import WrappingFactory
from twisted.web.server import Request, Site

from distbuild.connection import reactor
from distbuild.status.overview import Watched
from distbuild.status.secure import Certificate
from distbuild.status.web import StatusPages

_MOST_CONNECTIONS = 256
_IDLE_SECONDS = 60.0


class _Nowhere(io.BytesIO):
    """Where bodies of requests go: nothing here reads any."""

    def write(self, data: Any) -> int:
        return len(data)


class _Request(Request):
    def gotLength(self, length: int | None) -> None:
        self.content = _Nowhere()


class _Limited(WrappingFactory[Any]):
    """Turns connections away while there are too many."""

    noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        return None if len(self.protocols) >= _MOST_CONNECTIONS else super().buildProtocol(addr)


def serve_status(
    listening: socket.socket, watched: Watched, token: bytes, certificate: Certificate | None
) -> None:
    """Show the pages at a socket that listens."""
    make_site: Any = Site
    site = make_site(StatusPages(watched, token), requestFactory=_Request, timeout=_IDLE_SECONDS)
    site.displayTracebacks = False
    limited: Any = _Limited
    site.noisy = False
    factory = limited(site)
    if certificate is not None:
        factory = certificate.secure(factory)
    listening.setblocking(False)
    reactor.adoptStreamPort(listening.fileno(), listening.family, factory)
    listening.close()  # the reactor has a copy
