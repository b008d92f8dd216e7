"""Packing items into the leaves of B-trees, and leaves below nodes, from the bottom up.

How many blocks a tree has is known before any address is: so all space can be planned first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from morphlib.images.btrfs.layout import HEADER_SIZE, ITEM, KEY_PTR, Block, Child, Key

#: An item with its key: objectid, type, offset, content.
Item = tuple[int, int, int, bytes]


class Leaf(NamedTuple):
    """The content of a leaf; see `Block.leaf`."""

    first: Key
    items: bytes
    nritems: int
    contents: bytes


def largest_item(node_size: int) -> int:
    """How many bytes an item can have at most."""
    return node_size - HEADER_SIZE - ITEM.size


class LeafPacker:
    """Takes items in the order of their keys, and fills leaves with them."""

    def __init__(self, node_size: int) -> None:
        self._size = node_size - HEADER_SIZE
        self._room = self._end = self._size
        self._heads: list[bytes] = []
        self._contents: list[bytes] = []
        self._first = Key(0, 0, 0)
        self._leaves: list[Leaf] = []

    def add(self, objectid: int, kind: int, offset: int, content: bytes) -> None:
        """`content` must not be larger than `largest_item`."""
        size = len(content)
        if self._room < size + 25:
            self._close()
        if not self._heads:
            self._first = Key(objectid, kind, offset)
        self._room -= size + 25
        self._end -= size
        self._heads.append(ITEM.pack(objectid, kind, offset, self._end, size))
        self._contents.append(content)

    def _close(self) -> None:
        self._contents.reverse()
        heads, contents = b"".join(self._heads), b"".join(self._contents)
        self._leaves.append(Leaf(self._first, heads, len(self._heads), contents))
        self._heads, self._contents = [], []
        self._room = self._end = self._size

    def finish(self) -> list[Leaf]:
        """All leaves: one at least, for an empty tree has one that is empty."""
        if self._heads or not self._leaves:
            self._close()
        return self._leaves


def pack(items: Iterable[Item], node_size: int) -> list[Leaf]:
    packer = LeafPacker(node_size)
    for objectid, kind, offset, content in items:
        packer.add(objectid, kind, offset, content)
    return packer.finish()


class Placed(NamedTuple):
    """A block of a tree that has its address, and the trees that refer to it."""

    bytenr: int
    level: int
    owners: tuple[int, ...]


@dataclass(slots=True)
class Tree:
    """A tree of these leaves, and snapshots of it: trees that share all but the root block."""

    owner: int
    leaves: list[Leaf]
    node_size: int
    snapshots: tuple[int, ...] = ()
    #: Addresses, by level from the leaves up; roots of snapshots come after the root.
    places: list[list[int]] = field(default_factory=list)

    @property
    def sizes(self) -> list[int]:
        """How many blocks there are on each level, without roots of snapshots."""
        fanout = (self.node_size - HEADER_SIZE) // KEY_PTR.size
        found = [len(self.leaves)]
        while found[-1] > 1:
            found.append(-(-found[-1] // fanout))
        return found

    @property
    def level(self) -> int:
        return len(self.sizes) - 1

    @property
    def count(self) -> int:
        """How many blocks there are, with roots of snapshots."""
        return sum(self.sizes) + len(self.snapshots)

    def place(self, addresses: Iterator[int]) -> None:
        """Give each block its address."""
        self.places = [[next(addresses) for _ in range(count)] for count in self.sizes]
        self.places[-1] += [next(addresses) for _ in self.snapshots]

    def root(self, owner: int | None = None) -> int:
        """The address of the root of the tree or of one of its snapshots."""
        roots = (self.owner, *self.snapshots)
        return self.places[-1][roots.index(self.owner if owner is None else owner)]

    def placed(self) -> Iterator[Placed]:
        """All blocks, with the trees that refer to each."""
        top = self.level
        everyone = (self.owner, *self.snapshots)
        for level, addresses in enumerate(self.places):
            for number, bytenr in enumerate(addresses):
                if level == top:
                    yield Placed(bytenr, level, (everyone[number],))
                else:
                    yield Placed(bytenr, level, everyone if level == top - 1 else (self.owner,))

    def blocks(self, make: Block) -> Iterator[tuple[int, bytes]]:
        """The bytes of all blocks, with the address of each."""
        owners = (self.owner, *self.snapshots)
        alone = self.owner if self.level else None
        for number, bytenr in enumerate(self.places[0]):
            owner = alone if alone is not None else owners[number]
            leaf = self.leaves[number if alone is not None else 0]
            yield bytenr, make.leaf(bytenr, owner, leaf.items, leaf.nritems, leaf.contents)
        below = [
            Child(leaf.first, at, make.generation)
            for leaf, at in zip(self.leaves, self.places[0], strict=False)
        ]
        fanout = (self.node_size - HEADER_SIZE) // KEY_PTR.size
        for level, count in enumerate(self.sizes[1:], start=1):
            groups = [below[number * fanout : (number + 1) * fanout] for number in range(count)]
            places = self.places[level]
            for group, at in zip(groups, places, strict=False):
                yield at, make.node(at, self.owner, level, group)
            if level == self.level:
                for owner, at in zip(self.snapshots, places[1:], strict=True):
                    yield at, make.node(at, owner, level, groups[0])
            below = [
                Child(group[0].key, at, make.generation)
                for group, at in zip(groups, places, strict=False)
            ]
