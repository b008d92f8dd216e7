"""Holes as items, which filesystems without the feature "no-holes" have for all of a file."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from morphlib.images.btrfs.inodes import EXTENT_INLINE, FileExtent, InodeItem
from morphlib.images.btrfs.layout import EXTENT_DATA, INODE_ITEM, SECTOR, Key
from morphlib.images.btrfs.trees import Data


def with_holes(items: Iterable[tuple[Key, Data]], generation: int) -> list[tuple[Key, Data]]:
    """The items of whole inodes, in order, and an extent for each hole between extents."""
    found: list[tuple[Key, Data]] = []
    ino, at, end = 0, 0, 0

    def fill(until: int) -> None:
        if at < until:
            hole = FileExtent(generation, until - at, num_bytes=until - at)
            found.append((Key(ino, EXTENT_DATA, at), hole.pack()))

    for key, data in items:
        if key.type == INODE_ITEM:
            fill(end)
            inode = InodeItem.unpack(data)
            is_file = stat.S_ISREG(inode.mode)
            ino, at, end = key.objectid, 0, -(-inode.size // SECTOR) * SECTOR if is_file else 0
        elif key.type == EXTENT_DATA:
            fill(key.offset)
            extent = FileExtent.unpack(data)
            at = end if extent.type == EXTENT_INLINE else key.offset + extent.num_bytes
        found.append((key, data))
    fill(end)
    return found
