"""Parts of files as bodies of answers."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

BLOCK = 1 << 18  # bytes that are read and sent at once where sendfile can't be used


class FileBody:
    """A part of an open file as the body of an answer. The file is closed after it was sent."""

    def __init__(self, descriptor: int, offset: int, length: int) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.length = length

    def read(self, size: int = BLOCK) -> bytes:
        """The next bytes; nothing at the end of the part, or of a file that got shorter."""
        data = os.pread(self.descriptor, min(size, self.length), self.offset)
        self.offset += len(data)
        self.length -= len(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def send(self, sock: socket.socket) -> Iterator[int]:
        """Send by sendfile; gives the number of bytes after each call. Raises OSError."""
        timeout = sock.gettimeout()
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLOUT)
        while self.length > 0:
            try:
                sent = os.sendfile(sock.fileno(), self.descriptor, self.offset, self.length)
            except BlockingIOError:
                if not poll.poll(None if timeout is None else timeout * 1000):
                    raise TimeoutError("timed out") from None
                continue
            if sent == 0:
                return
            self.offset += sent
            self.length -= sent
            yield sent

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
