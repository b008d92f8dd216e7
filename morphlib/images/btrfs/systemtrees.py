"""The items of the trees that every filesystem has, apart from the extent tree."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID, uuid5

from morphlib.images.btrfs.btree import Item, Tree, largest_item
from morphlib.images.btrfs.extents import DevExtent, FreeSpaceInfo
from morphlib.images.btrfs.fstree import GENERATION
from morphlib.images.btrfs.inodes import DirItem, InodeItem, InodeRef
from morphlib.images.btrfs.layout import (
    CHUNK_ITEM,
    CSUM_SIZE,
    DATA_RELOC_TREE,
    DEV_EXTENT,
    DEV_ITEM,
    DEV_ITEMS,
    DIR_ITEM,
    EXTENT_CSUM,
    EXTENT_CSUM_OBJECTID,
    FIRST_CHUNK,
    FIRST_FREE,
    FREE_SPACE_EXTENT,
    FREE_SPACE_INFO,
    FS_TREE,
    FT_DIR,
    INODE_ITEM,
    INODE_REF,
    ROOT_BACKREF,
    ROOT_ITEM,
    ROOT_REF,
    ROOT_TREE_DIR,
    SECTOR,
    Key,
    name_hash,
)
from morphlib.images.btrfs.planned import Root
from morphlib.images.btrfs.roots import ROOT_READ_ONLY, RootItem, RootRef, uuid_key
from morphlib.images.btrfs.space import Group
from morphlib.images.btrfs.superblock import Chunk, DevItem, Stripe

DEVICE = 1

_DIRECTORY = stat.S_IFDIR | 0o755
_DEFAULT = b"default"
#: Without it kernels take the flags of a subvolume for rubbish.
_ROOT_ITEM_INIT = 1 << 31


class Identity(NamedTuple):
    """What distinguishes this filesystem from others: all follows from `fsid`."""

    fsid: UUID
    time: int  # in seconds since 1970
    node_size: int

    @property
    def device(self) -> bytes:
        return uuid5(self.fsid, "device").bytes

    @property
    def chunk_tree(self) -> bytes:
        return uuid5(self.fsid, "chunk tree").bytes

    def subvolume(self, root: Root) -> bytes:
        return uuid5(self.fsid, f"subvolume {root.path!r}").bytes


def root_items(
    identity: Identity, roots: Sequence[Root], trees: Mapping[int, Tree]
) -> Iterator[Item]:
    """The root tree. `trees` has the tree of each subvolume, under the id of snapshots, too.

    The trees that are known already are in it; of the others, which can't be placed before all is
    counted, the items have the same size.
    """
    found = list(_root_directory(identity))
    subvolumes = {root.id: root for root in roots}
    for owner, tree in trees.items():
        root = subvolumes.get(owner)
        if root is not None:
            content = _subvolume_root(identity, root, tree)
        else:
            content = _plain_root(identity, owner, tree)
        found.append((owner, ROOT_ITEM, _snapshot_offset(root), content))
    for root in roots:
        if root.place is not None:
            parent, dirid, dir_index, name = root.place
            content = RootRef(dirid, dir_index, name).pack()
            found.append((parent, ROOT_REF, root.id, content))
            found.append((root.id, ROOT_BACKREF, parent, content))
    return iter(sorted(found))


def _snapshot_offset(root: Root | None) -> int:
    """Snapshots are told by the transaction that they were made in."""
    return GENERATION if root is not None and root.origin is not None else 0


def _root_directory(identity: Identity) -> Iterator[Item]:
    """The directory in the root tree, whose one entry says what is mounted by default."""
    inode = _directory(identity, identity.node_size)
    entry = DirItem(Key(FS_TREE, ROOT_ITEM, (1 << 64) - 1), 0, FT_DIR, _DEFAULT)
    yield ROOT_TREE_DIR, INODE_ITEM, 0, inode.pack()
    yield ROOT_TREE_DIR, INODE_REF, ROOT_TREE_DIR, InodeRef(0, b"..").pack()
    yield ROOT_TREE_DIR, DIR_ITEM, name_hash(_DEFAULT), entry.pack()
    yield FS_TREE, INODE_REF, ROOT_TREE_DIR, InodeRef(0, _DEFAULT).pack()


def _directory(identity: Identity, nbytes: int) -> InodeItem:
    now = (identity.time, 0)
    return InodeItem(
        *(GENERATION, 0, 0, nbytes, 1, 0, 0, _DIRECTORY),
        atime=now,
        ctime=now,
        mtime=now,
        otime=now,
    )


def _inode_of_root(identity: Identity, flags: int) -> bytes:
    size = identity.node_size
    return InodeItem(1, 0, 3, size, 1, 0, 0, _DIRECTORY, flags=flags).pack()


def _plain_root(identity: Identity, owner: int, tree: Tree) -> bytes:
    return RootItem(
        inode=_inode_of_root(identity, 0),
        generation=GENERATION,
        root_dirid=FIRST_FREE if owner == DATA_RELOC_TREE else 0,
        bytenr=tree.root() if tree.places else 0,
        bytes_used=sum(tree.sizes) * identity.node_size,
        level=tree.level,
    ).pack()


def _subvolume_root(identity: Identity, root: Root, tree: Tree) -> bytes:
    now = (identity.time, 0)
    shared = root.origin is not None or bool(tree.snapshots)
    return RootItem(
        inode=_inode_of_root(identity, _ROOT_ITEM_INIT),
        generation=GENERATION,
        root_dirid=FIRST_FREE,
        bytenr=tree.root(root.id) if tree.places else 0,
        bytes_used=sum(tree.sizes) * identity.node_size,
        level=tree.level,
        # All blocks that are no younger may be shared.
        last_snapshot=GENERATION if shared else 0,
        flags=ROOT_READ_ONLY if root.read_only else 0,
        uuid=identity.subvolume(root),
        parent_uuid=identity.subvolume(root.origin) if root.origin else bytes(16),
        ctransid=GENERATION,
        otransid=GENERATION,
        ctime=now,
        otime=now,
    ).pack()


def data_reloc_items(identity: Identity) -> Iterator[Item]:
    inode = _directory(identity, 0)
    yield FIRST_FREE, INODE_ITEM, 0, inode.pack()
    yield FIRST_FREE, INODE_REF, FIRST_FREE, InodeRef(0, b"..").pack()


def uuid_items(identity: Identity, roots: Iterable[Root]) -> Iterator[Item]:
    found = [(uuid_key(identity.subvolume(root)), root.id) for root in roots]
    for key, number in sorted(found):
        yield *key, struct.pack("<Q", number)


def csum_items(
    identity: Identity, ranges: Iterable[tuple[int, int]], csums: bytes | None = None
) -> Iterator[Item]:
    """The checksums of data at these addresses (start, length), or zeros in their place."""
    most = min((largest_item(identity.node_size) - 25) // CSUM_SIZE - 1, 4096)
    taken = 0
    for start, length in ranges:
        sectors = length // SECTOR
        for first in range(0, sectors, most):
            size = min(most, sectors - first) * CSUM_SIZE
            content = bytes(size) if csums is None else csums[taken : taken + size]
            taken += size
            yield EXTENT_CSUM_OBJECTID, EXTENT_CSUM, start + first * SECTOR, content


def chunk_items(device: DevItem, groups: Iterable[Group], identity: Identity) -> Iterator[Item]:
    yield DEV_ITEMS, DEV_ITEM, DEVICE, device.pack()
    for group in groups:
        yield FIRST_CHUNK, CHUNK_ITEM, group.start, chunk_of(group, identity).pack()


def chunk_of(group: Group, identity: Identity) -> Chunk:
    stripes = tuple(Stripe(DEVICE, place, identity.device) for place in group.places)
    return Chunk(group.length, group.flags, stripes)


def device_items(groups: Iterable[Group], identity: Identity) -> Iterator[Item]:
    for group in groups:
        content = DevExtent(group.start, group.length, identity.chunk_tree).pack()
        for place in group.places:
            yield DEVICE, DEV_EXTENT, place, content


def free_space_items(free: Iterable[tuple[Group, Sequence[tuple[int, int]]]]) -> Iterator[Item]:
    """The free space tree, of the starts and lengths of what is free in each block group."""
    for group, extents in free:
        info = FreeSpaceInfo(len(extents)).pack()
        yield group.start, FREE_SPACE_INFO, group.length, info
        for start, length in extents:
            yield start, FREE_SPACE_EXTENT, length, b""
