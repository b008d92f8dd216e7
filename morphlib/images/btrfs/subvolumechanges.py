"""New subvolumes and snapshots, and removals of them, as edits of trees."""

from __future__ import annotations

import stat
from uuid import UUID, uuid5

from morphlib.images.btrfs.dropping import drop_tree
from morphlib.images.btrfs.fstree import number_inodes
from morphlib.images.btrfs.grounds import Grounds
from morphlib.images.btrfs.inodes import InodeItem
from morphlib.images.btrfs.layout import (
    FIRST_FREE,
    FT_DIR,
    ROOT_BACKREF,
    ROOT_ITEM,
    ROOT_REF,
    ROOT_TREE_DIR,
    UUID_RECEIVED_SUBVOL,
    UUID_SUBVOL,
    UUID_TREE,
    Key,
)
from morphlib.images.btrfs.model import (
    Snapshot,
    Subvolume,
)
from morphlib.images.btrfs.naming import Names, free_objectid
from morphlib.images.btrfs.paths import Place
from morphlib.images.btrfs.planned import Root
from morphlib.images.btrfs.roots import ROOT_READ_ONLY, RootItem, RootRef, uuid_key
from morphlib.images.btrfs.scan import Scanner
from morphlib.images.btrfs.sharing import share_equal_files
from morphlib.images.btrfs.trees import find, items_of

_NO_OFFSET = (1 << 64) - 1
#: Without it kernels take the flags of a subvolume for rubbish.
_ROOT_ITEM_INIT = 1 << 31


class SubvolumeChanges:
    """Makes subvolumes and snapshots, and removes them. Everything raises MorphError."""

    def __init__(self, on: Grounds) -> None:
        self._on = on

    def create(self, change: Subvolume) -> None:
        where, name = self._on.find_free(change.path)
        if change.source is None:
            top = self._on.new_directory(0o755, 0, 0)
        else:
            top = Scanner(self._on.node_size).scan(change)
        if change.mode is not None:
            top.mode = stat.S_IFDIR | stat.S_IMODE(change.mode)
        if change.uid is not None:
            top.uid = change.uid
        if change.gid is not None:
            top.gid = change.gid
        if change.like is not None:
            like = self._on.before.look(change.like, follow=True)
            if like is None:
                raise self._on.wrong(change.path, f"there is no {change.like} to share data with")
            share_equal_files(self._on.before, self._on.data, top, like[0], self._on.generation)
        number = free_objectid(self._on.transaction.roots)
        inodes = number_inodes(Root(number, change.path, top, change.read_only))
        space = self._on.transaction.space
        space.expected = sum(
            length for inode in inodes if inode.data for _, length in inode.data.runs
        )
        self._on.transaction.new_tree(number, self._on.items(inodes))
        now = (self._on.transaction.time, 0)
        flags = _ROOT_ITEM_INIT
        inode = InodeItem(1, 0, 3, self._on.node_size, 1, 0, 0, stat.S_IFDIR | 0o755, flags=flags)
        item = RootItem(
            inode=inode.pack(),
            generation=self._on.generation,
            root_dirid=FIRST_FREE,
            bytenr=0,
            bytes_used=0,
            level=0,
            flags=ROOT_READ_ONLY if change.read_only else 0,
            uuid=self._uuid(number),
            ctransid=self._on.generation,
            otransid=self._on.generation,
            ctime=now,
            otime=now,
        )
        self._link(where, name, Key(number, ROOT_ITEM, 0), item)

    def snapshot(self, change: Snapshot) -> None:
        where, name = self._on.find_free(change.path)
        origin = self._find_subvolume(change.of)
        if origin is None:
            raise self._on.wrong(change.path, f"there is no subvolume {change.of} to take it of")
        transaction = self._on.transaction
        number = free_objectid(transaction.roots)
        transaction.copy_tree(number, origin)
        key, item = transaction.root_item(origin)
        # From now on all blocks that it has may be shared.
        item = item._replace(last_snapshot=self._on.generation)
        transaction.roots.set(key, item.pack())
        now = (transaction.time, 0)
        used = item.bytes_used + transaction.tree(origin).growth * self._on.node_size
        inode = InodeItem.unpack(item.inode)
        item = item._replace(
            inode=inode._replace(flags=inode.flags | _ROOT_ITEM_INIT).pack(),
            generation=self._on.generation,
            root_dirid=FIRST_FREE,
            bytes_used=used,
            flags=ROOT_READ_ONLY if change.read_only else 0,
            refs=1,
            uuid=self._uuid(number),
            parent_uuid=item.uuid,
            received_uuid=bytes(16),
            otransid=self._on.generation,
            stransid=0,
            rtransid=0,
            otime=now,
            stime=(0, 0),
            rtime=(0, 0),
        )
        self._link(where, name, Key(number, ROOT_ITEM, self._on.generation), item)

    def _find_subvolume(self, path: str) -> int | None:
        where, name = self._on.find(path)
        place = self._on.paths.child(where, name)
        return place.subvolume if place is not None and place.ino == FIRST_FREE else None

    def _uuid(self, number: int) -> bytes:
        fsid = UUID(bytes=self._on.volume.superblock.fsid)
        return uuid5(fsid, f"subvolume {number} of {self._on.generation}").bytes

    def _link(self, where: Place, name: bytes, key: Key, item: RootItem) -> None:
        """Let a subvolume be known, and have a name."""
        number, roots = key.objectid, self._on.transaction.roots
        location = Key(number, ROOT_ITEM, _NO_OFFSET)
        index = self._on.names(where.subvolume).add(where.ino, name, location, FT_DIR)
        ref = RootRef(where.ino, index, name).pack()
        roots.set(key, item.pack())
        roots.set(Key(where.subvolume, ROOT_REF, number), ref)
        roots.set(Key(number, ROOT_BACKREF, where.subvolume), ref)
        if self._on.transaction.has_tree(UUID_TREE):
            tree, uuid = self._on.transaction.tree(UUID_TREE), uuid_key(item.uuid)
            before = find(tree, uuid)
            ids = bytes(before) if before is not None else b""
            tree.set(uuid, ids + number.to_bytes(8, "little"))

    def remove(self, path: str, where: Place, name: bytes, number: int) -> None:
        transaction, roots = self._on.transaction, self._on.transaction.roots
        if any(True for _ in items_of(roots, number, ROOT_REF)):
            raise self._on.wrong(path, "other subvolumes lie in it")
        default = self._names_of_roots().find(ROOT_TREE_DIR, b"default")
        if default is not None and default.location.objectid == number:
            raise self._on.wrong(path, "it is what is mounted by default")
        key, item = transaction.root_item(number)
        self._on.names(where.subvolume).remove(where.ino, name)
        tree = transaction.tree(number)
        tree.flush()
        drop_tree(transaction.trees, transaction.references, tree.root)
        transaction.forget_tree(number)
        roots.remove(key)
        roots.remove(Key(where.subvolume, ROOT_REF, number))
        roots.remove(Key(number, ROOT_BACKREF, where.subvolume))
        if transaction.has_tree(UUID_TREE):
            self._forget_uuid(item.uuid, UUID_SUBVOL, number)
            self._forget_uuid(item.received_uuid, UUID_RECEIVED_SUBVOL, number)

    def _names_of_roots(self) -> Names:
        roots = self._on.transaction.roots
        return Names(self._on.volume, roots, self._on.generation, self._on.transaction.time)

    def _forget_uuid(self, uuid: bytes, kind: int, number: int) -> None:
        tree, key = self._on.transaction.tree(UUID_TREE), uuid_key(uuid, kind)
        before = find(tree, key)
        if before is None:
            return
        ids = [bytes(before[at : at + 8]) for at in range(0, len(before), 8)]
        kept = b"".join([each for each in ids if each != number.to_bytes(8, "little")])
        if kept:
            tree.set(key, kept)
        else:
            tree.remove(key)
