"""Is there room enough to build?

Free space is what an unprivileged process may still use. Where the cache and the directory for
temporary files are on one device, that device has to have room for both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from morphlib.cache.failures import storage_error
from morphlib.errors import MorphError, Reason


@dataclass(frozen=True, slots=True)
class Room:
    """What a directory needs and what its device (a number that tells devices apart) has: bytes."""

    path: Path
    required: int
    available: int
    device: int


def add_up(rooms: Sequence[Room]) -> tuple[Room, ...]:
    """The same rooms, each requiring what all those on its device require together."""
    total: dict[int, int] = {}
    for room in rooms:
        total[room.device] = total.get(room.device, 0) + room.required
    return tuple(Room(room.path, total[room.device], room.available, room.device) for room in rooms)


def find_shortages(rooms: Sequence[Room]) -> tuple[Room, ...]:
    """Of rooms that were added up, those with less than they require."""
    return tuple(room for room in rooms if room.available < room.required)


def measure(path: Path, required: int) -> Room:
    """Look at the device of `path`, which need not exist yet. Raises MorphError if that fails."""
    existing = path.absolute()
    while True:
        try:
            device = existing.stat().st_dev
            found = os.statvfs(existing)
            return Room(path, required, found.f_bavail * found.f_frsize, device)
        except (FileNotFoundError, NotADirectoryError) as error:
            if existing == existing.parent:
                raise storage_error(error, "measure free space", path) from error
            existing = existing.parent
        except OSError as error:
            raise storage_error(error, "measure free space", path) from error


def check_space(*minimum: tuple[Path, int]) -> None:
    """Raise MorphError (SPACE) unless each directory has the free bytes that settings ask for.

    Where several are on one device, or one is given twice, that has to have what they need
    together. A minimum of 0 for all turns the check off.
    """
    if all(required <= 0 for _, required in minimum):
        return
    # Free space changes while one looks, so a directory that is given twice is measured once.
    wanted: dict[Path, int] = {}
    for path, least in minimum:
        wanted[path] = wanted.get(path, 0) + least
    short = find_shortages(add_up([measure(path, least) for path, least in wanted.items()]))
    if short:
        raise MorphError(describe_shortage(short), reason=Reason.SPACE, hint=_HINT)


_HINT = (
    "Run `morph gc` to remove what is not needed, or lower the limits with --tempdir-min-space and "
    "--cachedir-min-space (0 for both disables this check)."
)


def describe_shortage(short: Sequence[Room]) -> str:
    lines = [
        f"    {room.path} requires {room.required} bytes free, has {room.available}"
        for room in short
    ]
    return "\n".join(["Insufficient space on disk:", *dict.fromkeys(lines)])
