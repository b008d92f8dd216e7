"""Reading what a program writes on several pipes at once, line by line.

What is read are bytes of somebody else's making: any bytes, in lines of any length.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable, Collection, Mapping

#: A longer line is told in pieces: programs that write no newline must not fill our memory.
LONGEST = 1 << 16
_PIECE = 1 << 16
#: Seconds in which what a program wrote before its end arrives.
MOMENT = 1.0

Take = Callable[[str], None]


class Lines:
    """Cuts a stream into lines. What a carriage return overwrites is left out, as on a terminal."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tell(line)
        while len(self._rest) > LONGEST:
            self._tell(self._rest[:LONGEST])
            self._rest = self._rest[LONGEST:]

    def finish(self) -> None:
        """Tell a last line that no newline ended."""
        rest, self._rest = self._rest, b""
        if rest:
            self._tell(rest)

    def _tell(self, line: bytes) -> None:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        self._take(shown.decode("utf-8", "backslashreplace"))


def drain(
    takers: Mapping[int, Take],
    *,
    ended: int,
    brief: Collection[int] = (),
    lingers: Callable[[], None] = lambda: None,
) -> None:
    """Read from descriptors until all of them are at their end, whichever has something to say.

    `ended` is a descriptor that can be read from when the program has ended (a pidfd). From then on
    those in `brief` have `MOMENT` seconds: what a program leaves behind may hold them open for
    ever. If others are open after that time `lingers` is called, once, and they are waited for.
    """
    with selectors.DefaultSelector() as selector:
        for fd, take in takers.items():
            selector.register(fd, selectors.EVENT_READ, Lines(take))
        selector.register(ended, selectors.EVENT_READ)
        left = set(takers)
        deadline: float | None = None
        while left:
            timeout = None if deadline is None else max(0, deadline - time.monotonic())
            for key, _ in selector.select(timeout):
                if key.fd == ended:
                    selector.unregister(ended)
                    deadline = time.monotonic() + MOMENT
                elif not _read(key):
                    selector.unregister(key.fd)
                    left.remove(key.fd)
            if deadline is not None and time.monotonic() >= deadline:
                for fd in left.intersection(brief):
                    selector.unregister(fd).data.finish()
                    left.remove(fd)
                deadline = None
                if left:
                    lingers()


def _read(key: selectors.SelectorKey) -> bool:
    """Take what there is to be read. False if that was the end."""
    data = os.read(key.fd, _PIECE)
    lines: Lines = key.data
    if data:
        lines.feed(data)
    else:
        lines.finish()
    return bool(data)


class Tail:
    """Remembers lines, of very many the last ones."""

    def __init__(self, most: int) -> None:
        self._most = most  # characters
        self._lines: list[str] = []
        self._size = 0
        self._dropped = 0

    def add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line) + 1
        while self._size > self._most and len(self._lines) > 1:
            self._size -= len(self._lines.pop(0)) + 1
            self._dropped += 1

    def __str__(self) -> str:
        dropped = [f"... ({self._dropped} lines before)"] if self._dropped else []
        return "\n".join([*dropped, *self._lines])
