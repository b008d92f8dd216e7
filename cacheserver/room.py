"""Memory for answers that are held until clients took them: so much for all at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator


class BusyError(Exception):
    """There is no room left now; a moment later there may be."""


class Room:
    """So many bytes, which threads share."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._guard = threading.Lock()

    def hold(self) -> Held:
        return Held(self)

    def take(self, size: int) -> None:
        with self._guard:
            if size > self._left:
                raise BusyError
            self._left -= size

    def give_back(self, size: int) -> None:
        with self._guard:
            self._left += size


class Held:
    """What one answer takes of a room, until it is closed."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    def take(self, size: int) -> None:
        """Raises BusyError."""
        self._room.take(size)
        self._size += size

    def close(self) -> None:
        self._room.give_back(self._size)
        self._size = 0

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HeldBody:
    """The body of an answer, which gives back its room when it was sent, or nobody wants it."""

    def __init__(self, body: bytes, held: Held) -> None:
        self.length = len(body)
        self._body = body
        self._held = held

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        self._held.close()
