"""Connections to a server that can be cut off while other threads wait for them.

A thread that waits for a server can't be interrupted; its socket can be shut down. And no answer
takes longer to begin than it may, however small the pieces that it comes in.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection


class Sockets:
    """Those that are open. `cut` may be called by any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._is_cut = False

    def add(self, new: socket.socket) -> None:
        with self._guard:
            self._open.add(new)
            if self._is_cut:
                _shut_down(new)

    def cut(self) -> None:
        """Shut down all of them, and those that are added later as well."""
        with self._guard:
            self._is_cut = True
            for each in list(self._open):
                _shut_down(each)


def make_pool(
    sockets: Sockets, *, connections: int, connect: float, read: float, **more: Any
) -> PoolManager:
    """A pool of `connections` whose sockets are in `sockets`.

    Times are in seconds: `connect` for connecting and for sending a block, `read` until the headers
    of an answer begin (and as long again until they are there), and for each further piece.
    """

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

        def getresponse(self) -> Any:
            with _time_limit(self.sock, 2 * read):
                return super().getresponse()

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

        def getresponse(self) -> Any:
            with _time_limit(self.sock, 2 * read):
                return super().getresponse()

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    timeout = Timeout(connect=connect, read=read)
    pool = PoolManager(maxsize=connections, block=True, timeout=timeout, **more)
    pool.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return pool


@contextlib.contextmanager
def _time_limit(limited: socket.socket, seconds: float) -> Iterator[None]:
    """Raises TimeoutError if the block took too long."""
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        _shut_down(limited)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if is_over.is_set():
            raise TimeoutError(f"no answer in {seconds:.0f} seconds") from error
        raise
    finally:
        timer.cancel()
        timer.join()  # who forks must have no other thread


def _shut_down(each: socket.socket) -> None:
    # Not the method of an SSL socket, which would go on without encryption.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(each, socket.SHUT_RDWR)
