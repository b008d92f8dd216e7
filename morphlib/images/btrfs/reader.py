"""Reading a btrfs image without mounting it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from uuid import UUID


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
        raise NotImplementedError

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
        raise NotImplementedError

    @property
    def fsid(self) -> UUID:
        raise NotImplementedError

    @property
    def label(self) -> str:
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Of the filesystem, in bytes."""
        raise NotImplementedError

    def subvolumes(self) -> tuple[SubvolumeInfo, ...]:
        """All subvolumes below the top level, by path."""
        raise NotImplementedError

    def exists(self, path: str, *, follow: bool = True) -> bool:
        raise NotImplementedError

    def resolve(self, path: str) -> str:
        """`path` without any symlinks in it."""
        raise NotImplementedError

    def stat(self, path: str, *, follow: bool = True) -> Stat:
        raise NotImplementedError

    def readlink(self, path: str) -> str:
        raise NotImplementedError

    def read_file(self, path: str) -> bytes:
        raise NotImplementedError

    def xattrs(self, path: str, *, follow: bool = True) -> dict[str, bytes]:
        raise NotImplementedError

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        raise NotImplementedError

    def walk(self, path: str) -> Iterator[tuple[str, Stat]]:
        """Everything below `path`, by depth first and name, as paths relative to it.

        Subvolumes inside are entered, too.
        """
        raise NotImplementedError


def is_btrfs(path: Path, *, offset: int = 0) -> bool:
    """Whether the file or device has the mark of a btrfs filesystem at `offset` (bytes)."""
    with path.open("rb") as file:
        return os.pread(file.fileno(), 8, offset + 0x10040) == b"_BHRfS_M"
