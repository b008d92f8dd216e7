"""The image or device that is written to."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphlib.errors import MorphError, Reason

_STEP = 1 << 20
_ZEROS = bytes(_STEP)


class Target:
    """A file or block device, `offset` bytes of which come before the filesystem."""

    def __init__(self, fd: int, offset: int = 0) -> None:
        self.fd = fd
        self._offset = offset

    def write(self, data: bytes | memoryview, at: int) -> None:
        """Write at this place of the filesystem. Raises OSError."""
        at += self._offset
        written = os.pwrite(self.fd, data, at)
        while written < len(data):
            data, at = memoryview(data)[written:], at + written
            written = os.pwrite(self.fd, data, at)

    def clear(self, start: int, end: int) -> None:
        """Write zeros where there is something else. Raises OSError."""
        for at in range(start, end, _STEP):
            size = min(_STEP, end - at)
            found = os.pread(self.fd, size, at + self._offset)
            if found != _ZEROS[: len(found)]:
                self.write(_ZEROS[: len(found)], at)


@contextmanager
def new_image(path: Path, size: int) -> Iterator[Target]:
    """A new sparse file, which gets its name when the block ends without an exception.

    Raises MorphError if it can't be written or if something has that name.
    """
    with _told(path):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        fd, name = _nameless(path)
        try:
            os.truncate(fd, size)
            yield Target(fd)
            if name is None:
                # The descriptor makes it follow the link in /proc, in spite of being of no use.
                os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)
            else:
                os.link(name, path)
        finally:
            os.close(fd)
            if name is not None:
                name.unlink()


def _nameless(path: Path) -> tuple[int, Path | None]:
    """A file that vanishes when we do; where that can't be, one with another name."""
    try:
        return os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), None
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
    name = path.with_name(f".morph-image-{secrets.token_hex(8)}")
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666), name


@contextmanager
def place_in(path: Path, size: int, offset: int) -> Iterator[Target]:
    """`size` bytes at `offset` of an existing image or device.

    Raises MorphError if it can't be written or is too small.
    """
    with _told(path):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.lseek(fd, 0, os.SEEK_END) < offset + size:
                raise MorphError(
                    f"{path} ends before the {size} bytes at {offset} that are for btrfs",
                    reason=Reason.DEPLOY,
                )
            yield Target(fd, offset)
            if stat.S_ISBLK(os.fstat(fd).st_mode):
                os.fsync(fd)  # or nobody would be told what it could not take
        finally:
            os.close(fd)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise MorphError(
            f"can't write {path}: {error.strerror}",
            reason=Reason.SPACE if full else Reason.DEPLOY,
        ) from error
