"""From changes to edits of trees: files and directories, subvolumes, snapshots, removals."""

from __future__ import annotations

import os
import stat

from morphlib.images.btrfs.btree import largest_item
from morphlib.images.btrfs.grounds import Grounds
from morphlib.images.btrfs.layout import (
    EMPTY_SUBVOL_DIR,
    FIRST_FREE,
    FT_DIR,
    FT_REG_FILE,
    FT_SYMLINK,
    INODE_ITEM,
    Key,
)
from morphlib.images.btrfs.model import (
    Change,
    Directory,
    File,
    Removal,
    Snapshot,
    Subvolume,
    Symlink,
)
from morphlib.images.btrfs.paths import Place
from morphlib.images.btrfs.planned import Inode
from morphlib.images.btrfs.scan import content_of
from morphlib.images.btrfs.subvolumechanges import SubvolumeChanges
from morphlib.images.btrfs.transaction import Transaction


class Changer:
    """Applies one change after another to a transaction. Everything raises MorphError."""

    def __init__(self, transaction: Transaction) -> None:
        self._on = Grounds(transaction)
        self._subvolumes = SubvolumeChanges(self._on)

    def apply(self, change: Change) -> None:
        match change:
            case Directory():
                self._directory(change)
            case File():
                mode = stat.S_IFREG | stat.S_IMODE(change.mode)
                inode = content_of(change.content, mode, self._on.node_size, self._on.now_ns)
                inode.xattrs = change.xattrs
                self._replace(change, inode, FT_REG_FILE)
            case Symlink():
                target = os.fsencode(change.target)
                if not target or len(target) > min(4095, largest_item(self._on.node_size) - 21):
                    raise self._on.wrong(change.path, "its target is empty or too long")
                inode = Inode(stat.S_IFLNK | 0o777, 0, 0, self._on.now_ns, inline=target)
                self._replace(change, inode, FT_SYMLINK)
            case Subvolume():
                self._subvolumes.create(change)
            case Snapshot():
                self._subvolumes.snapshot(change)
            case Removal():
                self._remove(change.path)

    # ---- Files and directories ---------------------------------------------------------------

    def _directory(self, change: Directory) -> None:
        where, name = self._on.find(change.path)
        place = self._on.paths.child(where, name)
        if place is None:
            inode = self._on.new_directory(change.mode, change.uid, change.gid)
            inode.xattrs = change.xattrs
            self._add(where, name, inode, FT_DIR)
        elif not self._on.is_directory(place):
            raise self._on.wrong(change.path, "something is there that is no directory")

    def _replace(self, change: File | Symlink, inode: Inode, kind: int) -> None:
        where, name = self._on.find(change.path)
        place = self._on.paths.child(where, name)
        if place is not None:
            mode = self._on.paths.inode(place).mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                raise self._on.wrong(change.path, "something is there that no file can replace")
            self._on.names(where.subvolume).unlink(where.ino, name, place.ino)
        inode.uid, inode.gid = change.uid, change.gid
        self._add(where, name, inode, kind)

    def _add(self, where: Place, name: bytes, inode: Inode, kind: int) -> None:
        names = self._on.names(where.subvolume)
        inode.number = names.free_ino()
        index = names.add(where.ino, name, Key(inode.number, INODE_ITEM, 0), kind)
        inode.names = [(where.ino, index, name)]
        tree = self._on.transaction.tree(where.subvolume)
        for key, data in self._on.items([inode]):
            tree.set(key, data)

    # ---- Removals ----------------------------------------------------------------------------

    def _remove(self, path: str) -> None:
        where, name = self._on.find(path)
        names = self._on.names(where.subvolume)
        place = self._on.paths.child(where, name)
        if place is None:
            raise self._on.wrong(path, "it is not there")
        if place.ino == EMPTY_SUBVOL_DIR:
            names.remove(where.ino, name)
        elif place.ino == FIRST_FREE:
            self._subvolumes.remove(path, where, name, place.subvolume)
        else:
            if self._on.is_directory(place) and not names.is_empty(place.ino):
                raise self._on.wrong(path, "the directory is not empty")
            names.unlink(where.ino, name, place.ino)
