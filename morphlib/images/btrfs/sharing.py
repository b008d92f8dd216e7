"""Letting new files share the data of files that a subvolume in the image has already."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from morphlib.images.btrfs.filedata import NODATASUM, DataReader, Undecodable
from morphlib.images.btrfs.inodes import EXTENT_REGULAR, InodeItem
from morphlib.images.btrfs.paths import Paths, Place
from morphlib.images.btrfs.planned import Data, Inode, Root, Shared
from morphlib.images.btrfs.scan import changed

_PIECE = 1 << 20


def share_equal_files(
    paths: Paths, data: DataReader, top: Inode, like: Place, generation: int
) -> None:
    """Files below `top` share their data with equal files below `like` at the same path.

    Raises MorphError if the image is damaged or a file can't be read.
    """
    pending = [(top, like)]
    while pending:
        directory, there = pending.pop()
        for name, child in (directory.children or {}).items():
            if isinstance(child, Root) or (child.data is None and child.children is None):
                continue
            place = paths.child(there, name)
            if place is None:
                continue
            if child.children is not None:
                if stat.S_ISDIR(paths.inode(place).mode):
                    pending.append((child, place))
            elif child.data is not None:
                shared = _shared(paths, data, child.data, place, generation)
                if shared is not None:
                    child.data, child.shared = None, shared


def _shared(
    paths: Paths, data: DataReader, wanted: Data, place: Place, generation: int
) -> Shared | None:
    inode = paths.inode(place)
    if not stat.S_ISREG(inode.mode) or inode.size != wanted.size or inode.flags & NODATASUM:
        return None
    tree = paths.tree(place.subvolume)
    extents = list(data.extents(tree, place.ino))
    if any(extent.type != EXTENT_REGULAR for _, extent in extents):
        return None
    if not _is_equal(paths, data, wanted, place, inode):
        return None
    taken = tuple(
        (offset, extent._replace(generation=generation).pack()) for offset, extent in extents
    )
    nbytes = sum(extent.num_bytes for _, extent in extents if extent.disk_bytenr)
    return Shared(inode.size, nbytes, taken)


def _is_equal(paths: Paths, data: DataReader, wanted: Data, place: Place, inode: InodeItem) -> bool:
    """Whether the file in the image has the content of one that is here."""
    here = _Content(wanted)
    try:
        at = 0
        for piece in data.pieces(paths.tree(place.subvolume), place.ino, inode):
            if not here.is_zero(at, piece.offset):
                return False
            if here.read(piece.offset, len(piece.data)) != piece.data:
                return False
            at = piece.offset + len(piece.data)
        return here.is_zero(at, wanted.size)
    except Undecodable:
        return False
    finally:
        here.close()


class _Content:
    """A file of this machine, or bytes."""

    def __init__(self, wanted: Data) -> None:
        self._wanted = wanted
        self._fd = -1
        if wanted.content is None:
            try:
                self._fd = os.open(wanted.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                raise changed(wanted.path) from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read(self, at: int, length: int) -> bytes:
        if self._wanted.content is not None:
            return self._wanted.content[at : at + length]
        try:
            return os.pread(self._fd, length, at)
        except OSError as error:
            raise changed(self._wanted.path) from error

    def is_zero(self, start: int, end: int) -> bool:
        """Whether nothing but zeroes is there. Holes are not read."""
        for at, until in self._runs(start, end):
            for begin in range(at, until, _PIECE):
                if any(self.read(begin, min(_PIECE, until - begin))):
                    return False
        return True

    def _runs(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for offset, length in self._wanted.runs:
            first, last = max(offset, start), min(offset + length, end)
            if first < last:
                yield first, last
