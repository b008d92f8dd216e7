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
from dataclasses import dataclass, field, replace
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.filedata import Undecodable
from morphlib.images.btrfs.model import Change, Directory, File, Removal, Symlink, Xattrs
from morphlib.images.btrfs.reader import Image, Stat

#: Bytes. Nobody configures anything by what is larger.
_LARGEST = 16 << 20
#: Extended attributes that belong to a file. Others are given to all files, such as SELinux labels.
_OWN_XATTRS = ("user.", "system.posix_acl_", "security.capability")

#: Path relative to /etc -> what is there.
Found = Mapping[str, "Item"]


@dataclass(frozen=True, slots=True)
class Item:
    """A file with its content, a symlink with its target, or a directory with neither.

    Anything else, and a file that is too large to be configuration, can be seen to have changed but
    is `left` where it is. What tells is then `content`: its size and time. So it is with a file
    that can't be read, for which `error` says why.
    """

    mode: int  # with the bits of the type; of symlinks these alone
    uid: int
    gid: int
    content: bytes = b""
    left: bool = False
    xattrs: Xattrs = ()
    error: MorphError | None = field(default=None, compare=False)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """`changes` are to be made in the new version. `kept` are paths, relative to /etc, that machine
    and new version have changed, each in its way; `left` those that the machine alone has changed,
    but to something that is left where it is."""

    changes: tuple[Change, ...] = ()
    kept: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def take_over(old: Found, machine: Found, new: Found, at: str) -> TakenOver:
    """Work out what of a machine's changes to `old` goes into `new`, which is at a path `at`.

    Raises MorphError for a change that can't be read.
    """
    changes: list[Change] = []
    made: set[str] = set()
    kept: list[str] = []
    left: list[str] = []
    replaced: tuple[str, ...] = ()  # directories, each with a slash
    for path in sorted({*old, *machine}):
        before, now, then = old.get(path), machine.get(path), new.get(path)
        if now in (before, then) or path.startswith(replaced):
            continue
        above = ["/".join(path.split("/")[:end]) for end in range(1, path.count("/") + 1)]
        fits = all(new[each].is_directory for each in above if each in new)
        if now is None:
            assert before is not None
            if before.is_directory:
                continue  # it goes when it is made anew some day: an empty one harms nobody
            if then == before:
                changes.append(Removal(f"{at}/{path}"))
            elif then is not None:
                kept.append(path)
            continue
        if now.error is not None:
            raise MorphError(
                f"can't take over /etc/{path}, which was changed: {now.error.message}",
                reason=Reason.DEPLOY,
                hint=now.error.hint,
            )
        gone: list[str] = []
        if not now.is_directory and _are_directories(before, then):
            # Something else is there instead of a directory: all of it, or nothing.
            replaced += (f"{path}/",)
            fits = fits and _below(path, old) == _below(path, new)
            gone = [*sorted(_below(path, new), reverse=True), path]
        if now.left and (then == before or gone):
            left.append(path)
            continue
        if now.is_directory:
            fits = fits and (then is None or then.is_directory)
        elif not gone:
            fits = fits and then == before
        if not fits:
            kept.append(path)
            continue
        for each in above:
            if each not in new and each not in made:
                changes.append(_change(f"{at}/{each}", machine[each]))
                made.add(each)
        changes += [Removal(f"{at}/{each}") for each in gone]
        if path in made:
            continue
        if then is None or not now.is_directory:  # modes of directories stay the new version's
            changes.append(_change(f"{at}/{path}", now))
            made.add(path)
    return TakenOver(tuple(changes), tuple(kept), tuple(left))


def _are_directories(*items: Item | None) -> bool:
    return all(each is not None and each.is_directory for each in items)


def _below(directory: str, found: Found) -> dict[str, Item]:
    return {path: each for path, each in found.items() if path.startswith(f"{directory}/")}


def _change(path: str, item: Item) -> Change:
    mode = stat.S_IMODE(item.mode)
    if item.is_directory:
        return Directory(path, mode, item.uid, item.gid, item.xattrs)
    if stat.S_ISLNK(item.mode):
        return Symlink(path, os.fsdecode(item.content), item.uid, item.gid)
    return File(path, item.content, mode, item.uid, item.gid, item.xattrs)


def read_etc_of_image(image: Image, version: str) -> dict[str, Item]:
    """The /etc of the system at a path of a disk; nothing if it has none. Raises MorphError."""
    top = f"{version}/etc"
    if not (image.exists(top) and stat.S_ISDIR(image.stat(top, follow=False).mode)):
        return {}

    def read(path: str, seen: Stat) -> Item:
        place, owner = f"{top}/{path}", (seen.uid, seen.gid)
        if stat.S_ISLNK(seen.mode):
            return Item(stat.S_IFLNK, *owner, os.fsencode(image.readlink(place)))
        xattrs = _own(image.xattrs(place, follow=False))
        if stat.S_ISREG(seen.mode) and seen.size <= _LARGEST:
            try:
                return Item(seen.mode, *owner, image.read_file(place), xattrs=xattrs)
            except Undecodable as error:
                unread = _unread(seen.mode, *owner, seen.size, seen.mtime_ns, xattrs)
                return replace(unread, error=error)
        return _unread(seen.mode, *owner, seen.size, seen.mtime_ns, xattrs)

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
    owner = seen.st_uid, seen.st_gid
    if stat.S_ISLNK(seen.st_mode):
        return Item(stat.S_IFLNK, *owner, os.fsencode(path.readlink()))
    xattrs = _own({name: os.getxattr(path, name) for name in _xattr_names(path)})
    if stat.S_ISREG(seen.st_mode) and seen.st_size <= _LARGEST:
        return Item(seen.st_mode, *owner, path.read_bytes(), xattrs=xattrs)
    return _unread(seen.st_mode, *owner, seen.st_size, seen.st_mtime_ns, xattrs)


def _xattr_names(path: Path) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError:
        return []  # the file system has none


def _own(xattrs: Mapping[str, bytes]) -> Xattrs:
    kept = ((name, value) for name, value in xattrs.items() if name.startswith(_OWN_XATTRS))
    return tuple(sorted((os.fsencode(name), value) for name, value in kept))


def _unread(mode: int, uid: int, gid: int, size: int, mtime_ns: int, xattrs: Xattrs) -> Item:
    if stat.S_ISDIR(mode):
        return Item(mode, uid, gid, xattrs=xattrs)
    return Item(mode, uid, gid, f"{size} {mtime_ns}".encode(), left=True, xattrs=xattrs)
