"""Locks between processes that share a cache.

All of them are flock(2) locks: the kernel drops them when their holder dies, however it dies, so
there are no stale locks. They exclude threads of one process as well, since each acquisition opens
the file anew. A forked child shares its parent's lock until both have closed it or one released it.

A lock file may be removed by its holder (and only by its holder) while others wait for it. Whoever
gets the lock therefore compares what was locked with what stands at the path, and starts over if
these are no longer the same file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from morphlib.cache.failures import storage_error
from morphlib.errors import MorphError, Reason

_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,200}")


class _MovedAwayError(Exception):
    """What was locked is no longer what stands at the path."""


class LockBusyError(MorphError):
    """Another process holds a lock that was asked for without waiting."""

    def __init__(self, path: Path, holder: int | None) -> None:
        self.holder = holder
        who = f"process {holder}" if holder else "another process"
        super().__init__(
            f"{path} is locked by {who}",
            reason=Reason.CACHE,
            hint="Wait until it is done, or end it.",
        )


class Lock:
    """A lock that is held. Released by `release`, the end of a `with`, or the process' end."""

    def __init__(self, path: Path, fd: int, *, remove: bool) -> None:
        self.path = path
        self._fd = fd
        self._remove = remove

    def release(self) -> None:
        """Let go of the lock; a lock file made for it alone is removed. Harmless if repeated."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if self._remove and _is_at(fd, self.path):
                self.path.unlink()
        except OSError:
            pass  # the file stays: a later holder or gc removes it
        try:
            fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def fileno(self) -> int:
        return self._fd

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def acquire(
    path: Path, *, shared: bool = False, blocking: bool = True, remove: bool = False
) -> Lock | None:
    """Lock `path`, a file (made if missing) or a directory (which has to exist).

    None if it is held and `blocking` is false. With `remove` the file exists for the lock's sake
    only and goes when the lock is released. Raises MorphError if the file can't be made or opened.
    """
    assert not (shared and remove), "other holders of a shared lock still need its file"
    while True:
        fd = _open(path)
        try:
            return _lock(fd, path, shared=shared, blocking=blocking, remove=remove)
        except _MovedAwayError:
            continue


def acquire_directory(path: Path, *, blocking: bool = True) -> Lock | None:
    """Lock a directory that has to exist. None if it is held and `blocking` is false.

    Raises MorphError (NOT_FOUND) if it is not there, or no longer when the lock was granted.
    """
    try:
        return _lock(_open_directory(path), path, shared=False, blocking=blocking, remove=False)
    except (_MovedAwayError, FileNotFoundError) as error:
        raise MorphError(f"{path} does not exist", reason=Reason.NOT_FOUND) from error


@contextmanager
def lock(
    path: Path, *, shared: bool = False, blocking: bool = True, remove: bool = False
) -> Iterator[Lock]:
    """`acquire` for a block. Raises LockBusyError instead of waiting if `blocking` is false."""
    held = acquire(path, shared=shared, blocking=blocking, remove=remove)
    if held is None:
        raise LockBusyError(path, read_holder(path))
    with held:
        yield held


def make_locked_directory(parent: Path, prefix: str = "tmp") -> tuple[Path, Lock]:
    """A fresh directory in `parent`, locked before garbage collection could take it away."""
    while True:
        try:
            directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        except OSError as error:
            raise storage_error(error, "make a directory", parent) from error
        try:
            return directory, _demand(acquire_directory(directory))
        except MorphError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise


def is_locked(path: Path) -> bool:
    """Does someone hold a lock on the file or directory? False if it is not there.

    Asking takes the lock for an instant, so somebody's attempt at the same time may find it busy:
    who wants a lock that was busy has to try again rather than give up.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, f"look at the lock {path.name}", path.parent) from error
    try:
        # Exclusive, for a shared one would not meet other shared ones.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def write_holder(held: Lock) -> None:
    """Note in a lock file who holds it, for messages."""
    os.pwrite(held.fileno(), f"{os.getpid():<12}\n".encode(), 0)


def read_holder(path: Path) -> int | None:
    """The process id that a lock file's holder noted, None if there is none."""
    try:
        with path.open("rb") as file:
            text = file.read(20).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


class KeyLocks:
    """One lock per cache key: who holds it builds that source, others wait for its artifacts.

    The files `DIRECTORY/KEY` exist only while a lock is held, or after a holder was killed; the
    latter are removed by the next holder or by `sweep`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def try_acquire(self, key: str) -> Lock | None:
        """The lock of `key`, or None if somebody has it. Raises MorphError if it can't be made."""
        held = acquire(self._path(key), blocking=False, remove=True)
        if held is not None:
            self._note(held)
        return held

    def acquire(self, key: str) -> Lock:
        """The lock of `key`, waiting for it as long as it takes."""
        held = _demand(acquire(self._path(key), remove=True))
        self._note(held)
        return held

    def holder(self, key: str) -> int | None:
        """The process id of who holds (or last held) the lock of `key`, None if unknown."""
        return read_holder(self._path(key))

    def is_held(self, key: str) -> bool:
        return is_locked(self._path(key))

    def sweep(self) -> int:
        """Remove the files that killed holders left. Returns how many."""
        removed = 0
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return 0
        for name in names:
            if _KEY.fullmatch(name) is None:
                continue
            held = acquire(self.directory / name, blocking=False, remove=True)
            if held is not None:
                held.release()
                removed += 1
        return removed

    def _path(self, key: str) -> Path:
        if _KEY.fullmatch(key) is None:
            raise MorphError(f"not a cache key: {key!r}", reason=Reason.CACHE)
        return self.directory / key

    @staticmethod
    def _note(held: Lock) -> None:
        try:
            write_holder(held)
        except OSError:
            pass  # the note is for messages only; a full disk is reported where it matters


def _demand(held: Lock | None) -> Lock:
    assert held is not None, "a waiting acquisition always ends with the lock"
    return held


def _open(path: Path) -> int:
    """Open a lock file or directory. A missing parent directory is made."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    for attempt in (1, 2):
        try:
            return os.open(path, flags, 0o666)
        except IsADirectoryError:
            return _open_directory(path)
        except FileNotFoundError as error:
            if attempt == 2:
                raise storage_error(error, f"make the lock {path.name}", path.parent) from error
            _make_parent(path)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EROFS) and path.is_dir():
                return _open_directory(path)
            raise storage_error(error, f"make the lock {path.name}", path.parent) from error
    raise AssertionError("the second attempt returns or raises")


def _lock(fd: int, path: Path, *, shared: bool, blocking: bool, remove: bool) -> Lock | None:
    """Lock an open file, which is closed unless that works. Raises _MovedAwayError."""
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if blocking else fcntl.LOCK_NB)
    keep = False
    try:
        fcntl.flock(fd, operation)
        if not _is_at(fd, path):
            raise _MovedAwayError
        keep = True
        return Lock(path, fd, remove=remove)
    except BlockingIOError:
        return None
    except OSError as error:
        raise storage_error(error, f"lock {path.name}", path.parent) from error
    finally:
        if not keep:
            os.close(fd)


def _open_directory(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(error, f"lock {path.name}", path.parent) from error


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"make the directory of the lock {path.name}", path) from error


def _is_at(fd: int, path: Path) -> bool:
    """Is the open file still the one at `path`?"""
    here = os.fstat(fd)
    try:
        there = path.lstat()
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
