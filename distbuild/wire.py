"""A socket on which one thread hears while others speak, also where it speaks TLS.

OpenSSL lets only one thread at a time use a connection. So nothing here blocks inside of it:
threads wait for the socket beside it, and take turns.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

_T = TypeVar("_T")
_CHUNK = 1 << 16


class Wire:
    """`seconds`: how long the other side may be silent, or not take what it is sent.

    All methods raise OSError: TimeoutError after that time, ssl.SSLError for what TLS does not
    like.
    """

    def __init__(self, plain: socket.socket, seconds: float) -> None:
        self._socket = plain
        self._seconds = seconds
        self._turn = threading.Lock()
        self._speaking = threading.Lock()
        self._buffer = bytearray()
        plain.setblocking(False)

    @property
    def peer(self) -> str:
        """The address of the other side."""
        return str(self._socket.getpeername()[0])

    def start_tls(self, context: ssl.SSLContext, host: str, seconds: float) -> bytes:
        """Be a client of `host` from now on. Gives its certificate as DER."""
        secured = context.wrap_socket(
            self._socket, server_hostname=host, do_handshake_on_connect=False
        )
        self._socket = secured
        self._until_done(secured.do_handshake, select.POLLIN, seconds)
        return secured.getpeercert(binary_form=True) or b""

    def send(self, data: bytes) -> None:
        """All of it, and nothing of what other threads send in between."""
        rest = memoryview(data)
        with self._speaking:
            while rest:
                send = partial(self._socket.send, rest)
                rest = rest[self._until_done(send, select.POLLOUT, self._seconds) :]

    def read_line(self, limit: int) -> bytes | None:
        """The next line without its newline, None at the end.

        Raises ValueError for one longer than `limit` bytes.
        """
        looked = 0
        while (end := self._buffer.find(b"\n", looked)) < 0:
            looked = len(self._buffer)
            if looked > limit:
                raise ValueError(f"a line longer than {limit} bytes")
            data = self._until_done(lambda: self._socket.recv(_CHUNK), select.POLLIN, self._seconds)
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _until_done(self, action: Callable[[], _T], blocked_by: int, seconds: float) -> _T:
        deadline = time.monotonic() + seconds
        while True:
            try:
                with self._turn:
                    return action()
            except BlockingIOError:
                wanted = blocked_by
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            waiting = select.poll()
            try:
                waiting.register(self._socket, wanted)
            except ValueError:
                raise OSError("it was closed here") from None
            left = deadline - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                raise TimeoutError(f"silent for {seconds:.0f} seconds")

    def hang_up(self) -> None:
        """Let both sides hear that this is the end. Takes no locks, so that signal handlers may."""
        with contextlib.suppress(OSError):  # it was gone already
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was gone already
        self._socket.close()
