"""Where on the disk chunks are, and where in them data and blocks of trees go.

Logical addresses are those of the first copy on the disk. After what is reserved at the start come
the chunks: first that of the chunk tree, then those of data, then those of the other trees. No
extent and no block lies where a superblock is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from morphlib.images.btrfs.layout import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_DUP,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_SYSTEM,
    MAX_EXTENT,
    STRIPE_LEN,
)
from morphlib.images.btrfs.superblock import MIRRORS

_MIB = 1 << 20
_LARGEST_CHUNK = 1 << 30  # as kernels make them
_SPARE = 256 * _MIB
_RESERVE = 640  # blocks without which kernels change nothing, for fear of not getting through


class Group(NamedTuple):
    """A chunk and its block group: `length` bytes at `start`, copied one after another."""

    start: int
    length: int
    flags: int
    copies: int

    @property
    def end(self) -> int:
        """Of logical addresses."""
        return self.start + self.length

    @property
    def places(self) -> tuple[int, ...]:
        """Of the copies on the disk."""
        return tuple(self.start + number * self.length for number in range(self.copies))

    @property
    def disk_end(self) -> int:
        return self.start + self.copies * self.length

    def usable(self) -> Iterator[tuple[int, int]]:
        """Starts and ends of what no superblock lies in, in any copy."""
        at = self.start
        for taken in sorted(
            self.start + mirror - place
            for mirror in MIRRORS
            for place in self.places
            if place <= mirror < place + self.length
        ):
            if at < taken:
                yield at, taken
            at = max(at, taken + STRIPE_LEN)
        if at < self.end:
            yield at, self.end

    def free(self, used: int) -> list[tuple[int, int]]:
        """Starts and lengths of what is free when the first `used` bytes are in use."""
        found = []
        free = self.start
        for start, end in self.usable():
            taken = min(used, end - start)
            used -= taken
            if taken:
                found.append((free, start - free))
                free = start + taken
        found.append((free, self.end - free))
        return [(start, length) for start, length in found if length]

    def room(self) -> int:
        """How much can be used."""
        return sum(end - start for start, end in self.usable())

    def addresses(self, step: int) -> Iterator[int]:
        """Where blocks of `step` bytes can be."""
        for start, end in self.usable():
            yield from range(start, end - step + 1, step)


class DataSpace:
    """Gives addresses for data, one after another, and makes chunks for them."""

    def __init__(self, start: int) -> None:
        self._start = self._at = start
        self._used: list[int] = []

    def take(self, length: int) -> list[tuple[int, int]]:
        """Addresses and lengths of extents for `length` bytes, a multiple of the sector size."""
        found = []
        while length:
            room = self._room()
            size = min(length, room, MAX_EXTENT)
            found.append((self._at, size))
            self._used[-1] += size
            self._at += size
            length -= size
        return found

    def _room(self) -> int:
        """How much is left here up to the next end of a chunk or superblock."""
        while self._at in MIRRORS:
            self._at += STRIPE_LEN
        number = (self._at - self._start) // _LARGEST_CHUNK
        while len(self._used) <= number:
            self._used.append(0)
        end = self._start + (number + 1) * _LARGEST_CHUNK
        return min(end, *(mirror for mirror in MIRRORS if mirror > self._at), end) - self._at

    def groups(self) -> list[tuple[Group, int]]:
        """The chunks, with how much of each is in use."""
        found = []
        for number, used in enumerate(self._used):
            start = self._start + number * _LARGEST_CHUNK
            length = min(_round_up(self._at - start), _LARGEST_CHUNK)
            found.append((Group(start, length, BLOCK_GROUP_DATA, 1), used))
        return found

    @property
    def end(self) -> int:
        groups = self.groups()
        return groups[-1][0].end if groups else self._start


@dataclass(frozen=True, slots=True)
class Profile:
    """What is chosen for blocks of trees."""

    node_size: int
    copies: int

    @property
    def system(self) -> Group:
        """The chunk for the chunk tree, with room for kernels to work in."""
        length = max(2 * _MIB, 64 * self.node_size)
        return Group(_MIB, length, BLOCK_GROUP_SYSTEM | self._dup, self.copies)

    @property
    def _dup(self) -> int:
        return BLOCK_GROUP_DUP if self.copies == 2 else 0

    def metadata(self, start: int, blocks: int, room: int | None) -> list[Group]:
        """Chunks for `blocks` blocks of trees, with the little more that kernels need.

        Where the disk has it (`room` bytes from `start`), there is more.
        """
        per_chunk = (_LARGEST_CHUNK - self._superblocks) // self.node_size
        flags = BLOCK_GROUP_METADATA | self._dup
        groups = []
        at = start
        while blocks > per_chunk:
            groups.append(Group(at, _LARGEST_CHUNK, flags, self.copies))
            at, blocks = groups[-1].disk_end, blocks - per_chunk
        needed = blocks * self.node_size
        spare = needed // 8 + _RESERVE * self.node_size
        length = _round_up(needed + spare + self._superblocks)
        if room is not None:
            rest = max(start + room - at - length * self.copies, 0)
            length += min(_SPARE, rest // (8 * self.copies)) // _MIB * _MIB
        groups.append(Group(at, length, flags, self.copies))
        return groups

    @property
    def _superblocks(self) -> int:
        return len(MIRRORS) * self.copies * STRIPE_LEN


def _round_up(size: int) -> int:
    return -(-size // _MIB) * _MIB
