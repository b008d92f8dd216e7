"""Block groups of a filesystem, and runs of addresses in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from morphlib.images.btrfs.layout import STRIPE_LEN
from morphlib.images.btrfs.superblock import MIRRORS, Chunk

Run = tuple[int, int]  # start and end


@dataclass(slots=True)
class Group:
    """A block group with its chunk. Runs are of logical addresses."""

    start: int
    chunk: Chunk
    used: int
    flags: int
    before: list[Run] = field(default_factory=list)  # free on the disk
    is_new: bool = False

    @property
    def end(self) -> int:
        return self.start + self.chunk.length

    def usable(self) -> list[Run]:
        """What is free on the disk, and no place of a superblock."""
        banned: list[Run] = [(0, MIRRORS[0])] if self.start < MIRRORS[0] else []
        for stripe in self.chunk.stripes:
            for mirror in MIRRORS:
                if stripe.offset - STRIPE_LEN < mirror < stripe.offset + self.chunk.length:
                    at = self.start + mirror - stripe.offset
                    banned.append((at, at + STRIPE_LEN))
        return subtract(self.before, banned)


def subtract(runs: Iterable[Run], taken: Iterable[Run]) -> list[Run]:
    """What is in `runs` and not in `taken`. Both may be in any order; the result is sorted."""
    marks: list[tuple[int, int]] = []
    for start, end in runs:
        marks += [(start, 1), (end, -1)]
    for start, end in taken:
        marks += [(start, -2), (end, 2)]
    marks.sort()
    found: list[Run] = []
    depth, begun = 0, 0
    for at, change in marks:
        was = depth > 0
        depth += change
        if not was and depth > 0:
            begun = at
        elif was and depth <= 0 and at > begun:
            if found and found[-1][1] == begun:
                found[-1] = (found[-1][0], at)
            else:
                found.append((begun, at))
    return found


def add(runs: Iterable[Run], more: Iterable[Run]) -> list[Run]:
    """All of both, put together where they meet."""
    found: list[Run] = []
    for start, end in sorted([*runs, *more]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif start < end:
            found.append((start, end))
    return found
