"""Reading a directory of this machine into inodes for an image."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.btree import largest_item
from morphlib.images.btrfs.inodes import DIR_ENTRY, FILE_EXTENT_HEAD, FILE_TYPES
from morphlib.images.btrfs.layout import SECTOR
from morphlib.images.btrfs.model import Node, Subvolume
from morphlib.images.btrfs.planned import Data, Inode

_INLINE = 2048  # as kernels do
_NOT_KEPT = "security.selinux"
#: Without waiting, should a FIFO have taken the place of a file.
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def inline_limit(node_size: int) -> int:
    """Up to what size files stand in the tree, in bytes."""
    return min(_INLINE, node_size // 8)


def content_of(content: bytes, mode: int, node_size: int, time_ns: int) -> Inode:
    """A file of root's with this content."""
    inode = Inode(mode, 0, 0, time_ns)
    if 0 < len(content) <= inline_limit(node_size):
        inode.inline = content
    elif content:
        inode.data = Data(len(content), ((0, whole_sectors(len(content))),), content=content)
    return inode


def whole_sectors(size: int) -> int:
    return -(-size // SECTOR) * SECTOR


class Scanner:
    """Reads a tree. Raises MorphError for what can't be read or kept."""

    def __init__(self, node_size: int) -> None:
        self._inline = inline_limit(node_size)
        self._largest = largest_item(node_size)
        self._links: dict[tuple[int, int], Inode] = {}

    def scan(self, wanted: Subvolume) -> Inode:
        """The top directory of a subvolume with a source."""
        assert wanted.source is not None
        source = os.fsencode(wanted.source)
        emptied = {os.fsencode(each) for each in wanted.emptied}
        nodes = {os.fsencode(path): node for path, node in wanted.nodes.items()}
        self._links = {}
        try:
            found = wanted.source.stat()
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), source)
            top = self._read(source, found)
            unread = [] if b"" in emptied else [(source, b"", top)]
            while unread:
                path, relative, directory = unread.pop()
                for below, inode in self._fill(path, relative, directory, nodes):
                    if below not in emptied:
                        unread.append((path + b"/" + below[len(relative) :], below + b"/", inode))
        except OSError as error:
            where = error.filename if error.filename is not None else source
            raise _unreadable(where, error) from error
        return top

    def _fill(
        self, path: bytes, relative: bytes, directory: Inode, nodes: Mapping[bytes, Node]
    ) -> list[tuple[bytes, Inode]]:
        """Read what is in a directory. Gives the directories in it, which are still empty."""
        children: dict[bytes, Inode] = {}
        inner = []
        links = self._links
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                found = entry.stat(follow_symlinks=False)
                mode = found.st_mode
                node = nodes.get(relative + name) if nodes else None
                if node is not None:
                    inode = self._stand_in(entry.path, found, node)
                elif found.st_nlink > 1 and not stat.S_ISDIR(mode):
                    number = (found.st_dev, found.st_ino)
                    known = links.get(number)
                    if known is None:
                        known = links[number] = self._read(entry.path, found)
                    inode = known
                else:
                    inode = self._read(entry.path, found)
                children[name] = inode
                if stat.S_ISDIR(mode) and inode.children is not None:
                    inner.append((relative + name, inode))
        directory.children = dict(children)
        return inner

    def _stand_in(self, path: bytes, found: os.stat_result, node: Node) -> Inode:
        """What is said to be there, with the content of what is if that has the same type."""
        if stat.S_IFMT(node.mode) not in FILE_TYPES:
            raise _unfit(path, f"mode {node.mode:o} has no type")
        if stat.S_IFMT(node.mode) == stat.S_IFMT(found.st_mode):
            inode = self._read(path, found)
            inode.mode, inode.uid, inode.gid = node.mode, node.uid, node.gid
        else:
            inode = Inode(node.mode, node.uid, node.gid, found.st_mtime_ns)
            if stat.S_ISDIR(node.mode):
                inode.children = {}
        inode.rdev = node.rdev
        return inode

    def _read(self, path: bytes, found: os.stat_result) -> Inode:
        mode = found.st_mode
        inode = Inode(mode, found.st_uid, found.st_gid, found.st_mtime_ns)
        if stat.S_ISREG(mode):
            size = found.st_size
            if size > self._inline:
                runs: tuple[tuple[int, int], ...] = ((0, whole_sectors(size)),)
                if found.st_blocks * 512 < size:
                    runs = _runs(path, size)
                ino, mtime = found.st_ino, found.st_mtime_ns
                inode.data = Data(size, runs, path, None, ino, mtime)
            elif size:
                inode.inline = _small(path, found)
        elif stat.S_ISDIR(mode):
            inode.children = {}
        elif stat.S_ISLNK(mode):
            inode.inline = os.readlink(path)  # noqa: PTH115
            if len(inode.inline) > self._largest - FILE_EXTENT_HEAD.size:
                raise _unfit(path, "the target of the symlink is too long for btrfs")
        elif stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            inode.rdev = found.st_rdev
        inode.xattrs = self._xattrs(path)
        return inode

    def _xattrs(self, path: bytes) -> tuple[tuple[bytes, bytes], ...]:
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return ()
            raise
        if not names:
            return ()
        found = []
        for name in names:
            if name == _NOT_KEPT:
                continue
            value = os.getxattr(path, name, follow_symlinks=False)
            raw = os.fsencode(name)
            if DIR_ENTRY.size + len(raw) + len(value) > self._largest:
                raise _unfit(path, f"the extended attribute {name} is too large for btrfs")
            found.append((raw, value))
        return tuple(found)


def _small(path: bytes, found: os.stat_result) -> bytes:
    fd = os.open(path, OPEN_FLAGS)
    try:
        content = os.read(fd, found.st_size + 1)
        check_unchanged(fd, path, found.st_size, found.st_ino, found.st_mtime_ns)
    finally:
        os.close(fd)
    if len(content) != found.st_size:
        raise changed(path)
    return content


def _runs(path: bytes, size: int) -> tuple[tuple[int, int], ...]:
    """What is no hole, in whole sectors."""
    found: list[tuple[int, int]] = []
    fd = os.open(path, OPEN_FLAGS)
    try:
        end = 0
        while end < size:
            try:
                data = os.lseek(fd, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole up to the end
                    break
                raise
            end = min(whole_sectors(os.lseek(fd, data, os.SEEK_HOLE)), whole_sectors(size))
            start = data // SECTOR * SECTOR
            if found and found[-1][0] + found[-1][1] >= start:
                start = found.pop()[0]
            if start < end:
                found.append((start, end - start))
    finally:
        os.close(fd)
    return tuple(found)


def check_unchanged(fd: int, path: bytes, size: int, ino: int, mtime_ns: int) -> None:
    """Raise MorphError if an open file is not as it was found."""
    now = os.fstat(fd)
    if (now.st_size, now.st_ino, now.st_mtime_ns) != (size, ino, mtime_ns):
        raise changed(path)


def changed(path: bytes) -> MorphError:
    return MorphError(
        f"{os.fsdecode(path)} changes while an image is made of it", reason=Reason.DEPLOY
    )


def _unfit(path: bytes, what: str) -> MorphError:
    return MorphError(f"{os.fsdecode(path)}: {what}", reason=Reason.DEPLOY)


def _unreadable(path: bytes | str, error: OSError) -> MorphError:
    return MorphError(f"can't read {os.fsdecode(path)}: {error.strerror}", reason=Reason.DEPLOY)
