"""When silence means that the other side of a connection is gone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`lost`: seconds of silence after which the other side counts as lost.

    Both sides of a connection have to have the same, or one gives signs of life too seldom.
    """

    lost: float = 60.0

    @property
    def ping(self) -> float:
        """Seconds between signs of life that are given: some of them may be late."""
        return self.lost / 6

    @property
    def connect(self) -> float:
        """Seconds for connecting."""
        return self.lost / 2

    @property
    def grace(self) -> float:
        """Seconds that a build goes on for an initiator that can't be heard any more."""
        return self.lost * 2

    @property
    def search(self) -> float:
        """Seconds that an initiator looks for a controller that can't be heard any more. No more
        than it has: of the two, the controller may have noticed first."""
        return self.grace * 0.9

    @property
    def handshake(self) -> float:
        """Seconds until both sides have to know who the other is."""
        return max(10.0, self.lost / 2)


USUAL = Heartbeat()
