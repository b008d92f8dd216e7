"""Names, inodes and extended attributes of one subvolume, read from its tree."""

from __future__ import annotations

from morphlib.images.btrfs.inodes import DirItem, InodeItem
from morphlib.images.btrfs.layout import DIR_INDEX, DIR_ITEM, INODE_ITEM, XATTR_ITEM, Key, name_hash
from morphlib.images.btrfs.trees import ItemSource, find, items_of
from morphlib.images.btrfs.volume import Volume, understanding


def read_inode(volume: Volume, tree: ItemSource, ino: int) -> InodeItem:
    """Raises MorphError if it isn't there: something has led to it."""
    key = Key(ino, INODE_ITEM, 0)
    data = find(tree, key)
    if data is None:
        raise volume.damaged(f"the inode {ino} is missing")
    with understanding(volume, key):
        return InodeItem.unpack(data)


def look_up(volume: Volume, tree: ItemSource, directory: int, name: bytes) -> DirItem | None:
    """The entry of a directory; None if it has none of that name. Raises MorphError."""
    key = Key(directory, DIR_ITEM, name_hash(name))
    data = find(tree, key)
    if data is None:
        return None
    with understanding(volume, key):
        return next((each for each in DirItem.unpack_all(data) if each.name == name), None)


def read_directory(volume: Volume, tree: ItemSource, directory: int) -> list[DirItem]:
    """All entries, by name. Raises MorphError."""
    found: dict[bytes, DirItem] = {}
    for key, data in items_of(tree, directory, DIR_INDEX):
        with understanding(volume, key):
            for each in DirItem.unpack_all(data):
                if each.name in (b"", b".", b"..") or b"/" in each.name or b"\0" in each.name:
                    raise volume.damaged(f"the directory {directory} has an impossible name")
                found[each.name] = each
    return [found[name] for name in sorted(found)]


def read_xattrs(volume: Volume, tree: ItemSource, ino: int) -> dict[bytes, bytes]:
    """By name. Raises MorphError."""
    found: dict[bytes, bytes] = {}
    for key, data in items_of(tree, ino, XATTR_ITEM):
        with understanding(volume, key):
            found |= {each.name: each.data for each in DirItem.unpack_all(data)}
    return dict(sorted(found.items()))
