"""The subvolumes of a filesystem and their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from morphlib.images.btrfs.inodes import InodeRef
from morphlib.images.btrfs.layout import (
    FIRST_FREE,
    FS_TREE,
    INODE_REF,
    LAST_FREE,
    ROOT_BACKREF,
    ROOT_ITEM,
    Key,
)
from morphlib.images.btrfs.paths import decode
from morphlib.images.btrfs.roots import ROOT_READ_ONLY, RootItem, RootRef, to_uuid
from morphlib.images.btrfs.trees import LAST_KEY, ItemSource, StoredTree, Trees, items_of
from morphlib.images.btrfs.volume import understanding


@dataclass(frozen=True, slots=True)
class SubvolumeInfo:
    """A subvolume as it is found in an image; `path` is relative to the top level."""

    id: int
    path: str
    parent: int  # id of the subvolume that it lies in; 5 is the top level
    uuid: UUID
    parent_uuid: UUID | None  # of the subvolume that it is a snapshot of
    read_only: bool
    generation: int


class Subvolumes:
    """Everything raises MorphError."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._volume = trees.volume
        self._roots = StoredTree(trees, trees.root)
        self._opened: dict[int, StoredTree] = {}

    def tree(self, subvolume: int) -> ItemSource:
        found = self._opened.get(subvolume)
        if found is None:
            root = self._trees.tree(subvolume)
            if root is None:
                raise self._volume.damaged(f"the tree of the subvolume {subvolume} is missing")
            found = self._opened[subvolume] = StoredTree(self._trees, root)
        return found

    def all(self) -> Iterator[SubvolumeInfo]:
        """Those that have a name, and so have not been deleted."""
        names = dict(self._names())
        first, last = Key(FIRST_FREE, ROOT_ITEM, 0), Key(LAST_FREE, ROOT_ITEM, LAST_KEY.offset)
        for key, data in self._roots.items(first, last):
            if key.type != ROOT_ITEM or key.objectid not in names:
                continue
            with understanding(self._volume, key):
                item = RootItem.unpack(data)
            parent, _ = names[key.objectid]
            yield SubvolumeInfo(
                id=key.objectid,
                path=decode(self._path(key.objectid, names)),
                parent=parent,
                uuid=to_uuid(item.uuid) or UUID(int=0),
                parent_uuid=to_uuid(item.parent_uuid),
                read_only=bool(item.flags & ROOT_READ_ONLY),
                generation=item.generation,
            )

    def _names(self) -> Iterator[tuple[int, tuple[int, RootRef]]]:
        first, last = Key(FIRST_FREE, ROOT_BACKREF, 0), Key(LAST_FREE, ROOT_BACKREF, 0)
        for key, data in self._roots.items(first, last):
            if key.type == ROOT_BACKREF:
                with understanding(self._volume, key):
                    ref = RootRef.unpack(data)
                yield key.objectid, (key.offset, ref)

    def _path(self, subvolume: int, names: dict[int, tuple[int, RootRef]]) -> bytes:
        parts: list[bytes] = []
        seen: set[int] = set()
        while subvolume != FS_TREE:
            if subvolume in seen or subvolume not in names:
                raise self._volume.damaged(f"the subvolume {subvolume} has no place")
            seen.add(subvolume)
            subvolume, ref = names[subvolume]
            parts += [ref.name, *self._directories(subvolume, ref.dirid)]
        return b"/".join(parts[::-1])

    def _directories(self, subvolume: int, directory: int) -> Iterator[bytes]:
        """The names from a directory up to the top of its subvolume."""
        seen: set[int] = set()
        while directory != FIRST_FREE:
            seen.add(directory)
            for key, data in items_of(self.tree(subvolume), directory, INODE_REF):
                with understanding(self._volume, key):
                    names = [each.name for each in InodeRef.unpack_all(data)]
                yield names[0] if names else b""
                directory = key.offset
                break
            if directory in seen:
                raise self._volume.damaged(f"the directory {directory} has no place")
