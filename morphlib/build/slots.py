"""Which builders are at work: a few bytes of memory that all of them share.

Make jobs are shared among the chunks that build, and how many build changes all the time: a builder
looks here whenever it starts a command.
"""

from __future__ import annotations

import mmap


class BusySlots:
    """One byte a slot. Made before the builders are forked; reading and writing need no lock."""

    def __init__(self, count: int) -> None:
        self._bytes = mmap.mmap(-1, max(1, count))

    def set(self, slot: int, *, busy: bool) -> None:
        self._bytes[slot] = 1 if busy else 0

    def count(self) -> int:
        return sum(self._bytes[:])
