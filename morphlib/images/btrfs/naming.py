"""Names in the directories of a tree that is being changed, and the inodes that they are of."""

from __future__ import annotations

import stat

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.directories import look_up, read_inode
from morphlib.images.btrfs.editing import EditedTree
from morphlib.images.btrfs.inodes import DirItem, InodeExtref, InodeRef
from morphlib.images.btrfs.layout import (
    DIR_INDEX,
    DIR_ITEM,
    FIRST_FREE,
    INODE_EXTREF,
    INODE_ITEM,
    INODE_REF,
    LAST_FREE,
    Key,
    extref_hash,
    name_hash,
)
from morphlib.images.btrfs.trees import LAST_KEY, Data, find, items_of
from morphlib.images.btrfs.volume import Volume, understanding

_FIRST_INDEX = 2


class Names:
    """The names in one tree. `generation` and `time` are those of the changes.

    Everything raises MorphError.
    """

    def __init__(self, volume: Volume, tree: EditedTree, generation: int, time: int) -> None:
        self._volume = volume
        self._tree = tree
        self._generation = generation
        self._time = time
        node_size = volume.superblock.node_size
        self._largest = node_size - 101 - 25

    def free_ino(self) -> int:
        return free_objectid(self._tree)

    def find(self, directory: int, name: bytes) -> DirItem | None:
        return look_up(self._volume, self._tree, directory, name)

    def is_empty(self, directory: int) -> bool:
        return not any(True for _ in items_of(self._tree, directory, DIR_INDEX))

    def next_index(self, directory: int) -> int:
        found = self._tree.last_until(Key(directory, DIR_INDEX, LAST_KEY.offset))
        if found is None or found[0][:2] != (directory, DIR_INDEX):
            return _FIRST_INDEX
        return max(found[0].offset + 1, _FIRST_INDEX)

    def add(self, directory: int, name: bytes, location: Key, kind: int) -> int:
        """Note a name that is not there yet. Gives its index in the directory."""
        index = self.next_index(directory)
        entry = DirItem(location, self._generation, kind, name).pack()
        key = Key(directory, DIR_ITEM, name_hash(name))
        before = find(self._tree, key)
        content = entry if before is None else bytes(before) + entry
        if len(content) > self._largest:
            raise MorphError(
                f"there are too many names like {name!r} in a directory on {self._volume.path}",
                reason=Reason.DEPLOY,
            )
        self._tree.set(key, content)
        self._tree.set(Key(directory, DIR_INDEX, index), entry)
        self._touch(directory, 2 * len(name))
        return index

    def remove(self, directory: int, name: bytes) -> int:
        """Take a name away. Gives the index that it had in the directory."""
        key = Key(directory, DIR_ITEM, name_hash(name))
        data = find(self._tree, key)
        assert data is not None
        with understanding(self._volume, key):
            kept = [each for each in DirItem.unpack_all(data) if each.name != name]
        if kept:
            self._tree.set(key, b"".join([each.pack() for each in kept]))
        else:
            self._tree.remove(key)
        index = self._index_of(directory, name)
        self._tree.remove(Key(directory, DIR_INDEX, index))
        self._touch(directory, -2 * len(name))
        return index

    def _index_of(self, directory: int, name: bytes) -> int:
        for key, data in items_of(self._tree, directory, DIR_INDEX):
            with understanding(self._volume, key):
                names = [each.name for each in DirItem.unpack_all(data)]
            if name in names:
                return key.offset
        raise self._volume.damaged(f"the directory {directory} lacks an index")

    def _touch(self, directory: int, growth: int) -> None:
        inode = read_inode(self._volume, self._tree, directory)
        now = (self._time, 0)
        changed = inode._replace(
            transid=self._generation,
            size=max(inode.size + growth, 0),
            sequence=inode.sequence + 1,
            ctime=now,
            mtime=now,
        )
        self._tree.set(Key(directory, INODE_ITEM, 0), changed.pack())

    def unlink(self, directory: int, name: bytes, ino: int) -> None:
        """Take a name away, and the inode too if it was its last one."""
        index = self.remove(directory, name)
        inode = read_inode(self._volume, self._tree, ino)
        if inode.nlink <= 1 or stat.S_ISDIR(inode.mode):
            for key, _ in list(self._tree.items(Key(ino, 0, 0), Key(ino, 255, LAST_KEY.offset))):
                self._tree.remove(key)
            return
        now = (self._time, 0)
        changed = inode._replace(transid=self._generation, nlink=inode.nlink - 1, ctime=now)
        self._tree.set(Key(ino, INODE_ITEM, 0), changed.pack())
        self._remove_ref(directory, name, ino, index)

    def _remove_ref(self, directory: int, name: bytes, ino: int, index: int) -> None:
        key = Key(ino, INODE_REF, directory)
        data = find(self._tree, key)
        if data is not None:
            with understanding(self._volume, key):
                refs = list(InodeRef.unpack_all(data))
            kept = [each for each in refs if each.name != name]
            if len(kept) < len(refs):
                self._put(key, b"".join([each.pack() for each in kept]))
                return
        key = Key(ino, INODE_EXTREF, extref_hash(directory, name))
        data = find(self._tree, key)
        if data is None:
            raise self._volume.damaged(f"the inode {ino} does not know all its names")
        with understanding(self._volume, key):
            more = [
                each
                for each in InodeExtref.unpack_all(data)
                if (each.parent, each.name) != (directory, name)
            ]
        self._put(key, b"".join([each.pack() for each in more]))

    def _put(self, key: Key, data: Data) -> None:
        if data:
            self._tree.set(key, data)
        else:
            self._tree.remove(key)


def free_objectid(tree: EditedTree) -> int:
    """The first number after all inodes (or subvolumes) that there are."""
    found = tree.last_until(Key(LAST_FREE, 255, LAST_KEY.offset))
    return max(found[0].objectid + 1 if found is not None else 0, FIRST_FREE + 1)
