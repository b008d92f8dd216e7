"""Measuring and removing trees that builds left."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path


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
    """Remove a file or tree, directories without write permission included.

    Raises OSError if something is mounted in it, so that nothing outside of it can be lost, or if
    it can't all be removed.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    real = path.parent.resolve() / path.name
    for mounted in _mount_points():
        if mounted == real or real in mounted.parents:
            raise OSError(errno.EBUSY, "Something is mounted there", os.fspath(mounted))
    _make_removable(path)
    shutil.rmtree(path)


def _make_removable(top: Path) -> None:
    """Let the owner of all directories in a tree enter and change them."""
    pending = [os.fspath(top)]
    while pending:
        directory = pending.pop()
        if os.lstat(directory).st_mode & 0o700 != 0o700:
            Path(directory).chmod(0o700)
        with os.scandir(directory) as entries:
            pending.extend(each.path for each in entries if each.is_dir(follow_symlinks=False))


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


def _mount_points() -> list[Path]:
    with Path("/proc/self/mountinfo").open("rb") as file:
        fields = [line.split(b" ")[4] for line in file]
    return [Path(os.fsdecode(re.sub(rb"\\([0-7]{3})", _unescape, each))) for each in fields]


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
