"""What a machine has changed in its /etc, for the next version of its system.

A version on a disk is there twice: `orig` as it was deployed, and `run`, which the machine boots
and changes. Where these differ the machine has changed something. The next version takes that over,
unless it comes with another change of the same file: then its own is right, and somebody has to be
told.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from morphlib.images.btrfs.model import Change, Directory, File, Removal, Symlink
from morphlib.images.btrfs.reader import Image, Stat

#: Bytes. Nobody configures anything by what is larger.
_LARGEST = 16 << 20

#: Path relative to /etc -> what is there.
Found = Mapping[str, "Item"]


@dataclass(frozen=True, slots=True)
class Item:
    """A file with its content, a symlink with its target, or a directory with neither.

    Anything else, and a file that is too large to be configuration, can be seen to have changed but
    is `left` where it is.
    """

    mode: int  # with the bits of the type; of symlinks these alone
    uid: int
    gid: int
    content: bytes = b""
    left: bool = False

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """`changes` are to be made in the new version. `kept` are paths, relative to /etc, that machine
    and new version have changed, each in its way."""

    changes: tuple[Change, ...] = ()
    kept: tuple[str, ...] = ()


def take_over(old: Found, machine: Found, new: Found, at: str) -> TakenOver:
    """Work out what of a machine's changes to `old` goes into `new`, which is at a path `at`."""
    made: dict[str, Change] = {}
    kept: list[str] = []
    for path in sorted({*old, *machine}):
        before, now, then = old.get(path), machine.get(path), new.get(path)
        if now in (before, then):
            continue
        above = ["/".join(path.split("/")[:end]) for end in range(1, path.count("/") + 1)]
        fits = all(new[each].is_directory for each in above if each in new)
        if now is None:
            assert before is not None
            if before.is_directory:
                continue  # it goes when it is made anew some day: an empty one harms nobody
            if then == before:
                made[path] = Removal(f"{at}/{path}")
            elif then is not None:
                kept.append(path)
            continue
        if now.is_directory:
            fits = fits and (then is None or then.is_directory)
        else:
            fits = fits and then == before and not (now.left or (then and then.is_directory))
        if not fits:
            kept.append(path)
            continue
        for each in above:
            if each not in new and each not in made:
                made[each] = _change(f"{at}/{each}", machine[each])
        if then is None or not now.is_directory:  # modes of directories stay the new version's
            made[path] = _change(f"{at}/{path}", now)
    return TakenOver(tuple(made.values()), tuple(kept))


def _change(path: str, item: Item) -> Change:
    mode = stat.S_IMODE(item.mode)
    if item.is_directory:
        return Directory(path, mode, item.uid, item.gid)
    if stat.S_ISLNK(item.mode):
        return Symlink(path, os.fsdecode(item.content), item.uid, item.gid)
    return File(path, item.content, mode, item.uid, item.gid)


def read_etc_of_image(image: Image, version: str) -> dict[str, Item]:
    """The /etc of the system at a path of a disk; nothing if it has none. Raises MorphError."""
    top = f"{version}/etc"
    if not (image.exists(top) and stat.S_ISDIR(image.stat(top, follow=False).mode)):
        return {}

    def read(path: str, seen: Stat) -> Item:
        if stat.S_ISLNK(seen.mode):
            target = os.fsencode(image.readlink(f"{top}/{path}"))
            return Item(stat.S_IFLNK, seen.uid, seen.gid, target)
        if stat.S_ISREG(seen.mode) and seen.size <= _LARGEST:
            return Item(seen.mode, seen.uid, seen.gid, image.read_file(f"{top}/{path}"))
        return _unread(seen.mode, seen.uid, seen.gid, seen.size)

    return {path: read(path, seen) for path, seen in image.walk(top)}


def read_etc_of_tree(etc: Path) -> dict[str, Item]:
    """The same of a directory of this machine."""
    found = {}
    for directory, folders, files in os.walk(etc):
        for path in (Path(directory, name) for name in (*folders, *files)):
            found[str(path.relative_to(etc))] = _item_of_tree(path)
    return found


def _item_of_tree(path: Path) -> Item:
    seen = path.lstat()
    if stat.S_ISLNK(seen.st_mode):
        return Item(stat.S_IFLNK, seen.st_uid, seen.st_gid, os.fsencode(path.readlink()))
    if stat.S_ISREG(seen.st_mode) and seen.st_size <= _LARGEST:
        return Item(seen.st_mode, seen.st_uid, seen.st_gid, path.read_bytes())
    return _unread(seen.st_mode, seen.st_uid, seen.st_gid, seen.st_size)


def _unread(mode: int, uid: int, gid: int, size: int) -> Item:
    if stat.S_ISDIR(mode):
        return Item(mode, uid, gid)
    return Item(mode, uid, gid, str(size).encode(), left=True)
