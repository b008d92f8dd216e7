"""How fast the other side of a connection is listened to, and how many may be there.

Who says too much at a time is heard later: that costs builds nothing, and keeps a daemon listening
to the others.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from distbuild.messages import Role

#: A connection that says more bytes than this in a second is not read for the rest of it.
MOST_BYTES = 64 << 20
#: And so with messages: people ask little, and builds may print a lot.
_MOST_QUESTIONS, _MOST_MESSAGES = 100, 10_000

#: Connections at one port whose handshake is not over, and all of them.
MOST_BEGINNING, MOST_CONNECTIONS = 100, 2000


class Pace:
    """What a connection said in this second. Times are seconds of any clock."""

    def __init__(self) -> None:
        self._most = _MOST_QUESTIONS
        self._second = 0
        self._bytes = self._messages = 0

    def suit(self, role: Role) -> None:
        """Now it is known who speaks."""
        self._most = _MOST_QUESTIONS if role is Role.INITIATOR else _MOST_MESSAGES

    def _begin_second(self, now: float) -> None:
        if int(now) != self._second:
            self._second = int(now)
            self._bytes = self._messages = 0

    def count_bytes(self, now: float, number: int) -> bool:
        """Whether that is still no more than may be."""
        self._begin_second(now)
        self._bytes += number
        return self._bytes <= MOST_BYTES

    def take_message(self, now: float) -> bool:
        """Whether one more message may be heard now; if so it is counted."""
        self._begin_second(now)
        if self._messages >= self._most:
            return False
        self._messages += 1
        return True

    @staticmethod
    def rest(now: float) -> float:
        """Seconds until the second is over."""
        return int(now) + 1 - now


class Visitor(Protocol):
    peer: str

    def abort(self, reason: str) -> None: ...


class Room:
    """The connections at one port. Where too many begin at once, the oldest ones of the machine
    that has the most are ended, so that others get through."""

    def __init__(self) -> None:
        self._beginning: dict[str, deque[Visitor]] = {}
        self._number = self._waiting = 0

    def enter(self, visitor: Visitor) -> None:
        self._number += 1
        self._waiting += 1
        self._beginning.setdefault(visitor.peer, deque()).append(visitor)
        if self._waiting > MOST_BEGINNING or self._number > MOST_CONNECTIONS:
            oldest = max(self._beginning.values(), key=len)[0]
            self.settle(oldest)
            oldest.abort("too many connections at once")

    def settle(self, visitor: Visitor) -> None:
        """Its handshake is over, or it is gone before that."""
        waiting = self._beginning.get(visitor.peer)
        if waiting is not None and visitor in waiting:
            self._waiting -= 1
            waiting.remove(visitor)
            if not waiting:
                del self._beginning[visitor.peer]

    def leave(self, visitor: Visitor) -> None:
        self.settle(visitor)
        self._number -= 1
