"""How long clients may take to say what they want."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Protocol

_log = logging.getLogger("morph.cacheserver")

_SLOWEST = 1024  # bytes a second, of bodies of requests


class Watched(Protocol):
    """A connection with a client."""

    socket: socket.socket
    remote_addr: str


class Watch:
    """Ends connections that take too long to say what they want, however often they send a byte."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._guard = threading.Lock()
        self._ends: dict[Watched, float] = {}

    def begin(self, connection: Watched, size: int = 0) -> None:
        """From now on it has the time that so many bytes may take, unless a time runs already."""
        with self._guard:
            end = time.monotonic() + self._seconds + size / _SLOWEST
            self._ends.setdefault(connection, end)

    def end(self, connection: Watched) -> None:
        with self._guard:
            self._ends.pop(connection, None)

    def look(self) -> None:
        """End those whose time is over."""
        with self._guard:
            now = time.monotonic()
            late = [each for each, end in self._ends.items() if end < now]
        for connection in late:
            _log.info("%s takes too long to ask for something", connection.remote_addr)
            try:
                # Not the method of an SSL socket, which would go on without encryption.
                socket.socket.shutdown(connection.socket, socket.SHUT_RD)
            except OSError:
                pass  # it is gone already
