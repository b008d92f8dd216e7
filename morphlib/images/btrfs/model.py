"""What goes into a btrfs image, as values.

Paths of entries are relative to the top level of the filesystem, `/`-separated, and may hold bytes
that are no UTF-8 as surrogate escapes. Directories above an entry must be entries themselves, or be
in the image already; an entry stands after what it needs.

Entries may lie inside a subvolume that comes before them in the same call, in creating as in
upgrading: a `File` or `Symlink` there replaces what the subvolume's `source` has at that path (the
completed /etc/fstab, which the tree does not have), a `Directory` is made where `source` has none
(mount points). Snapshots that come later have them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Extended attributes: names and values.
Xattrs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Node:
    """Mode with the bits of the type, owner, group and device number (as `os.makedev` makes it)."""

    mode: int
    uid: int = 0
    gid: int = 0
    rdev: int = 0


@dataclass(frozen=True, slots=True)
class Directory:
    """A plain directory. Upgrading leaves one that is there as it is."""

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    xattrs: Xattrs = ()


@dataclass(frozen=True, slots=True)
class File:
    """A regular file with this content. Upgrading replaces a file or symlink that is there."""

    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    xattrs: Xattrs = ()


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link. Upgrading replaces a file or symlink that is there."""

    path: str
    target: str
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Subvolume:
    """A subvolume with what `source`, a directory on this machine, holds; None: an empty one.

    Types, modes, numeric owners, modification times, hard links, extended attributes (labels of
    SELinux excepted) and holes of files are kept. `mode` (permissions only), `uid` and `gid` of the
    subvolume's top are those of `source` where they are None (0755 and 0 without a source).

    `emptied` names directories, relative to `source`, that stay but whose contents are left out.
    `nodes` says what stands at paths relative to `source` whatever type is found there: device
    nodes that are mere empty files in an ordinary user's tree; names in it that `source` hasn't are
    not made. `like`, for upgrades, is the path of a subvolume in the image: a file that has the
    same path and content there shares its data.
    """

    path: str
    source: Path | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    emptied: frozenset[str] = frozenset()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    read_only: bool = False
    like: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the subvolume at the path `of`, with which it shares all it holds."""

    path: str
    of: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Removal:
    """Upgrades only: takes away what is at `path`. A directory must be empty by then.

    Removing a subvolume takes what is in it, too, but not if other subvolumes lie inside it.
    """

    path: str


Entry = Directory | File | Symlink | Subvolume | Snapshot
Change = Entry | Removal
