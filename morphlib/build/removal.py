"""Removing trees that builds left, whatever is in them."""

# Plain text paths here: making Path objects takes longer than the system calls.
# ruff: noqa: PTH101, PTH104, PTH106, PTH108

from __future__ import annotations

import os
import stat
from pathlib import Path

from morphlib.build.namespace import enter_build_namespace
from morphlib.errors import MorphError, Reason

#: Paths inside of a tree stay shorter than this many characters; the kernel takes 4095 bytes.
_LONG = 500

_DENIED = 77  # status of a child that could not remove a tree


def remove_tree(path: Path) -> None:
    """Remove a file or a tree; nothing happens if it is not there.

    A tree may have directories that can't be entered, and, where the caller is an ordinary user,
    files of its subordinate ids: for these a child enters a user namespace. Nothing may write to
    the tree meanwhile. Raises MorphError if something can't be removed.
    """
    try:
        _remove(os.fspath(path))
    except PermissionError:
        if os.geteuid() == 0 or not _remove_in_namespace(path):
            raise _failure(path, "some of it belongs to somebody else") from None
    except OSError as error:
        raise _failure(path, error.strerror or str(error)) from error


def _remove(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(path)
        return
    # Depth first without recursion: a hostile tree can be thousands of directories deep.
    pending = [path]
    emptied: list[str] = []
    while pending:
        directory = pending.pop()
        emptied.append(directory)
        for entry in _entries(directory):
            if entry.is_dir(follow_symlinks=False):
                pending.append(_reachable(path, entry.path))
            else:
                os.unlink(entry.path)
    for directory in reversed(emptied):
        os.rmdir(directory)


def _reachable(top: str, directory: str) -> str:
    """Where a directory is that may be too deep for the kernel to take paths into it: moved up."""
    if len(directory) - len(top) < _LONG:
        return directory
    moved = f"{top}/{os.urandom(12).hex()}"
    os.rename(directory, moved)
    return moved


def _entries(directory: str) -> list[os.DirEntry[str]]:
    if os.geteuid() != 0 and os.lstat(directory).st_mode & 0o700 != 0o700:
        os.chmod(directory, 0o700)
    with os.scandir(directory) as entries:
        return list(entries)


def _remove_in_namespace(path: Path) -> bool:
    child = os.fork()
    if child == 0:
        status = _DENIED
        try:
            enter_build_namespace()
            _remove(os.fspath(path))
            status = 0
        except (MorphError, OSError):
            status = _DENIED
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _failure(path: Path, why: str) -> MorphError:
    return MorphError(
        f"Can't remove {path}: {why}",
        reason=Reason.CACHE,
        hint="Remove it by hand (as root, if need be).",
    )
