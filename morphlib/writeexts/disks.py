"""Disks and images of disks that are written to in place: whether nobody else uses them."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason

_BLKRRPART = 0x125F
_BLKSSZGET = 0x1268
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length (0: all), process
_EDGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device or image file that is open and ours. Sizes are in bytes."""

    path: Path
    size: int
    sector: int
    is_device: bool
    fd: int

    def clear(self) -> None:
        """Wipe what tells of what was on the disk: its beginning and its end."""
        zeros = bytes(min(_EDGE, self.size))
        os.pwrite(self.fd, zeros, 0)
        os.pwrite(self.fd, zeros, self.size - len(zeros))

    def settle(self) -> None:
        """Have all on the disk, and tell the kernel of its new partitions."""
        os.fsync(self.fd)
        if self.is_device:
            try:
                fcntl.ioctl(self.fd, _BLKRRPART)
            except OSError:
                pass  # a device that can't have partitions


def is_block_device(path: Path) -> bool:
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def open_disk(path: Path, *, write: bool = True) -> Iterator[Disk]:
    """A disk or image that nobody else uses, nor can use in the block.

    A device must not be mounted or a part of another one, nor any partition on it; an image must
    not be in a loop device, a virtual machine that runs, or another upgrade. Without `write`, this
    is only found out. Raises MorphError.
    """
    flags = os.O_CLOEXEC | (os.O_RDWR if write else os.O_RDONLY)
    is_device = is_block_device(path)
    try:
        # For a block device, this flag without O_CREAT asks the kernel for sole use.
        fd = os.open(path, flags | (os.O_EXCL if is_device else 0))
    except OSError as error:
        raise _failure(path, error) from error
    try:
        if not is_device:
            _check_loops(path, fd)
            _lock(path, fd, write=write)
        yield Disk(path, os.lseek(fd, 0, os.SEEK_END), _sector(fd, is_device), is_device, fd)
    finally:
        os.close(fd)


def _sector(fd: int, is_device: bool) -> int:
    if not is_device:
        return 512
    return int.from_bytes(fcntl.ioctl(fd, _BLKSSZGET, bytes(4)), "little")


def _lock(path: Path, fd: int, *, write: bool) -> None:
    """QEMU knows of these locks, which belong to an open file, and takes some itself."""
    kind = fcntl.F_WRLCK if write else fcntl.F_RDLCK
    try:
        if write:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
            return
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        found = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise _used(path, "a virtual machine that runs, or another upgrade") from None
        if error.errno in (errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP):
            return  # a file system without locks
        raise _failure(path, error) from error
    if found[0] != fcntl.F_UNLCK:
        raise _used(path, "a virtual machine that runs, or another upgrade")


def _check_loops(path: Path, fd: int) -> None:
    """A loop device has the image open itself, and maybe mounted; no lock tells of it."""
    ours = os.fstat(fd)
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            theirs = Path(file.read_text().rstrip("\n")).stat()
        except OSError:
            continue  # gone, or seen under a name of another mount namespace
        if os.path.samestat(ours, theirs):
            raise _used(path, f"the loop device /dev/{file.parts[3]}")


def _used(path: Path, by: str) -> MorphError:
    return MorphError(f"{path} is in use by {by}", reason=Reason.DEPLOY)


def _failure(path: Path, error: OSError) -> MorphError:
    if error.errno == errno.EBUSY:
        return MorphError(
            f"{path} is in use: it, or a partition on it, is mounted or a part of another device",
            reason=Reason.DEPLOY,
        )
    return MorphError(f"can't open {path}: {error.strerror}", reason=Reason.DEPLOY)
