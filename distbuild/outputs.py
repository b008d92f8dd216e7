"""What jobs print, kept for a while for those who are away: the newest of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

#: So much of a job's output is kept, in bytes.
MOST_KEPT = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """`offset` counts the bytes of the same job that went before, of both kinds."""

    offset: int
    out: bytes
    err: bytes

    @property
    def size(self) -> int:
        return len(self.out) + len(self.err)


@dataclass(slots=True)
class KeptOutput:
    """The newest pieces of one job's output, at most `most` bytes. `end`: how many bytes came."""

    most: int = MOST_KEPT
    end: int = 0
    _pieces: deque[Piece] = field(default_factory=deque)
    _size: int = 0

    def add(self, out: bytes, err: bytes) -> None:
        piece = Piece(self.end, out, err)
        self.end += piece.size
        self._size += piece.size
        self._pieces.append(piece)
        while self._size > self.most and len(self._pieces) > 1:
            self._size -= self._pieces.popleft().size

    def since(self, offset: int) -> Iterator[Piece]:
        """The pieces from an offset on, at which one begins, or from the first that is kept."""
        return (piece for piece in self._pieces if piece.offset >= offset)
