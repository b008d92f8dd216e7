"""The files of a tree as values: what split rules, archives and layers work on.

Paths are relative to the top of the tree, which itself is `.`; they hold bytes that are no UTF-8 as
surrogate escapes.
"""

# Plain text paths here: making Path objects takes longer than the system calls.
# ruff: noqa: PTH115

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from morphlib.errors import MorphError, Reason
from morphlib.graph.model import DeviceNode

#: The modification time of everything in artifacts: 24 August 1991, 23:00 UTC.
MTIME = 683074800
MTIME_NS = (MTIME * 10**9, MTIME * 10**9)

_SHOWN = 300  # characters of a path that an error shows
_LARGEST_MAJOR, _LARGEST_MINOR = 2**12 - 1, 2**20 - 1  # of devices, in the kernel
DIRECTORY_MODE = stat.S_IFDIR | 0o755


class Member(NamedTuple):
    """A file of any type. `mode` has the bits of the type; `inode` tells apart files that have
    several names (None: a single one); `content` is there for files that are not on disk."""

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str | None = None  # of a symlink
    inode: tuple[int, int] | None = None
    device: int = 0  # number of a character or block device
    content: bytes | None = None

    @property
    def is_directory(self) -> bool:
        return self.mode & 0o170000 == 0o040000

    @property
    def is_device(self) -> bool:
        return self.mode & 0o170000 in (0o020000, 0o060000)


def walk_tree(root: Path, *, normalise: bool = False) -> list[Member]:
    """Every member of a tree sorted by path, its top first.

    With `normalise`, the modification time of all but directories becomes that of artifacts, and
    extended attributes go: archives don't keep them, and a layer must be what its archive is.
    Raises MorphError for what no archive can hold, or if the tree can't be read.
    """
    try:
        return _walk(os.fspath(root), normalise=normalise)
    except OSError as error:
        what = os.fsdecode(error.filename or root)
        if len(what) > _SHOWN:
            what = what[:_SHOWN] + "..."
        raise MorphError(
            f"Can't read {what}: {error.strerror or error}", reason=Reason.BUILD
        ) from error


def _walk(top: str, *, normalise: bool) -> list[Member]:
    members: list[Member] = []
    add = members.append
    pending = [("", top)]
    while pending:
        prefix, directory = pending.pop()
        with _open_directory(directory) as fd, os.scandir(fd) as entries:
            for entry in entries:
                # From its own directory: a third of the time, for trees with long paths.
                found = entry.stat(follow_symlinks=False)
                path = prefix + entry.name
                kind = found.st_mode & 0o170000
                if normalise:
                    _normalise(f"{directory}/{entry.name}", is_directory=kind == 0o040000)
                if kind == 0o100000:
                    inode = (found.st_dev, found.st_ino) if found.st_nlink > 1 else None
                    add(
                        Member(
                            path,
                            found.st_mode,
                            found.st_uid,
                            found.st_gid,
                            found.st_size,
                            None,
                            inode,
                        )
                    )
                elif kind == 0o040000:
                    add(Member(path, found.st_mode, found.st_uid, found.st_gid))
                    pending.append((path + "/", f"{directory}/{entry.name}"))
                else:
                    add(_special(path, f"{directory}/{entry.name}", found))
    members.sort()
    found = os.lstat(top)
    if normalise:
        _normalise(top, is_directory=True)
    return [Member(".", found.st_mode, found.st_uid, found.st_gid), *members]


@contextlib.contextmanager
def _open_directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _special(path: str, full: str, found: os.stat_result) -> Member:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFLNK:
        # Symlinks have no mode of their own; file systems differ in what they make up.
        target = os.readlink(full)
        return Member(path, stat.S_IFLNK | 0o777, found.st_uid, found.st_gid, 0, target)
    if kind == stat.S_IFIFO:
        return Member(path, found.st_mode, found.st_uid, found.st_gid)
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and found.st_rdev != 0:
        return Member(path, found.st_mode, found.st_uid, found.st_gid, device=found.st_rdev)
    what = "a socket" if kind == stat.S_IFSOCK else "a device that stands for a removed file"
    raise MorphError(
        f"Unsupported type: {path!r} is {what}",
        reason=Reason.BUILD,
        hint="Install files, directories, symlinks, FIFOs; declare device nodes as devices.",
    )


def _normalise(path: str, *, is_directory: bool) -> None:
    for name in _attributes(path):
        # Labels of SELinux belong to this machine and can't be taken off.
        if not name.startswith("security.selinux"):
            os.removexattr(path, name, follow_symlinks=False)
    if not is_directory:
        os.utime(path, ns=MTIME_NS, follow_symlinks=False)


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []  # this file system has none
        raise


def file_member(path: str, content: bytes, permissions: int = 0o644) -> Member:
    """A file that is not on disk."""
    return Member(path, stat.S_IFREG | permissions, size=len(content), content=content)


def device_members(devices: Iterable[DeviceNode], members: Sequence[Member]) -> list[Member]:
    """The device nodes that a chunk declares, checked against what it installs.

    Raises MorphError if a node's directory does not exist or its path is taken or leads out.
    """
    present = {member.path: member for member in members}
    nodes: list[Member] = []
    for device in devices:
        path = normal_path(device.filename)
        if path is None:
            raise _device_error(device, "the path leads out of the installation")
        parent = present.get(path.rpartition("/")[0] or ".")
        if parent is None or not parent.is_directory:
            raise _device_error(device, "its directory is not installed")
        if path in present:
            raise _device_error(device, "there is a file of that name already")
        kinds = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}
        if device.type not in kinds:
            raise _device_error(device, f"unrecognized device type {device.type}")
        if device.major > _LARGEST_MAJOR or device.minor > _LARGEST_MINOR:
            raise _device_error(device, f"no device is {device.major}:{device.minor}")
        if device.major == device.minor == 0:
            raise _device_error(device, "0:0 stands for a removed file")
        mode = kinds[device.type] | int(device.permissions, 8) & 0o777
        number = os.makedev(device.major, device.minor)
        nodes.append(Member(path, mode, device.uid, device.gid, device=number))
        present[path] = nodes[-1]
    return nodes


def _device_error(device: DeviceNode, why: str) -> MorphError:
    return MorphError(f"can't make device node {device.filename}: {why}", reason=Reason.BUILD)


def normal_path(path: str) -> str | None:
    """A path without `.` parts and leading slashes, None if it is empty or has a `..`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in path:
        return None
    return "/".join(parts)


def parents(path: str) -> Iterator[str]:
    """The directories above a path, nearest first, without the top."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def with_parents(
    chosen: Sequence[Member], extras: Sequence[Member], present: Mapping[str, Member]
) -> tuple[Member, ...]:
    """The members of one artifact: what was chosen of `present`, `extras`, and all directories
    above these, sorted, the top (if chosen) first.

    An extra takes the place of what is installed at its path. Raises MorphError if what is
    installed leaves no way to it.
    """
    result = {member.path: member for member in chosen}
    for extra in extras:
        installed = present.get(extra.path)
        if installed is not None and installed.is_directory:
            raise _reserved(extra.path, "a directory")
        result[extra.path] = extra
    for path in list(result):
        for parent in parents(path):
            if parent in result and result[parent].is_directory:
                break
            known = present.get(parent, Member(parent, DIRECTORY_MODE))
            if not known.is_directory:
                raise _reserved(parent, "not a directory")
            result[parent] = known
    return tuple(
        sorted(
            result.values(), key=lambda member: ("" if member.path == "." else "/") + member.path
        )
    )


def _reserved(path: str, what: str) -> MorphError:
    return MorphError(
        f"the chunk installs /{path}, which is {what}",
        reason=Reason.BUILD,
        hint="Morph keeps its own files there: install it elsewhere.",
    )
