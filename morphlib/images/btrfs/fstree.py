"""The tree of a subvolume: its inodes as items, and the extents that its files need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.btree import LeafPacker, Tree, largest_item
from morphlib.images.btrfs.inodes import (
    DIR_ENTRY,
    EXTENT_INLINE,
    EXTENT_REGULAR,
    FILE_EXTENT,
    FILE_EXTENT_HEAD,
    FILE_TYPES,
    INODE,
    INODE_REF_HEAD,
    InodeExtref,
    encode_rdev,
)
from morphlib.images.btrfs.layout import (
    DIR_INDEX,
    DIR_ITEM,
    EXTENT_DATA,
    FIRST_FREE,
    FT_DIR,
    FT_XATTR,
    INODE_EXTREF,
    INODE_ITEM,
    INODE_REF,
    ROOT_ITEM,
    XATTR_ITEM,
    extref_hash,
    name_hash,
)
from morphlib.images.btrfs.planned import Data, Inode, Place, Root
from morphlib.images.btrfs.space import DataSpace

#: Of all that is in a new image. Snapshots are taken in the same transaction.
GENERATION = 1

_MOST_LINKS = 65535
_NO_OFFSET = (1 << 64) - 1
_FIRST_INDEX = 2


class Piece(NamedTuple):
    """A part of a file's data, and the extent that it goes to. `length` is in whole sectors."""

    bytenr: int
    length: int
    objectid: int
    file_offset: int
    data: Data


class Subtree(NamedTuple):
    """The tree of a subvolume, and the data of its files by address."""

    tree: Tree
    pieces: list[Piece]


def build(
    root: Root, snapshots: tuple[int, ...], node_size: int, time: int, space: DataSpace
) -> Subtree:
    """Make the tree of a subvolume, with addresses for data. `snapshots` are ids of roots.

    Raises MorphError for what btrfs can't hold.
    """
    inodes = number_inodes(root)
    packer = LeafPacker(node_size)
    builder = ItemBuilder(packer, space, node_size, time, GENERATION)
    for inode in inodes:
        builder.add(inode)
    tree = Tree(root.id, packer.finish(), node_size, snapshots)
    return Subtree(tree, builder.pieces)


def number_inodes(root: Root) -> list[Inode]:
    """All inodes of a subvolume by number, which they get here with their names."""
    root.top.number = FIRST_FREE
    root.top.names = [(FIRST_FREE, 0, b"..")]
    found = [root.top]
    number = FIRST_FREE
    for directory in found:  # grows meanwhile
        if not directory.children:
            continue
        where = directory.number
        names = sorted(directory.children.items(), key=_name_of)
        directory.children = dict(names)
        for dir_index, (name, child) in enumerate(names, start=_FIRST_INDEX):
            if isinstance(child, Root):
                child.place = Place(root.id, where, dir_index, name)
                continue
            if not child.number:
                number += 1
                child.number = number
                found.append(child)
            child.names.append((where, dir_index, name))
    return found


def _name_of(item: tuple[bytes, object]) -> bytes:
    return item[0]


class ItemSink(Protocol):
    """Takes items, those of an inode in the order of their keys."""

    def add(self, objectid: int, kind: int, offset: int, content: bytes) -> None: ...


class ExtentSource(Protocol):
    """Gives space for data."""

    def take(self, length: int) -> list[tuple[int, int]]:
        """Addresses and lengths of extents for `length` bytes, in whole sectors."""
        ...


class ItemBuilder:
    """Makes the items of one inode after another, and takes space for their data."""

    def __init__(
        self, sink: ItemSink, space: ExtentSource, node_size: int, time: int, generation: int
    ) -> None:
        self._sink = sink
        self._generation = generation
        self.pieces: list[Piece] = []
        self._largest = largest_item(node_size)
        self._time = time
        self._space = space

    def add(self, inode: Inode) -> None:
        add, number, names = self._sink.add, inode.number, inode.names
        pieces: list[tuple[int, int, int]] = []
        size = nbytes = 0
        if inode.inline is not None:
            size = nbytes = len(inode.inline)
        elif inode.data is not None:
            size = inode.data.size
            pieces = self._place(inode.data, number)
            nbytes = sum([length for _, _, length in pieces])
        elif inode.shared is not None:
            size, nbytes = inode.shared.size, inode.shared.nbytes
        elif inode.children:
            size = 2 * sum(map(len, inode.children))
        seconds, nanoseconds = divmod(inode.mtime_ns, 1_000_000_000)
        time = self._time
        add(
            number,
            INODE_ITEM,
            0,
            INODE.pack(
                *(
                    self._generation,
                    self._generation,
                    size,
                    nbytes,
                    0,
                    len(names),
                    inode.uid,
                    inode.gid,
                ),
                *(inode.mode, encode_rdev(inode.rdev) if inode.rdev else 0, 0, 0),
                *(time, 0, time, 0, seconds, nanoseconds, time, 0),
            ),
        )
        if len(names) == 1:
            parent, dir_index, name = names[0]
            add(number, INODE_REF, parent, INODE_REF_HEAD.pack(dir_index, len(name)) + name)
        else:
            self._add_names(inode)
        if inode.xattrs:
            self._add_xattrs(inode)
        if inode.children:
            self._add_children(inode, inode.children)
        elif inode.inline is not None:
            head = FILE_EXTENT_HEAD.pack(self._generation, size, 0, EXTENT_INLINE)
            add(number, EXTENT_DATA, 0, head + inode.inline)
        elif inode.shared is not None:
            for offset, content in inode.shared.extents:
                add(number, EXTENT_DATA, offset, content)
        else:
            for offset, bytenr, length in pieces:
                extent = FILE_EXTENT.pack(
                    *(self._generation, length, 0, EXTENT_REGULAR, bytenr, length, 0, length)
                )
                add(number, EXTENT_DATA, offset, extent)

    def _place(self, data: Data, number: int) -> list[tuple[int, int, int]]:
        """Offset, address and length of each part of a file's data."""
        found = []
        for offset, length in data.runs:
            for bytenr, size in self._space.take(length):
                found.append((offset, bytenr, size))
                self.pieces.append(Piece(bytenr, size, number, offset, data))
                offset += size
        return found

    def _add_names(self, inode: Inode) -> None:
        """Names of a file with several: as many as fit into one item for each directory."""
        if len(inode.names) > _MOST_LINKS:
            raise _unfit(inode, f"more than {_MOST_LINKS} names")
        refs: dict[int, bytes] = {}
        extrefs: dict[int, bytes] = {}
        for parent, dir_index, name in inode.names:
            before = refs.get(parent, b"")
            ref = before + INODE_REF_HEAD.pack(dir_index, len(name)) + name
            if len(ref) <= self._largest:
                refs[parent] = ref
            else:
                where = extref_hash(parent, name)
                ref = InodeExtref(parent, dir_index, name).pack()
                extrefs[where] = extrefs.get(where, b"") + ref
        for kind, found in ((INODE_REF, refs), (INODE_EXTREF, extrefs)):
            for where, ref in sorted(found.items()):
                self._add_checked(inode, kind, where, ref)

    def _add_xattrs(self, inode: Inode) -> None:
        found: dict[int, bytes] = {}
        for name, value in sorted(inode.xattrs):
            head = DIR_ENTRY.pack(0, 0, 0, self._generation, len(value), len(name), FT_XATTR)
            where = name_hash(name)
            found[where] = found.get(where, b"") + head + name + value
        for where, content in sorted(found.items()):
            self._add_checked(inode, XATTR_ITEM, where, content)

    def _add_children(self, inode: Inode, children: dict[bytes, Inode | Root]) -> None:
        add, number = self._sink.add, inode.number
        entries = list(_entries(children, self._generation))
        by_hash: dict[int, bytes] = {}
        for where, entry in entries:
            by_hash[where] = by_hash[where] + entry if where in by_hash else entry
        for where in sorted(by_hash):
            self._add_checked(inode, DIR_ITEM, where, by_hash[where])
        for dir_index, (_, entry) in enumerate(entries, start=_FIRST_INDEX):
            add(number, DIR_INDEX, dir_index, entry)

    def _add_checked(self, inode: Inode, kind: int, offset: int, content: bytes) -> None:
        if len(content) > self._largest:
            raise _unfit(inode, "too many names with the same hash")
        self._sink.add(inode.number, kind, offset, content)


def _entries(children: dict[bytes, Inode | Root], generation: int) -> Iterator[tuple[int, bytes]]:
    """Hash and content of each name in a directory."""
    pack, types = DIR_ENTRY.pack, FILE_TYPES
    for name, child in children.items():
        if isinstance(child, Root):
            head = pack(child.id, ROOT_ITEM, _NO_OFFSET, generation, 0, len(name), FT_DIR)
        else:
            kind = types[child.mode & 0o170000]
            head = pack(child.number, INODE_ITEM, 0, generation, 0, len(name), kind)
        yield name_hash(name), head + name


def _unfit(inode: Inode, what: str) -> MorphError:
    name = inode.names[0][2].decode("utf-8", "surrogateescape")
    return MorphError(f"btrfs can't hold {name!r}: it has {what}", reason=Reason.DEPLOY)
