"""Paths in a filesystem: through directories, subvolumes and symlinks."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.directories import look_up, read_inode
from morphlib.images.btrfs.filedata import DataReader
from morphlib.images.btrfs.inodes import DirItem, InodeItem
from morphlib.images.btrfs.layout import (
    EMPTY_SUBVOL_DIR,
    FIRST_FREE,
    FS_TREE,
    ROOT_ITEM,
    ROOT_REF,
    Key,
)
from morphlib.images.btrfs.roots import RootRef
from morphlib.images.btrfs.trees import ItemSource, find
from morphlib.images.btrfs.volume import Volume, understanding

_MAX_LINKS = 40
_MAX_TARGET = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """An inode of a subvolume."""

    subvolume: int
    ino: int


TOP = Place(FS_TREE, FIRST_FREE)
#: What stands for a subvolume in a snapshot of the one that it lies in: it has an inode nowhere.
_STUB = InodeItem(0, 0, 0, 0, 1, 0, 0, stat.S_IFDIR | 0o555)


@dataclass(frozen=True, slots=True)
class Paths:
    """Finds what paths lead to. `tree` gives the tree of a subvolume, `roots` is the root tree."""

    volume: Volume
    roots: ItemSource
    tree: Callable[[int], ItemSource]
    data: DataReader

    def inode(self, place: Place) -> InodeItem:
        if place.ino == EMPTY_SUBVOL_DIR:
            return _STUB
        return read_inode(self.volume, self.tree(place.subvolume), place.ino)

    def child(self, directory: Place, name: bytes) -> Place | None:
        if directory.ino == EMPTY_SUBVOL_DIR:
            return None
        entry = look_up(self.volume, self.tree(directory.subvolume), directory.ino, name)
        return self.of_entry(directory, entry) if entry is not None else None

    def of_entry(self, directory: Place, entry: DirItem) -> Place:
        """Where an entry of a directory leads to."""
        if entry.location.type != ROOT_ITEM:
            return Place(directory.subvolume, entry.location.objectid)
        key = Key(directory.subvolume, ROOT_REF, entry.location.objectid)
        found = find(self.roots, key)
        if found is not None:
            with understanding(self.volume, key):
                named = RootRef.unpack(found)
            if (named.dirid, named.name) == (directory.ino, entry.name):
                return Place(entry.location.objectid, FIRST_FREE)
        return Place(directory.subvolume, EMPTY_SUBVOL_DIR)

    def target(self, place: Place, inode: InodeItem) -> bytes:
        """Where a symlink points to."""
        if inode.size > _MAX_TARGET:
            raise self.volume.damaged(f"the symlink {place.ino} is too long")
        return b"".join(
            [each.data for each in self.data.pieces(self.tree(place.subvolume), place.ino, inode)]
        )

    def look(self, path: str, *, follow: bool) -> tuple[Place, str] | None:
        """What a path leads to, and the path without symlinks in it; None if nothing is there.

        Raises MorphError for too many symlinks, and for a damaged filesystem.
        """
        way: list[tuple[Place, bytes]] = []
        pending = encode(path).split(b"/")[::-1]
        links = 0
        while pending:
            name = pending.pop()
            here = way[-1][0] if way else TOP
            if not stat.S_ISDIR(self.inode(here).mode):
                return None
            if name in (b"", b"."):
                continue
            if name == b"..":
                del way[-1:]
                continue
            place = self.child(here, name)
            if place is None:
                return None
            inode = self.inode(place)
            if not stat.S_ISLNK(inode.mode) or not (follow or pending):
                way.append((place, name))
                continue
            links += 1
            if links > _MAX_LINKS:
                raise MorphError(
                    f"{path} on {self.volume.path} leads through too many symlinks",
                    reason=Reason.NOT_FOUND,
                )
            target = self.target(place, inode)
            if target.startswith(b"/"):
                way.clear()
            pending += target.split(b"/")[::-1]
        return way[-1][0] if way else TOP, decode(b"/".join([name for _, name in way]))


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
