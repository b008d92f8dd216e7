"""Measuring and removing trees that builds left."""

# Plain text paths here: making Path objects takes longer than the system calls.
# ruff: noqa: PTH101, PTH104, PTH106, PTH108

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

#: Paths inside of a tree stay shorter than this many characters; the kernel takes 4095 bytes.
_LONG = 500


def tree_size(path: Path) -> int:
    """The bytes that removing a file or tree frees: files linked from elsewhere do not count.

    What can't be read is left out.
    """
    links: dict[tuple[int, int], int] = {}
    size = 0
    for found in _walk(path):
        if found.st_nlink > 1 and not _is_directory(found):
            seen = links.get((found.st_dev, found.st_ino), 0) + 1
            links[found.st_dev, found.st_ino] = seen
            if seen < found.st_nlink:
                continue
        size += found.st_blocks * 512
    return size


def remove_tree(path: Path) -> None:
    """Remove a file or tree in which nothing is mounted. Raises OSError. See `delete_tree`."""
    refuse_mounts(path)
    delete_tree(path)


def refuse_mounts(path: Path) -> None:
    """Raise OSError if something is mounted in a tree, so that nothing outside of it is lost."""
    real = path.parent.resolve() / path.name
    for mounted in mount_points():
        if mounted == real or real in mounted.parents:
            raise OSError(errno.EBUSY, "Something is mounted there", os.fspath(mounted))


def delete_tree(path: Path) -> None:
    """Delete a file or tree, directories without write permission included.

    Nothing happens if it is not there, and of it nothing that somebody else deletes meanwhile is
    missed. Raises OSError if it can't all be deleted.
    """
    top = os.fspath(path)
    # Depth first without recursion: a hostile tree can be thousands of directories deep.
    pending, emptied = [top], []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not _is_directory(os.lstat(top)):
            os.unlink(top)
            return
    while pending:
        directory = pending.pop()
        emptied.append(directory)
        for entry in _entries(directory):
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(_reachable(top, entry.path))
                else:
                    os.unlink(entry.path)
    for directory in reversed(emptied):
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(directory)


def _reachable(top: str, directory: str) -> str:
    """Where a directory is that may be too deep for the kernel to take paths into it: moved up."""
    if len(directory) - len(top) < _LONG:
        return directory
    moved = f"{top}/{os.urandom(12).hex()}"
    os.rename(directory, moved)
    return moved


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        if os.geteuid() != 0 and os.lstat(directory).st_mode & 0o700 != 0o700:
            os.chmod(directory, 0o700)
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _walk(path: Path) -> Iterator[os.stat_result]:
    pending = [os.fspath(path)]
    while pending:
        each = pending.pop()
        try:
            found = os.lstat(each)
            yield found
            if _is_directory(found):
                with os.scandir(each) as entries:
                    pending.extend(entry.path for entry in entries)
        except OSError:
            continue  # gone, or not for us to see


def _is_directory(found: os.stat_result) -> bool:
    return found.st_mode & 0o170000 == 0o040000


def mount_points() -> list[Path]:
    """Where something is mounted, as this process sees it, in the order of mounting."""
    with Path("/proc/self/mountinfo").open("rb") as file:
        fields = [line.split(b" ")[4] for line in file]
    return [Path(os.fsdecode(re.sub(rb"\\([0-7]{3})", _unescape, each))) for each in fields]


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
