"""Merging a tree with a directory that has something in it.

All that takes long, and all that is likely to fail, is done in a directory inside of the target,
which nobody looks at. Then files are renamed into place one by one: each is the old one or the new
one at any moment. Signals that ask us to end wait for the end of that. Who kills it in the middle
leaves some files old; the next writer renames them all anew and removes what was left.

Others may be able to change what is in the target meanwhile, such as users who have a home there.
So the way to each directory is taken by descriptors then, and never through a symlink.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from morphlib.cache.trees import mount_points
from morphlib.errors import MorphError, Reason, raise_all
from morphlib.process import run
from morphlib.writeexts.aside import ENDING_WITH_US, held_directory
from morphlib.writeexts.signals import held_back

#: What the directory's name begins with, after a dot.
_NAME = "morph-merge"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY = (*ENDING_WITH_US, "cp", "-a", "--no-target-directory", "--")


@contextmanager
def merged_directory(target: Path) -> Iterator[Path]:
    """Gives a new empty directory (mode 0700), whose entries go into `target` in the end.

    They take the place of what is there; directories that both have are merged, and get what the
    new one has of mode, owner, times and extended attributes. If an exception ends the block
    nothing is changed. Raises MorphError, before anything is changed, if a directory would take the
    place of something else or the other way round, or if a directory or file can't be replaced.
    """
    top = target.resolve()
    times: dict[Path, tuple[int, int]] = {}
    with ExitStack() as stack:
        part = stack.enter_context(held_directory(top / _NAME))
        yield part
        seen = _Seen(part, top)
        raise_all(seen.errors)
        parts = {top: part}
        for place in seen.borders:  # nothing can be renamed into it from outside
            parts[place] = stack.enter_context(held_directory(place / _NAME))
            run([*_COPY, part / place.relative_to(top), parts[place]])
        stack.enter_context(held_back())  # it takes a moment, and half of it would be a muddle
        for place, source in parts.items():
            found = source.stat()
            times[place] = found.st_atime_ns, found.st_mtime_ns
            with _opened(source) as ours, _opened(place) as theirs:
                _move(ours, theirs, place, seen.borders)
    for place, each in times.items():
        os.utime(place, ns=each)  # it lost an entry just now


class _Seen:
    """What keeps a directory from being merged with another, as far as can be seen: `errors`.

    `borders` are directories of both on which something else is mounted, or that are subvolumes.
    """

    def __init__(self, source: Path, top: Path) -> None:
        self.errors: list[MorphError] = []
        self.borders: list[Path] = []
        self._top = top
        self._mounts = frozenset(mount_points())
        self._look(source, top, top.stat().st_dev)

    def _look(self, source: Path, target: Path, device: int) -> None:
        refusal = _refusal(target)
        if refusal is not None:
            self.errors.append(refusal)
            return
        its_device = target.stat().st_dev
        if target != self._top and (its_device != device or target in self._mounts):
            self.borders.append(target)
        for entry in os.scandir(source):
            there = target / entry.name
            if not os.path.lexists(there):
                continue
            mine, its = entry.is_dir(follow_symlinks=False), _is_directory(there)
            if mine and its:
                self._look(Path(entry.path), there, its_device)
            elif mine or its:
                self.errors.append(self._clash(there, mine=mine, its=its))
            elif there in self._mounts:
                self.errors.append(
                    _refused(f"{there} can't be replaced: another file is mounted on it")
                )

    def _clash(self, there: Path, *, mine: bool, its: bool) -> MorphError:
        kind = "a directory" if mine else "no directory"
        other = "a directory" if its else "none"
        return _refused(
            f"{there.relative_to(self._top)} is {kind} in the system and {other} in {self._top}",
            f" Remove {there} first, or deploy to another directory.",
        )


def _refused(message: str, hint: str = "") -> MorphError:
    return MorphError(message, reason=Reason.DEPLOY, hint=f"Nothing was changed.{hint}")


def _refusal(directory: Path) -> MorphError | None:
    try:
        found = directory.stat()
        # Only who owns it may; that is asked with what changes nothing.
        os.utime(directory, ns=(found.st_atime_ns, found.st_mtime_ns))
        if os.access(directory, os.W_OK | os.X_OK):
            return None
        why = "Permission denied"
    except OSError as error:
        why = error.strerror or str(error)
    return _refused(f"{directory} can't be changed: {why}")


def _move(source: int, target: int, place: Path, borders: Collection[Path]) -> None:
    """Move what is in one directory to another, `place`, but not over `borders`."""
    found = os.fstat(source)  # its time will be that of the last thing taken out of it
    for name in sorted(os.listdir(source)):
        if not (_is_directory_at(name, source) and _is_directory_at(name, target)):
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        elif place / name not in borders:
            with _opened(name, source) as ours, _opened(name, target) as theirs:
                _move(ours, theirs, place / name, borders)
    os.fchown(target, found.st_uid, found.st_gid)
    for attribute in os.listxattr(source):
        with suppress(PermissionError):  # those that only root gives: the copy may have lost them
            os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


@contextmanager
def _opened(directory: str | Path, within: int | None = None) -> Iterator[int]:
    fd = os.open(directory, _DIRECTORY, dir_fd=within)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_directory_at(name: str, within: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
