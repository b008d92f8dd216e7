"""Writing tar archives whose bytes depend on the files alone.

Members come sorted, with numeric owners and one fixed time, in the GNU format. Headers of ordinary
members are put together here, which is several times faster than `tarfile`; what does not fit into
a plain header (long names, huge files) is left to `tarfile`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from morphlib.build.members import MTIME, Member
from morphlib.errors import MorphError, Reason

BLOCK = 512
_RECORD = 10240  # archives are filled up to a multiple of this, as tar does
_CHUNK = 1 << 20
_LARGEST_SIZE = 8**11 - 1
_LARGEST_ID = 8**7 - 1

_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}

# After the link name: magic, no user and group names, device numbers, no prefix.
_TAIL = b"ustar  \0" + bytes(64) + bytes(16) + bytes(167)
_TIME = b"%011o\0" % MTIME
_SPACES = 8 * 32  # what the checksum field counts as while the checksum is made


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written: its SHA-256 in hexadecimal digits, and its size in bytes."""

    digest: str
    size: int


class _Output:
    """Gathers what is written into large pieces and sums them up."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._waiting >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        self.size += len(data)
        self._hash.update(data)
        left = memoryview(data)
        while left:
            left = left[os.write(self._fd, left) :]

    def finish(self) -> Written:
        self.write(bytes(2 * BLOCK))
        self.flush()
        self.write(bytes(-self.size % _RECORD))
        self.flush()
        return Written(self._hash.hexdigest(), self.size)


def write_tar(out: Path, root: Path, members: Iterable[Member]) -> Written:
    """Write an archive of `members`, whose content is below `root` or in themselves, to `out`.

    The first of several names of one file has its content, the others are hard links to it.
    Raises MorphError if a file changes while it is read, OSError if one can't be read, or `out`
    can't be written.
    """
    top = os.fspath(root) + "/"
    first_names: dict[tuple[int, int], str] = {}
    fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        output = _Output(fd)
        for member in members:
            if member.inode is not None:
                first = first_names.setdefault(member.inode, member.path)
                if first != member.path:
                    output.write(_header(member, tarfile.LNKTYPE, first, 0))
                    continue
            kind = _TYPES[stat.S_IFMT(member.mode)]
            output.write(_header(member, kind, member.target or "", member.size))
            if kind != tarfile.REGTYPE:
                continue
            if member.content is not None:
                output.write(member.content)
            elif member.size:
                _copy(top + member.path, member.size, output)
            if member.size % BLOCK:
                output.write(bytes(-member.size % BLOCK))
        return output.finish()
    finally:
        os.close(fd)


def _copy(path: str, size: int, output: _Output) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        left = size
        while left:
            data = os.read(fd, min(left, _CHUNK))
            if not data:
                raise _changed(path)
            output.write(data)
            left -= len(data)
    finally:
        os.close(fd)


def _changed(path: str) -> MorphError:
    return MorphError(
        f"{path} became shorter while it was archived",
        reason=Reason.BUILD,
        hint="Something outside of the sandbox writes there.",
    )


def _header(member: Member, kind: bytes, link: str, size: int) -> bytes:
    name = member.path
    if kind == tarfile.DIRTYPE:
        name = "./" if name == "." else name + "/"
    # As os.fsencode does, which asks first what it got and takes twice as long.
    encoded = name.encode("utf-8", "surrogateescape")
    target = link.encode("utf-8", "surrogateescape")
    if (
        len(encoded) > 100
        or len(target) > 100
        or size > _LARGEST_SIZE
        or member.uid > _LARGEST_ID
        or member.gid > _LARGEST_ID
        or member.device
    ):
        return _unusual_header(member, name, kind, link, size)
    head = b"%-100b%07o\0%07o\0%07o\0%011o\0%b" % (
        encoded.ljust(100, b"\0"),
        member.mode & 0o7777,
        member.uid,
        member.gid,
        size,
        _TIME,
    )
    tail = kind + target.ljust(100, b"\0") + _TAIL
    checksum = sum(head) + sum(tail) + _SPACES
    return b"%b%06o\0 %b" % (head, checksum, tail)


def _unusual_header(member: Member, name: str, kind: bytes, link: str, size: int) -> bytes:
    info = tarfile.TarInfo(name.rstrip("/") if name != "./" else ".")
    info.type, info.linkname, info.size = kind, link, size
    info.mode, info.uid, info.gid, info.mtime = member.mode & 0o7777, member.uid, member.gid, MTIME
    if member.device:
        info.devmajor, info.devminor = os.major(member.device), os.minor(member.device)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
