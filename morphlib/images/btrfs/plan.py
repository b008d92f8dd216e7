"""From entries to the subvolumes of an image."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.btree import largest_item
from morphlib.images.btrfs.inodes import FILE_EXTENT_HEAD
from morphlib.images.btrfs.layout import FIRST_FREE, FS_TREE, NAME_LEN
from morphlib.images.btrfs.model import Directory, Entry, File, Snapshot, Subvolume, Symlink
from morphlib.images.btrfs.planned import Inode, Root
from morphlib.images.btrfs.scan import Scanner, content_of


def plan(entries: Sequence[Entry], node_size: int, time: int) -> list[Root]:
    """The top level and all subvolumes, in the order of their ids.

    Raises MorphError if an entry does not fit to those before it, or a tree can't be read.
    """
    planner = _Planner(node_size, time)
    for entry in entries:
        planner.add(entry)
    return planner.roots


class _Planner:
    def __init__(self, node_size: int, time: int) -> None:
        self._node_size = node_size
        self._time_ns = time * 1_000_000_000
        self.roots = [Root(FS_TREE, "", self._directory(0o755, 0, 0))]

    def _directory(self, mode: int, uid: int, gid: int) -> Inode:
        mode = stat.S_IFDIR | stat.S_IMODE(mode)
        return Inode(mode, uid, gid, self._time_ns, children={})

    def add(self, entry: Entry) -> None:
        directory, name = self._find(entry.path)
        there = directory.get(name)
        match entry:
            case Directory():
                if there is None:
                    made = self._directory(entry.mode, entry.uid, entry.gid)
                    made.xattrs = entry.xattrs
                    directory[name] = made
                elif isinstance(there, Inode) and there.children is None:
                    raise _wrong(entry.path, "something is there that is no directory")
            case File() | Symlink():
                if there is not None and not _is_replaceable(there):
                    raise _wrong(entry.path, "something is there that no file can replace")
                directory[name] = self._file(entry)
            case Subvolume() | Snapshot():
                if there is not None:
                    raise _wrong(entry.path, "something is there already")
                root = self._subvolume(entry)
                directory[name] = root
                self.roots.append(root)

    def _find(self, path: str) -> tuple[dict[bytes, Inode | Root], bytes]:
        """The directory that an entry is in, and its name there."""
        names = os.fsencode(path).split(b"/")
        if any(each in (b"", b".", b"..") or b"\0" in each for each in names):
            raise _wrong(path, "that is no path")
        if any(len(each) > NAME_LEN for each in names):
            raise _wrong(path, f"names have {NAME_LEN} bytes at most")
        root = self.roots[0]
        directory = root.top
        for name in names[:-1]:
            below = (directory.children or {}).get(name)
            if isinstance(below, Root):
                root, below = below, below.top
            if below is None or below.children is None:
                raise _wrong(path, "the directory that it is to be in is not there")
            directory = below
        if root.has_snapshots or root.origin is not None:
            raise _wrong(path, f"{root.path} shares all it holds with a snapshot by then")
        assert directory.children is not None
        return directory.children, names[-1]

    def _file(self, entry: File | Symlink) -> Inode:
        if isinstance(entry, File):
            mode = stat.S_IFREG | stat.S_IMODE(entry.mode)
            inode = content_of(entry.content, mode, self._node_size, self._time_ns)
            inode.xattrs = entry.xattrs
        else:
            target = os.fsencode(entry.target)
            if not target or len(target) > largest_item(self._node_size) - FILE_EXTENT_HEAD.size:
                raise _wrong(entry.path, "its target is empty or too long")
            inode = Inode(stat.S_IFLNK | 0o777, 0, 0, self._time_ns, inline=target)
        inode.uid, inode.gid = entry.uid, entry.gid
        return inode

    def _subvolume(self, entry: Subvolume | Snapshot) -> Root:
        number = FIRST_FREE + len(self.roots) - 1
        if isinstance(entry, Snapshot):
            origin = next((root for root in self.roots[1:] if root.path == entry.of), None)
            if origin is None:
                raise _wrong(entry.path, f"there is no subvolume {entry.of} to take it of")
            origin.has_snapshots = True
            return Root(number, entry.path, origin.top, entry.read_only, origin)
        if entry.source is None:
            top = self._directory(0o755, 0, 0)
        else:
            top = Scanner(self._node_size).scan(entry)
        if entry.mode is not None:
            top.mode = stat.S_IFDIR | stat.S_IMODE(entry.mode)
        if entry.uid is not None:
            top.uid = entry.uid
        if entry.gid is not None:
            top.gid = entry.gid
        return Root(number, entry.path, top, entry.read_only)


def _is_replaceable(there: Inode | Root) -> bool:
    return isinstance(there, Inode) and (stat.S_ISREG(there.mode) or stat.S_ISLNK(there.mode))


def _wrong(path: str, what: str) -> MorphError:
    return MorphError(f"can't put {path!r} into the image: {what}", reason=Reason.DEPLOY)
