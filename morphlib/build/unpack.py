"""Unpacking archives that nobody vouches for.

Nothing is written outside of the directory that is unpacked into: names that lead out, and names
below a symlink of the archive itself, are refused, and so are hard links to what is not in the
archive. Owners, modes and symlinks are kept as they are. Device nodes are not made but returned.
"""

# Plain text paths here: making Path objects takes longer than the system calls.
# ruff: noqa: PTH101, PTH102, PTH108, PTH211

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from morphlib.build.members import MTIME_NS, Member, parents
from morphlib.errors import MorphError, Reason

_CHUNK = 1 << 20
_MAX_DESCRIPTION = 64 << 20  # bytes of JSON

# What a kernel takes: bytes of a name, of a path and of what a symlink leads to; ids; and numbers
# of devices.
_MAX_NAME = 255
_MAX_PATH = 4000  # with some left for that of the directory
_MAX_TARGET = 4095
_MAX_ID = (1 << 32) - 2
_MAX_MAJOR = (1 << 12) - 1
_MAX_MINOR = (1 << 20) - 1

#: What the library raises for archives that are none. (Of headers it follows any number.)
_BROKEN = (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError, RecursionError)


def unpack_tar(tar: Path, into: Path) -> tuple[Member, ...]:
    """Unpack an archive into a new directory, and return the device nodes that are in it.

    A device node is an empty file there. Directories that the archive does not have are made with
    mode 755. Raises MorphError (CACHE) if the archive is damaged or hostile, or its owners can't
    be had here.
    """
    into.mkdir()
    try:
        with tarfile.open(tar, "r:", errorlevel=2) as archive:
            unpacking = _Unpacking(tar, into)
            for info in archive:
                unpacking.add(archive, info)
            _check_end(tar, archive.offset)
    except _BROKEN as error:
        raise _damaged(tar, str(error)) from error
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EPERM):
            raise _no_owner(tar, error) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(tar, into) from error
        raise _damaged(tar, str(error)) from error
    unpacking.finish()
    return tuple(unpacking.devices.values())


def check_tar(tar: Path, description: str = "") -> None:
    """Could `unpack_tar` unpack it? Raises MorphError (CACHE) if it is damaged or hostile, or lacks
    the file `description` with a JSON object, where that is given."""
    rules = _Rules(tar)
    is_described = not description
    try:
        with tarfile.open(tar, "r:", errorlevel=2) as archive:
            for info in archive:
                if rules.take(info).path == description:
                    is_described = info.isreg() and _is_object(archive, info)
            _check_end(tar, archive.offset)
    except (*_BROKEN, OSError) as error:
        raise _damaged(tar, str(error)) from error
    if not is_described:
        raise _damaged(tar, f"it has no proper {description}")


def _is_object(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bool:
    file = archive.extractfile(info)
    assert file is not None
    try:
        return info.size <= _MAX_DESCRIPTION and isinstance(json.loads(file.read()), dict)
    except (ValueError, RecursionError):
        return False


def _check_end(tar: Path, offset: int) -> None:
    """tarfile takes a damaged header for the end of an archive: a real end is a block of zeros."""
    with tar.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it breaks off, or has a damaged header")


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a member is: its path, the directories above it that are not there, outermost first,
    whether it takes the place of another, and what it is a hard link to."""

    path: str
    missing: tuple[str, ...] = ()
    is_new: bool = True
    target: str = ""


class _Rules:
    """What may be in an archive. `take` raises MorphError for what may not."""

    def __init__(self, tar: Path) -> None:
        self.tar = tar
        self.kinds: dict[str, bytes] = {}

    def take(self, info: tarfile.TarInfo) -> _Taken:
        path = self._checked(info.name)
        self._check_numbers(info)
        if info.issym() and not 0 < len(os.fsencode(info.linkname)) <= _MAX_TARGET:
            raise _damaged(self.tar, f"{info.name!r} is a link to nothing that could be")
        if "\0" in info.linkname:
            raise _damaged(self.tar, f"{info.name!r} is a link with a null byte")
        if path == ".":
            if not info.isdir():
                raise _damaged(self.tar, "its top is not a directory")
            return _Taken(path)
        missing = self._missing_parents(path)
        before = self.kinds.get(path)
        if before is not None and (before == tarfile.DIRTYPE) != info.isdir():
            raise _damaged(self.tar, f"{path!r} is both a directory and something else")
        target = self._checked_target(info, path) if info.islnk() else ""
        kind = tarfile.DIRTYPE if info.isdir() else info.type
        if not (info.isdir() or info.isreg() or info.islnk() or info.issym() or info.isdev()):
            raise _damaged(self.tar, f"{info.name!r} is of an unknown type")
        self.kinds[path] = kind
        return _Taken(path, missing, before is None, target)

    def _checked(self, name: str) -> str:
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\0" in name or not name:
            raise _damaged(self.tar, f"{name!r} leads out of it")
        raw = os.fsencode(name)
        if len(raw) > _MAX_PATH or any(len(part) > _MAX_NAME for part in raw.split(b"/")):
            raise _damaged(self.tar, f"{name[:100]!r}... is too long a name")
        return "/".join(part for part in parts if part not in ("", ".")) or "."

    def _check_numbers(self, info: tarfile.TarInfo) -> None:
        numbers = [(info.size, sys.maxsize), (info.uid, _MAX_ID), (info.gid, _MAX_ID)]
        if info.ischr() or info.isblk():
            numbers += [(info.devmajor, _MAX_MAJOR), (info.devminor, _MAX_MINOR)]
        if not all(0 <= number <= most for number, most in numbers):
            raise _damaged(self.tar, f"{info.name!r} has a size, owner or number that can't be")

    def _missing_parents(self, path: str) -> tuple[str, ...]:
        missing = []
        for parent in parents(path):
            if self.kinds.get(parent) == tarfile.DIRTYPE:
                break
            if parent in self.kinds:
                raise _damaged(self.tar, f"{path!r} is below {parent!r}, which is no directory")
            missing.append(parent)
        for parent in missing:
            self.kinds[parent] = tarfile.DIRTYPE
        return tuple(reversed(missing))

    def _checked_target(self, info: tarfile.TarInfo, path: str) -> str:
        target = self._checked(info.linkname)
        if target == path or self.kinds.get(target) not in (
            tarfile.REGTYPE,
            tarfile.AREGTYPE,
            tarfile.LNKTYPE,
        ):
            raise _damaged(self.tar, f"{info.name!r} is a hard link to {info.linkname!r}")
        return target


class _Unpacking:
    def __init__(self, tar: Path, into: Path) -> None:
        self.rules = _Rules(tar)
        self.top = os.fspath(into) + "/"
        self.devices: dict[str, Member] = {}
        self.directories: dict[str, int] = {".": 0o755}

    def add(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        taken = self.rules.take(info)
        path, full = taken.path, self.top + taken.path
        for parent in taken.missing:
            os.mkdir(self.top + parent, 0o700)
            self.directories[parent] = 0o755
        if info.isdir():
            if taken.is_new and path != ".":
                os.mkdir(full, 0o700)
            self.directories[path] = info.mode & 0o7777
            os.chown(full, info.uid, info.gid, follow_symlinks=False)
            return
        if not taken.is_new:
            os.unlink(full)
            self.devices.pop(path, None)
        if info.islnk():
            os.link(self.top + taken.target, full, follow_symlinks=False)
            return
        if info.issym():
            os.symlink(info.linkname, full)
        elif info.isfifo():
            os.mkfifo(full, 0o600)
        elif info.ischr() or info.isblk():
            self._note_device(path, full, info)
            return
        else:
            self._write(archive, info, full)
        os.chown(full, info.uid, info.gid, follow_symlinks=False)
        if not info.issym():
            os.chmod(full, info.mode & 0o7777)
        os.utime(full, ns=MTIME_NS, follow_symlinks=False)

    def finish(self) -> None:
        """Give directories their modes and times, inner ones first."""
        for path in sorted(self.directories, reverse=True):
            full = self.top if path == "." else self.top + path
            os.chmod(full, self.directories[path])
            os.utime(full, ns=MTIME_NS)

    def _note_device(self, path: str, full: str, info: tarfile.TarInfo) -> None:
        kind = stat.S_IFCHR if info.ischr() else stat.S_IFBLK
        number = os.makedev(info.devmajor, info.devminor)
        mode = kind | info.mode & 0o7777
        self.devices[path] = Member(path, mode, info.uid, info.gid, device=number)
        make_placeholder(full)

    def _write(self, archive: tarfile.TarFile, info: tarfile.TarInfo, full: str) -> None:
        source = archive.extractfile(info)
        assert source is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(full, flags, 0o600)
        try:
            self._copy(source, fd, info.size)
        finally:
            os.close(fd)

    def _copy(self, source: IO[bytes], fd: int, size: int) -> None:
        while size:
            data = source.read(min(size, _CHUNK))
            if not data:
                raise tarfile.ReadError("unexpected end of data")
            size -= len(data)
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]


def make_placeholder(full: str) -> None:
    """What stands for a device node in a tree: it hides what is below it and can't be misused."""
    os.close(os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0))
    os.utime(full, ns=MTIME_NS, follow_symlinks=False)


def _damaged(tar: Path, why: str) -> MorphError:
    return MorphError(
        f"{tar} is damaged: {why}",
        reason=Reason.CACHE,
        hint="Remove the file: it will be built or fetched again.",
    )


def _no_owner(tar: Path, error: OSError) -> MorphError:
    return MorphError(
        f"{tar} has files of owners that can't be had here: {error}",
        reason=Reason.SANDBOX,
        hint=(
            "Give your user subordinate ids in /etc/subuid and /etc/subgid (see morph doctor),"
            " or build as root."
        ),
    )


def _full(tar: Path, into: Path) -> MorphError:
    return MorphError(
        f"No space left to unpack {tar} into {into}",
        reason=Reason.SPACE,
        hint="Run morph gc, or free some space.",
    )
