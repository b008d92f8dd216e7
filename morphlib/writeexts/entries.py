"""The files of a tree as values, with what image formats keep of each."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.devices import Device

#: Attributes that belong to the machine on which the tree is, not to the system.
_OF_MACHINE = frozenset({"security.selinux", "system.nfs4_acl"})
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of any type. `source` is where it is on this machine.

    `mode` has the bits of the type. `inode` tells apart files that have several names, where this
    one has (None: it has not). `device` is the number of a device node.
    """

    source: Path
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    target: str = ""
    inode: tuple[int, int] | None = None
    device: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_device(self) -> bool:
        return stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)

    @property
    def numbers(self) -> tuple[int, int]:
        """Major and minor number of a device node."""
        return os.major(self.device), os.minor(self.device)


Entries = Mapping[str, Entry]


def read_entries(
    root: Path, devices: Mapping[str, Device], *, newest: int, attributes: bool = True
) -> dict[str, Entry]:
    """Path -> entry for all of a tree, sorted; the top is `.`. Sockets are left out.

    A directory comes before what is in it. `devices` are the nodes that empty files stand for. No
    time (seconds) is later than `newest`: that is what configuring a system took, not what it is.
    """
    return {
        path: _entry(root / path, devices.get(path), newest, attributes=attributes)
        for path in _walk(root)
    }


def _walk(root: Path) -> Iterator[str]:
    found = ["."]
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                elif not (entry.is_file(follow_symlinks=False) or entry.is_symlink()) and (
                    stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
                ):
                    continue
                found.append(path)
    # Not by plain text: `a-b` is not to come between `a` and `a/b`.
    return iter(sorted(found, key=lambda path: [] if path == "." else path.split("/")))


def _entry(path: Path, device: Device | None, newest: int, *, attributes: bool) -> Entry:
    found = path.lstat()
    mtime = min(int(found.st_mtime), newest)
    if device is not None:
        mode, number = device.mode, device.number
        return Entry(path, mode, device.uid, device.gid, mtime, device=number)
    mode = found.st_mode
    is_file, is_link = stat.S_ISREG(mode), stat.S_ISLNK(mode)
    is_node = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return Entry(
        path,
        mode,
        found.st_uid,
        found.st_gid,
        mtime,
        size=found.st_size if is_file else 0,
        target=str(path.readlink()) if is_link else "",
        inode=(found.st_dev, found.st_ino) if found.st_nlink > 1 and is_file else None,
        device=found.st_rdev if is_node else 0,
        attributes=_attributes(path) if attributes else (),
    )


def _attributes(path: Path) -> tuple[tuple[str, bytes], ...]:
    try:
        names = sorted(set(os.listxattr(path, follow_symlinks=False)) - _OF_MACHINE)
        return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return ()
        raise MorphError(
            f"can't read the attributes of {path}: {error.strerror}", reason=Reason.DEPLOY
        ) from error


def groups_of_names(entries: Entries) -> dict[str, tuple[str, ...]]:
    """Path -> all names of that file, for files that have several."""
    names: dict[tuple[int, int], list[str]] = {}
    for path, entry in entries.items():
        if entry.inode is not None:
            names.setdefault(entry.inode, []).append(path)
    return {path: tuple(group) for group in names.values() if len(group) > 1 for path in group}


def parents(path: str) -> Iterator[str]:
    """The directories that a path is in, the nearest first, without the top."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def stack(trees: Iterable[Entries]) -> dict[str, Entry]:
    """What overlaying trees gives, the last one on top."""
    result: dict[str, Entry] = {}
    for tree in trees:
        covered = {
            path
            for path, entry in tree.items()
            if path in result and result[path].is_directory and not entry.is_directory
        }
        if covered:
            result = {
                path: entry
                for path, entry in result.items()
                if not any(parent in covered for parent in parents(path))
            }
        # What was no directory and becomes one had nothing in it.
        result.update(tree)
    return result


def same_content(one: Entry, other: Entry) -> bool:
    """Whether two regular files of equal size hold the same bytes."""
    if one.size == 0 or one.source == other.source:
        return True
    with one.source.open("rb", 0) as first, other.source.open("rb", 0) as second:
        while True:
            piece = first.read(_PIECE)
            if piece != second.read(_PIECE):
                return False
            if not piece:
                return True
