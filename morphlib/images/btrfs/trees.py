"""Reading B-trees: only what has the right checksum and is in order gets out of here."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from morphlib.images.btrfs.layout import (
    CHUNK_ITEM,
    CHUNK_TREE,
    FIRST_CHUNK,
    HEADER_SIZE,
    ITEM,
    KEY_PTR,
    ROOT_ITEM,
    ROOT_TREE,
    Child,
    Header,
    Key,
    is_whole,
)
from morphlib.images.btrfs.roots import RootItem
from morphlib.images.btrfs.superblock import Chunk
from morphlib.images.btrfs.volume import Volume, understanding

FIRST_KEY = Key(0, 0, 0)
LAST_KEY = Key((1 << 64) - 1, 255, (1 << 64) - 1)
_MAX_LEVEL = 7
_CACHED_BYTES = 32 << 20

Data = bytes | memoryview
Item = tuple[Key, Data]


@dataclass(frozen=True, slots=True)
class TreeRoot:
    """Where a tree begins: its topmost block, which has this level and generation."""

    owner: int
    bytenr: int
    level: int
    generation: int


@dataclass(frozen=True, slots=True)
class Node:
    """A block of a tree: items in a leaf, children above."""

    owner: int
    level: int
    generation: int
    keys: list[Key]
    items: list[Data]
    children: list[Child]


def parse_node(block: bytes) -> tuple[Header, Node]:
    """Raises ValueError if it makes no sense."""
    header = Header.unpack(block)
    view = memoryview(block)
    entry = KEY_PTR if header.level else ITEM
    front = HEADER_SIZE + header.nritems * entry.size
    if front > len(block):
        raise ValueError("it has too many items")
    entries = list(entry.iter_unpack(view[HEADER_SIZE:front]))
    keys = [Key._make(each[:3]) for each in entries]
    if any(one >= two for one, two in pairwise(keys)):
        raise ValueError("its items are not in order")
    children: list[Child] = []
    items: list[Data] = []
    if header.level:
        children = [Child(key, at[3], at[4]) for key, at in zip(keys, entries, strict=True)]
    else:
        for _, _, _, start, size in entries:
            start += HEADER_SIZE
            if start < front or start + size > len(block):
                raise ValueError("an item reaches out of it")
            items.append(view[start : start + size])
    return header, Node(header.owner, header.level, header.generation, keys, items, children)


class Trees:
    """All trees of a volume, found through the root tree. Everything raises MorphError."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self._cache: OrderedDict[int, Node] = OrderedDict()
        #: Blocks that are not on the disk yet, by address.
        self.fresh: dict[int, Node] = {}
        found = volume.superblock
        self._cached = max(16, _CACHED_BYTES // found.node_size)
        chunks = TreeRoot(
            *(CHUNK_TREE, found.chunk_root, found.chunk_root_level, found.chunk_root_generation)
        )
        first, last = Key(FIRST_CHUNK, CHUNK_ITEM, 0), Key(FIRST_CHUNK, CHUNK_ITEM, LAST_KEY.offset)
        self.chunk_root = chunks
        for key, data in self.items(chunks, first, last):
            with understanding(self.volume, key):
                chunk = Chunk.unpack(data)
            volume.add_chunk(key.offset, chunk)
        self.root = TreeRoot(ROOT_TREE, found.root, found.root_level, found.generation)

    def root_item(self, tree: int) -> tuple[Key, RootItem] | None:
        """The root item of a tree, and its key; None if there is no such tree."""
        first, last = Key(tree, ROOT_ITEM, 0), Key(tree, ROOT_ITEM, LAST_KEY.offset)
        for key, data in self.items(self.root, first, last):
            with understanding(self.volume, key):
                return key, RootItem.unpack(data)
        return None

    def tree(self, tree: int) -> TreeRoot | None:
        found = self.root_item(tree)
        if found is None:
            return None
        item = found[1]
        return TreeRoot(tree, item.bytenr, item.level, item.generation)

    def node(self, bytenr: int, level: int, generation: int) -> Node:
        """A block, from whichever copy is whole."""
        fresh = self.fresh.get(bytenr)
        if fresh is not None:
            return fresh
        node = self._cache.get(bytenr)
        if node is not None and (node.level, node.generation) == (level, generation):
            self._cache.move_to_end(bytenr)
            return node
        if level > _MAX_LEVEL:
            raise self.volume.damaged(f"a tree at {bytenr} is too high")
        node = self._read(bytenr, level, generation)
        self._cache[bytenr] = node
        if len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return node

    def _read(self, bytenr: int, level: int, generation: int) -> Node:
        size = self.volume.superblock.node_size
        why = "its checksum is wrong"
        for place in self.volume.places(bytenr, size):
            block = self.volume.pread(place, size)
            if len(block) < size or not is_whole(block):
                continue
            try:
                header, node = parse_node(block)
            except ValueError as error:
                why = str(error)
                continue
            if header.fsid != self.volume.superblock.fsid or header.bytenr != bytenr:
                why = "it belongs elsewhere"
            elif header.level != level or header.generation != generation:
                why = "it is an old one"
            elif level and not node.children:
                why = "it is empty"
            else:
                return node
        raise self.volume.damaged(f"the block of a tree at {bytenr} can't be used: {why}")

    def items(self, root: TreeRoot, first: Key = FIRST_KEY, last: Key = LAST_KEY) -> Iterator[Item]:
        """The items of a tree from `first` to `last`, both included, in order."""
        yield from self._items(root.bytenr, root.level, root.generation, None, first, last)

    def _items(
        self, bytenr: int, level: int, generation: int, key: Key | None, first: Key, last: Key
    ) -> Iterator[Item]:
        node = self.node(bytenr, level, generation)
        if key is not None and (not node.keys or node.keys[0] != key):
            # Which keeps any tree finite, as keys grow all the way through it.
            raise self.volume.damaged(f"the block of a tree at {bytenr} has another first key")
        if not level:
            for index in range(bisect_left(node.keys, first), bisect_right(node.keys, last)):
                yield node.keys[index], node.items[index]
            return
        begin = max(0, bisect_right(node.keys, first) - 1)
        for child in node.children[begin:]:
            if child.key > last:
                return
            yield from self._items(
                *(child.blockptr, level - 1, child.generation, child.key, first, last)
            )

    def last_until(self, root: TreeRoot, key: Key) -> Item | None:
        """The last item that is not after `key`."""
        bytenr, generation = root.bytenr, root.generation
        for level in range(root.level, -1, -1):
            node = self.node(bytenr, level, generation)
            index = bisect_right(node.keys, key) - 1
            if index < 0:
                return None
            if not level:
                return node.keys[index], node.items[index]
            bytenr, generation = node.children[index].blockptr, node.children[index].generation
        return None


class ItemSource(Protocol):
    """A tree, as it is on the disk or with changes."""

    def items(self, first: Key, last: Key) -> Iterator[Item]:
        """Those from `first` to `last`, both included, in order."""
        ...


@dataclass(frozen=True, slots=True)
class StoredTree:
    """A tree as it is on the disk."""

    trees: Trees
    root: TreeRoot

    def items(self, first: Key = FIRST_KEY, last: Key = LAST_KEY) -> Iterator[Item]:
        return self.trees.items(self.root, first, last)


def find(tree: ItemSource, key: Key) -> Data | None:
    """The data of the item with this key."""
    for _, data in tree.items(key, key):
        return data
    return None


def items_of(tree: ItemSource, objectid: int, kind: int) -> Iterator[Item]:
    """All items of one type that one object has."""
    return tree.items(Key(objectid, kind, 0), Key(objectid, kind, LAST_KEY.offset))
