"""What an image will have, before anything has an address: inodes, names, subvolumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Data(NamedTuple):
    """The data of a file that is too large to stand in its inode.

    `runs` are the offsets and lengths of what is no hole, in whole sectors, the last of which may
    end after `size`. The bytes are `content`, or those of the file `path`, which had this inode
    number and this modification time (in ns).
    """

    size: int
    runs: tuple[tuple[int, int], ...]
    path: bytes = b""
    content: bytes | None = None
    ino: int = 0
    mtime_ns: int = 0


class Shared(NamedTuple):
    """Data that another file has already: offsets of extents, and what their items hold."""

    size: int
    nbytes: int
    extents: tuple[tuple[int, bytes], ...]


@dataclass(slots=True, eq=False)
class Inode:
    """A file of any type. Hard links are the same object under several names.

    `inline` is the content of a small file, or the target of a symlink. Directories have
    `children`. `number` and `names` (directory, index in it, name) are set when it is numbered.
    """

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    rdev: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    inline: bytes | None = None
    data: Data | None = None
    shared: Shared | None = None
    children: dict[bytes, Inode | Root] | None = None
    number: int = 0
    names: list[tuple[int, int, bytes]] = field(default_factory=list)


class Place(NamedTuple):
    """Where a subvolume's name is: the id of the subvolume around it, the directory, its index."""

    parent: int
    dirid: int
    dir_index: int
    name: bytes


@dataclass(slots=True, eq=False)
class Root:
    """A subvolume. A snapshot has the same `top` as the subvolume that it is of."""

    id: int
    path: str
    top: Inode
    read_only: bool = False
    origin: Root | None = None  # of a snapshot: that which it was taken of
    has_snapshots: bool = False
    place: Place | None = None  # set when the directory is numbered
