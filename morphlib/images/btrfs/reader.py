"""Reading a btrfs image without mounting it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from uuid import UUID

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.directories import read_directory, read_xattrs
from morphlib.images.btrfs.filedata import DataReader, Piece
from morphlib.images.btrfs.inodes import InodeItem, decode_rdev
from morphlib.images.btrfs.layout import EMPTY_SUBVOL_DIR
from morphlib.images.btrfs.paths import Paths, Place, decode
from morphlib.images.btrfs.subvolumes import SubvolumeInfo, Subvolumes
from morphlib.images.btrfs.trees import StoredTree, Trees
from morphlib.images.btrfs.volume import Volume

#: What `read_file` reads at most, in bytes.
LARGEST_FILE = 2 << 30


@dataclass(frozen=True, slots=True)
class Stat:
    """What an inode says of itself; `mode` has the bits of the type, `mtime_ns` is in ns."""

    subvolume: int
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    rdev: int  # as os.makedev makes it
    mtime_ns: int


class Image:
    """A filesystem in an image, open for reading. Use it as a context manager.

    Paths are relative to the top level and lead through subvolumes ("systems/default/orig/etc").
    Symlinks on the way are followed, also in the last place where `follow` is true; an absolute one
    starts at the top level. All methods raise MorphError for what isn't there, for a damaged
    filesystem, and for one with features that are unknown here.
    """

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self._volume = Volume(path, offset=offset)
        try:
            trees = Trees(self._volume)
            self._data = DataReader(trees)
            self._subvolumes = Subvolumes(trees)
            roots = StoredTree(trees, trees.root)
            self._paths = Paths(self._volume, roots, self._subvolumes.tree, self._data)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._volume.close()

    @property
    def fsid(self) -> UUID:
        return UUID(bytes=self._volume.superblock.fsid)

    @property
    def label(self) -> str:
        return decode(self._volume.superblock.label)

    @property
    def size(self) -> int:
        """Of the filesystem, in bytes."""
        return self._volume.superblock.total_bytes

    def subvolumes(self) -> tuple[SubvolumeInfo, ...]:
        """All subvolumes below the top level, by path."""
        return tuple(sorted(self._subvolumes.all(), key=lambda each: each.path))

    def exists(self, path: str, *, follow: bool = True) -> bool:
        return self._paths.look(path, follow=follow) is not None

    def resolve(self, path: str) -> str:
        """`path` without any symlinks in it."""
        return self._find(path)[1]

    def stat(self, path: str, *, follow: bool = True) -> Stat:
        place, _ = self._find(path, follow=follow)
        return _stat(place, self._paths.inode(place))

    def readlink(self, path: str) -> str:
        place, _ = self._find(path, follow=False)
        inode = self._paths.inode(place)
        if not stat.S_ISLNK(inode.mode):
            raise self._not(path, "no symlink")
        return decode(self._paths.target(place, inode))

    def read_file(self, path: str) -> bytes:
        """All of a file, of 2 GiB at most."""
        place, _ = self._find(path)
        inode = self._paths.inode(place)
        if not stat.S_ISREG(inode.mode):
            raise self._not(path, "no file")
        if inode.size > LARGEST_FILE:
            raise self._not(path, "too large to be read at once")
        content = bytearray()
        for piece in self._pieces(place, inode):
            content += bytes(piece.offset - len(content))
            content += piece.data
        return bytes(content + bytes(inode.size - len(content)))

    def read_pieces(self, path: str) -> Iterator[Piece]:
        """A file bit by bit, whatever its size. What is between pieces is a hole."""
        place, _ = self._find(path)
        inode = self._paths.inode(place)
        if not stat.S_ISREG(inode.mode):
            raise self._not(path, "no file")
        return self._pieces(place, inode)

    def xattrs(self, path: str, *, follow: bool = True) -> dict[str, bytes]:
        place, _ = self._find(path, follow=follow)
        if place.ino == EMPTY_SUBVOL_DIR:
            return {}
        found = read_xattrs(self._volume, self._subvolumes.tree(place.subvolume), place.ino)
        return {decode(name): value for name, value in found.items()}

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        place, _ = self._find(path)
        return [name for name, _ in self._entries(place, path)]

    def walk(self, path: str) -> Iterator[tuple[str, Stat]]:
        """Everything below `path`, by depth first and name, as paths relative to it.

        Subvolumes inside are entered, too.
        """
        place, _ = self._find(path)
        pending = [(iter(self._entries(place, path)), "")]
        entered = {place}
        while pending:
            entries, above = pending[-1]
            found = next(entries, None)
            if found is None:
                pending.pop()
                continue
            name, place = f"{above}{found[0]}", found[1]
            inode = self._paths.inode(place)
            yield name, _stat(place, inode)
            if not stat.S_ISDIR(inode.mode) or place.ino == EMPTY_SUBVOL_DIR:
                continue
            if place in entered:  # which keeps this finite, as directories have one name each
                raise self._volume.damaged(f"the directory {name} is in two places")
            entered.add(place)
            pending.append((iter(self._entries(place, name)), f"{name}/"))

    def _entries(self, place: Place, path: str) -> list[tuple[str, Place]]:
        if not stat.S_ISDIR(self._paths.inode(place).mode):
            raise self._not(path, "no directory")
        if place.ino == EMPTY_SUBVOL_DIR:
            return []
        tree = self._subvolumes.tree(place.subvolume)
        found = read_directory(self._volume, tree, place.ino)
        named = [(decode(each.name), self._paths.of_entry(place, each)) for each in found]
        return sorted(named, key=lambda each: each[0])

    def _find(self, path: str, *, follow: bool = True) -> tuple[Place, str]:
        found = self._paths.look(path, follow=follow)
        if found is None:
            raise MorphError(f"there is no {path} on {self._volume.path}", reason=Reason.NOT_FOUND)
        return found

    def _pieces(self, place: Place, inode: InodeItem) -> Iterator[Piece]:
        return self._data.pieces(self._subvolumes.tree(place.subvolume), place.ino, inode)

    def _not(self, path: str, what: str) -> MorphError:
        return MorphError(f"{path} on {self._volume.path} is {what}", reason=Reason.DEPLOY)


def _stat(place: Place, inode: InodeItem) -> Stat:
    return Stat(
        subvolume=place.subvolume,
        ino=place.ino,
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        nlink=inode.nlink,
        size=inode.size,
        rdev=decode_rdev(inode.rdev & 0xFFFFFFFF),  # kernels see no more of it
        mtime_ns=inode.mtime[0] * 10**9 + inode.mtime[1],
    )


def is_btrfs(path: Path, *, offset: int = 0) -> bool:
    """Whether the file or device has the mark of a btrfs filesystem at `offset` (bytes)."""
    with path.open("rb") as file:
        return os.pread(file.fileno(), 8, offset + 0x10040) == b"_BHRfS_M"


__all__ = ["Image", "Stat", "SubvolumeInfo", "is_btrfs"]
