"""Writing beside the place that something shall have, and renaming it into place when it is whole.

Who looks at the place sees what was there before, or all of the new, whenever a writer is killed.
What a writer leaves that was killed too hard to clean up, the next one for that place removes: it
knows leavings by their names, and that nobody holds a lock on them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphlib.cache.trees import delete_tree
from morphlib.errors import MorphError, Reason
from morphlib.writeexts.signals import held_back

#: What programs that write there are started with: they end when we do, however that is. Else they
#: would go on with what the next writer removes.
ENDING_WITH_US = ("setpriv", "--pdeathsig", "KILL")

_SUFFIX = ".morph-part"
_THERE = "it is there already"
_FULL = "it is there already, and is no empty directory"


@contextmanager
def new_file(
    target: Path, *, mode: int = 0o644, parents: bool = False, replace: bool = True
) -> Iterator[Path]:
    """Gives a new empty file to write to, which takes the place of `target` in the end.

    If an exception ends the block, `target` is as it was before. A symlink is followed. A device or
    FIFO is written to as it is, for nothing could take its place. With `parents`, directories on
    the way are made (and stay). Without `replace`, it is an error if `target` is there, also if it
    appears meanwhile. Raises MorphError if `target` can't be written.
    """
    found = _mode(target)
    if found is not None and stat.S_ISDIR(found):
        raise _taken(target, "it is a directory")
    if found is not None and not replace:
        raise _taken(target, _THERE)
    if found is not None and not stat.S_ISREG(found):
        yield target
        return
    place = _place(target, parents=parents)
    _remove_leavings(place)
    with _held(place, directory=False) as part:
        try:
            yield part
        except OSError as error:
            if error.filename is None:  # of a full disk, which says not where it is
                raise _failure(target, error) from error
            raise
        try:
            part.chmod(mode)
            if replace:
                part.rename(place)
            else:
                os.link(part, place)
                part.unlink()
        except FileExistsError:
            raise _taken(target, _THERE) from None
        except OSError as error:
            raise _failure(target, error) from error


def check_new_file(target: Path) -> None:
    """Refuse early what `new_file` with `parents` would refuse. Raises MorphError."""
    found = _mode(target)
    if found is not None and stat.S_ISDIR(found):
        raise _taken(target, "it is a directory")
    if found is None or stat.S_ISREG(found):
        check_way(target)


def check_way(target: Path) -> None:
    """Refuse a place beside which nothing can be written, or that no directories can be made for.

    Of a place inside another system, nothing of the way is there before that is unpacked. Raises
    MorphError.
    """
    try:
        place = target.resolve()
        above = next(path for path in (*place.parents, place) if os.path.lexists(path))
    except (OSError, RuntimeError) as error:
        raise _failure(target, error) from error
    if not above.is_dir():
        raise MorphError(f"can't write {target}: {above} is not a directory", reason=Reason.DEPLOY)
    if not os.access(above, os.W_OK | os.X_OK):
        raise MorphError(f"can't write {above}: Permission denied", reason=Reason.DEPLOY)


@contextmanager
def new_directory(target: Path, *, parents: bool = False) -> Iterator[Path]:
    """Gives a new empty directory (mode 0700), which gets the name `target` in the end.

    If an exception ends the block, what was made is removed. Raises MorphError if something is at
    `target` already, other than an empty directory, or if it can't be made.
    """
    place = _place(target, parents=parents)
    found = _mode(place)
    if found is not None and not (stat.S_ISDIR(found) and not any(os.scandir(place))):
        raise _taken(target, _FULL)
    _remove_leavings(place)
    with _held(place, directory=True) as part:
        yield part
        try:
            part.rename(place)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise _taken(target, _FULL) from None
            raise _failure(target, error) from error


@contextmanager
def held_directory(place: Path) -> Iterator[Path]:
    """Gives a new empty directory (mode 0700) beside `place`, which is removed in the end.

    What others left of such ones is removed first. Raises MorphError if it can't be made.
    """
    _remove_leavings(place)
    with _held(place, directory=True) as part:
        yield part


@contextmanager
def _held(place: Path, *, directory: bool) -> Iterator[Path]:
    """Something new beside `place`, locked; removed if it is still there in the end."""
    with held_back() as let_through:
        try:
            part, lock = _make(place, directory=directory)
            while not _hold(part, lock):
                os.close(lock)
                part, lock = _make(place, directory=directory)
        except OSError as error:
            raise _failure(place, error) from error
        try:
            let_through()
            yield part
        finally:
            # Before the lock goes, or another writer could be removing the same.
            delete_tree(part)
            os.close(lock)


def _make(place: Path, *, directory: bool) -> tuple[Path, int]:
    prefix = _prefix(place)
    if directory:
        part = Path(tempfile.mkdtemp(_SUFFIX, prefix, place.parent))
        return part, os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    fd, name = tempfile.mkstemp(_SUFFIX, prefix, place.parent)
    return Path(name), fd


def _hold(part: Path, lock: int) -> bool:
    """Take the lock. False if another writer took this for a leaving in the meantime."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.path.samestat(part.lstat(), os.fstat(lock))
    except (BlockingIOError, FileNotFoundError):
        return False


def _remove_leavings(place: Path) -> None:
    """Remove what writers of `place` left that are no more."""
    prefix = _prefix(place)
    for entry in os.scandir(place.parent):
        if not (entry.name.startswith(prefix) and entry.name.endswith(_SUFFIX)):
            continue
        try:
            fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # of somebody else, or gone
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            delete_tree(Path(entry.path))
        except OSError:
            pass  # somebody is writing it
        finally:
            os.close(fd)


def _place(target: Path, *, parents: bool) -> Path:
    try:
        place = target.resolve()
        if parents:
            check_way(target)
            place.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of symlinks
        raise _failure(target, error) from error
    if not place.parent.is_dir():
        raise MorphError(
            f"can't write {target}: {place.parent} is not a directory", reason=Reason.DEPLOY
        )
    return place


def _prefix(place: Path) -> str:
    return "." + os.fsdecode(os.fsencode(place.name)[:180]) + "."


def _mode(path: Path) -> int | None:
    """What is at a path, links followed. Raises MorphError if they go in circles."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _failure(path, error) from error


def _taken(target: Path, what: str) -> MorphError:
    return MorphError(f"can't write {target}: {what}", reason=Reason.DEPLOY)


def _failure(target: Path, error: Exception) -> MorphError:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return MorphError(f"can't write {target}: {why}", reason=Reason.DEPLOY)
