"""Who uses the extents of a filesystem: read from its extent tree, changed, and made items again.

The rules are the kernel's. What a block refers to counts for the tree that owns the block, until
that tree has it no more while others do: from then on it counts for the block (FULL_BACKREF).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from morphlib.images.btrfs.extents import (
    EXTENT_FULL_BACKREF,
    EXTENT_IS_DATA,
    EXTENT_IS_TREE_BLOCK,
    Extent,
    Reference,
)
from morphlib.images.btrfs.inodes import EXTENT_INLINE, FileExtent
from morphlib.images.btrfs.layout import (
    EXTENT_DATA,
    EXTENT_DATA_REF,
    EXTENT_ITEM,
    HEADER_SIZE,
    ITEM,
    METADATA_ITEM,
    SHARED_BLOCK_REF,
    SHARED_DATA_REF,
    TREE_BLOCK_REF,
    Key,
    data_ref_hash,
)
from morphlib.images.btrfs.trees import LAST_KEY, Data, Node, StoredTree
from morphlib.images.btrfs.volume import Volume, understanding

_REFERENCES = frozenset({TREE_BLOCK_REF, EXTENT_DATA_REF, SHARED_BLOCK_REF, SHARED_DATA_REF})
#: A reference without its count: type, tree or parent, inode, place in the file.
User = tuple[int, int, int, int]


def tree_user(tree: int) -> User:
    return (TREE_BLOCK_REF, tree, 0, 0)


@dataclass(slots=True)
class Use:
    """An extent with its users. `level` is None for data."""

    bytenr: int
    length: int
    level: int | None
    generation: int
    flags: int
    users: dict[User, int] = field(default_factory=dict)
    #: its items as they are on the disk
    before: dict[Key, bytes] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.users.values())

    @property
    def is_full(self) -> bool:
        return bool(self.flags & EXTENT_FULL_BACKREF)

    def items(self, node_size: int) -> Iterator[tuple[Key, Data]]:
        """Its items now: none if nobody uses it."""
        if not self.users:
            return
        room = ((node_size - HEADER_SIZE) >> 4) - ITEM.size - 24
        inline: list[Reference] = []
        alone: list[Reference] = []
        for each in sorted(self.users.items(), key=_order):
            reference = Reference(*each[0], each[1])
            size = len(reference.pack())
            (inline if size <= room else alone).append(reference)
            room = room - size if size <= room else 0
        head = Extent(self.count, self.generation, self.flags, tuple(inline))
        if self.level is None:
            yield Key(self.bytenr, EXTENT_ITEM, self.length), head.pack()
        else:
            yield Key(self.bytenr, METADATA_ITEM, self.level), head.pack()
        taken: set[Key] = set()
        for reference in alone:
            key = Key(self.bytenr, reference.type, _sequence(reference))
            while key in taken:  # two with the same hash
                key = key._replace(offset=key.offset + 1)
            taken.add(key)
            yield key, reference.pack_alone()


def _sequence(reference: Reference) -> int:
    if reference.type == EXTENT_DATA_REF:
        return data_ref_hash(reference.offset, reference.objectid, reference.file_offset)
    return reference.offset


def _order(each: tuple[User, int]) -> tuple[int, int]:
    return each[0][0], -_sequence(Reference(*each[0]))


class References:
    """All extents whose users change. Everything raises MorphError."""

    def __init__(self, volume: Volume, extents: StoredTree, generation: int) -> None:
        self._volume = volume
        self._extents = extents
        self._generation = generation
        self.uses: dict[int, Use] = {}
        self._stored: dict[int, Use] = {}

    def add_block(self, bytenr: int, level: int, tree: int) -> None:
        """A new block of a tree."""
        self.uses[bytenr] = Use(
            *(bytenr, self._volume.superblock.node_size, level, self._generation),
            flags=EXTENT_IS_TREE_BLOCK,
            users={tree_user(tree): 1},
        )

    def add_data(self, bytenr: int, length: int) -> None:
        """New data, which has no users yet."""
        self.uses[bytenr] = Use(bytenr, length, None, self._generation, EXTENT_IS_DATA)

    def use(self, bytenr: int) -> Use:
        found = self.uses.get(bytenr)
        if found is None:
            found = self.uses[bytenr] = self._read(bytenr)
        return found

    def stored_items(self, bytenr: int) -> Iterable[Key]:
        """The keys of the items that an extent has on the disk."""
        found = self._stored.get(bytenr)
        if found is None:
            found = self._stored[bytenr] = self._read(bytenr)
        return found.before

    def _read(self, bytenr: int) -> Use:
        use: Use | None = None
        for key, data in self._extents.items(Key(bytenr, 0, 0), Key(bytenr, 255, LAST_KEY.offset)):
            if key.type not in (EXTENT_ITEM, METADATA_ITEM, *_REFERENCES):
                continue
            with understanding(self._volume, key):
                if key.type in (EXTENT_ITEM, METADATA_ITEM):
                    use = self._begin(key, data)
                elif use is not None:
                    _count(use, [Reference.unpack_alone(key, data)])
            if use is not None:
                use.before[key] = bytes(data)
        if use is None:
            raise self._volume.damaged(f"the extent at {bytenr} is in use, but it is not noted")
        return use

    def _begin(self, key: Key, data: Data) -> Use:
        extent = Extent.unpack(data, is_metadata_item=key.type == METADATA_ITEM)
        level, length = None, key.offset
        if key.type == METADATA_ITEM:
            level, length = key.offset, self._volume.superblock.node_size
        elif extent.flags & EXTENT_IS_TREE_BLOCK:
            level = data[24 + 17]
        use = Use(key.objectid, length, level, extent.generation, extent.flags)
        if any(each.type not in _REFERENCES for each in extent.inline):
            raise self._volume.unsupported("has references of a kind that is not known here")
        _count(use, extent.inline)
        return use

    def change(self, bytenr: int, user: User, by: int) -> None:
        """Let `user` use an extent `by` times more (less, if negative)."""
        users = self.use(bytenr).users
        count = users.get(user, 0) + by
        if count < 0:
            raise self._volume.damaged(f"a use of the extent at {bytenr} is not noted")
        if count:
            users[user] = count
        else:
            users.pop(user, None)

    def change_below(self, node: Node, by: int, *, tree: int = 0, parent: int = 0) -> None:
        """Let what a block refers to be used by a tree, or by the block itself (`parent`)."""
        if node.level:
            user = (SHARED_BLOCK_REF, parent, 0, 0) if parent else tree_user(tree)
            for child in node.children:
                self.change(child.blockptr, user, by)
            return
        for key, data in zip(node.keys, node.items, strict=True):
            if key.type != EXTENT_DATA:
                continue
            with understanding(self._volume, key):
                extent = FileExtent.unpack(data)
            if extent.type == EXTENT_INLINE or not extent.disk_bytenr:
                continue
            user = data_user(tree, key, extent)
            if parent:
                user = (SHARED_DATA_REF, parent, 0, 0)
            self.change(extent.disk_bytenr, user, by)

    def replace(self, tree: int, bytenr: int, node: Node) -> None:
        """A block of a tree was copied, and the tree has the copy now."""
        use = self.use(bytenr)
        if use.count > 1:
            if node.owner == tree and not use.is_full:
                self.change_below(node, +1, parent=bytenr)
                use.flags |= EXTENT_FULL_BACKREF
            else:
                self.change_below(node, +1, tree=tree)
        elif use.is_full:
            self.change_below(node, +1, tree=tree)
            self.change_below(node, -1, parent=bytenr)
        elif node.owner != tree:
            raise self._volume.damaged(f"the block of a tree at {bytenr} has the wrong owner")
        self.change(bytenr, tree_user(tree), -1)

    def new_items(self) -> Iterable[tuple[Key, Data | None]]:
        """What changes in the extent tree."""
        for use in self.uses.values():
            after = dict(use.items(self._volume.superblock.node_size))
            for key in use.before:
                if key not in after:
                    yield key, None
            for key, data in after.items():
                if use.before.get(key) != data:
                    yield key, data


def data_user(tree: int, key: Key, extent: FileExtent) -> User:
    """Who uses the data of a file's extent, by the tree that the file is in."""
    offset = (key.offset - extent.offset) & LAST_KEY.offset
    return (EXTENT_DATA_REF, tree, key.objectid, offset)


def _count(use: Use, references: Iterable[Reference]) -> None:
    for each in references:
        user = (each.type, each.offset, each.objectid, each.file_offset)
        use.users[user] = use.users.get(user, 0) + each.uses
