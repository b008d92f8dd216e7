"""What changes start from: places in a filesystem that is being changed, and new items there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.filedata import DataReader
from morphlib.images.btrfs.fstree import ItemBuilder
from morphlib.images.btrfs.holes import with_holes
from morphlib.images.btrfs.layout import (
    EMPTY_SUBVOL_DIR,
    NAME_LEN,
    Key,
)
from morphlib.images.btrfs.naming import Names
from morphlib.images.btrfs.paths import TOP, Paths, Place
from morphlib.images.btrfs.planned import Inode
from morphlib.images.btrfs.subvolumes import Subvolumes
from morphlib.images.btrfs.superblock import INCOMPAT_NO_HOLES
from morphlib.images.btrfs.transaction import Transaction
from morphlib.images.btrfs.trees import Data, StoredTree


class Grounds:
    """Where things are, with the changes up to now. Everything raises MorphError."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.volume = transaction.volume
        self.node_size = transaction.volume.superblock.node_size
        self.generation = transaction.generation
        self.now_ns = transaction.time * 10**9
        data = DataReader(transaction.trees)
        self.data = data
        self.paths = Paths(self.volume, transaction.roots, transaction.tree, data)
        stored = StoredTree(transaction.trees, transaction.trees.root)
        before = Subvolumes(transaction.trees)
        self.before = Paths(self.volume, stored, before.tree, data)
        self._has_holes = not self.volume.superblock.incompat_flags & INCOMPAT_NO_HOLES

    def find(self, path: str) -> tuple[Place, bytes]:
        """The directory that a path is in, and the name there. Symlinks are not followed."""
        names = os.fsencode(path).split(b"/")
        if any(each in (b"", b".", b"..") or b"\0" in each for each in names):
            raise self.wrong(path, "that is no path")
        if any(len(each) > NAME_LEN for each in names):
            raise self.wrong(path, f"names have {NAME_LEN} bytes at most")
        where = TOP
        for name in names[:-1]:
            below = self.paths.child(where, name)
            if below is None or not self.is_directory(below) or below.ino == EMPTY_SUBVOL_DIR:
                raise self.wrong(path, "the directory that it is to be in is not there")
            where = below
        return where, names[-1]

    def is_directory(self, place: Place) -> bool:
        return stat.S_ISDIR(self.paths.inode(place).mode)

    def find_free(self, path: str) -> tuple[Place, bytes]:
        where, name = self.find(path)
        if self.paths.child(where, name) is not None:
            raise self.wrong(path, "something is there already")
        return where, name

    def names(self, subvolume: int) -> Names:
        tree = self.transaction.tree(subvolume)
        return Names(self.volume, tree, self.generation, self.transaction.time)

    def wrong(self, path: str, what: str) -> MorphError:
        return MorphError(
            f"can't change {path!r} on {self.volume.path}: {what}", reason=Reason.DEPLOY
        )

    def new_directory(self, mode: int, uid: int, gid: int) -> Inode:
        return Inode(stat.S_IFDIR | stat.S_IMODE(mode), uid, gid, self.now_ns, children={})

    def items(self, inodes: Iterable[Inode]) -> list[tuple[Key, Data]]:
        """The items of inodes that have their numbers and names, with space for data."""
        sink = _Items()
        builder = ItemBuilder(
            *(sink, _Extents(self.transaction), self.node_size),
            *(self.transaction.time, self.generation),
        )
        for inode in inodes:
            builder.add(inode)
        self.transaction.pieces += builder.pieces
        return with_holes(sink.found, self.generation) if self._has_holes else sink.found


class _Items:
    def __init__(self) -> None:
        self.found: list[tuple[Key, Data]] = []

    def add(self, objectid: int, kind: int, offset: int, content: bytes) -> None:
        self.found.append((Key(objectid, kind, offset), content))


class _Extents:
    """Space for data that has no users yet."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def take(self, length: int) -> list[tuple[int, int]]:
        found = self._transaction.space.take(length)
        for bytenr, size in found:
            self._transaction.references.add_data(bytenr, size)
        return found
