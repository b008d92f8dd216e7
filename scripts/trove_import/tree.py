"""What goes into one commit: a stream of files and symlinks from a directory or a tar file.

Nothing is unpacked, so nothing in a hostile archive can reach outside. Modes are the two that git
knows; owners, times and empty directories are left behind.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path
from typing import IO

from morphlib.errors import MorphError, Reason

REGULAR = "100644"
EXECUTABLE = "100755"
SYMLINK = "120000"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or symlink. `open` gives the content; `size` is its length in bytes."""

    path: bytes  # relative, with forward slashes
    mode: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which paths are taken: those that match `only` (all, where empty) and not `leave_out`."""

    only: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()

    def takes(self, path: bytes) -> bool:
        text = os.fsdecode(path)
        if self.only and not _matches(text, self.only):
            return False
        return not _matches(text, self.leave_out)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _checked(path: bytes, whence: Path) -> bytes:
    """`path` without `./`; raises MorphError for what no repository may hold."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    shown = os.fsdecode(path)
    if path.startswith(b"/") or b".." in parts or b"\0" in path:
        raise MorphError(
            f"{whence} holds {shown!r}, which leads outside of it", reason=Reason.SOURCE
        )
    if any(part.lower() == b".git" for part in parts):
        raise MorphError(
            f"{whence} holds {shown!r}, which git takes for its own",
            reason=Reason.SOURCE,
            hint="name it in `leave_out` of the manifest if the source can do without",
        )
    return b"/".join(parts)


class _Content:
    """Content that is at hand, in the form `Entry.open` wants."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self) -> IO[bytes]:
        return BytesIO(self.data)


def directory_entries(root: Path, selection: Selection) -> Iterator[Entry]:
    """Every file and symlink below `root` that is selected, sorted by path."""
    stack = [b""]
    while stack:
        below = stack.pop()
        found = sorted(os.scandir(os.fsencode(root) + b"/" + below), key=lambda item: item.name)
        for item in found:
            path = below + b"/" + item.name if below else item.name
            if item.is_dir(follow_symlinks=False):
                stack.append(path)
            elif selection.takes(path):
                yield _file_entry(Path(os.fsdecode(item.path)), _checked(path, root))


def _file_entry(file: Path, path: bytes) -> Entry:
    status = file.lstat()
    if stat.S_ISLNK(status.st_mode):
        target = os.fsencode(file.readlink())
        return Entry(path, SYMLINK, len(target), _Content(target))
    if not stat.S_ISREG(status.st_mode):
        raise MorphError(
            f"{file} is neither file, symlink nor directory: git can't keep it",
            reason=Reason.SOURCE,
        )
    mode = EXECUTABLE if status.st_mode & 0o100 else REGULAR
    return Entry(path, mode, status.st_size, lambda: file.open("rb"))


@contextmanager
def open_tar(file: Path | IO[bytes], name: Path) -> Iterator[tarfile.TarFile]:
    """A tar file, compressed or not; a damaged one is a MorphError that names it."""
    try:
        if isinstance(file, Path):
            with tarfile.open(file, "r:*", errors="surrogateescape") as tar:
                yield tar
        else:
            with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
                yield tar
    except (tarfile.TarError, EOFError, OSError) as error:
        raise MorphError(f"{name} is not a readable tar file: {error}", reason=Reason.SOURCE) from (
            error
        )


def newest_time(members: Sequence[tarfile.TarInfo]) -> int:
    """When the last of the files changed, in seconds since the epoch."""
    return max((int(member.mtime) for member in members), default=0)


def tar_entries(
    tar: tarfile.TarFile, whence: Path, selection: Selection, *, strip_top: bool
) -> Iterator[Entry]:
    """Every file, symlink and hard link of `tar` that is selected.

    `strip_top` leaves out the one directory at the top that all members share, which is how
    upstream tarballs are made.
    """
    members = tar.getmembers()
    top = _shared_top(members, whence) if strip_top else None
    for member in members:
        path = _checked(os.fsencode(member.name), whence)
        if member.isdir() or not path:
            continue
        if top is not None:
            path = path.split(b"/", 1)[1]
        if selection.takes(path):
            yield _member_entry(tar, member, path, whence)


def _shared_top(members: Sequence[tarfile.TarInfo], whence: Path) -> bytes | None:
    tops = set()
    for member in members:
        parts = _checked(os.fsencode(member.name), whence).split(b"/")
        if len(parts) == 1 and parts[0] and not member.isdir():
            return None
        tops.add(parts[0])
    tops.discard(b"")
    return tops.pop() if len(tops) == 1 else None


def _member_entry(
    tar: tarfile.TarFile, member: tarfile.TarInfo, path: bytes, whence: Path
) -> Entry:
    if member.issym():
        target = os.fsencode(member.linkname)
        return Entry(path, SYMLINK, len(target), _Content(target))
    real = member
    if member.islnk():
        try:
            real = tar.getmember(member.linkname)
        except KeyError:
            raise MorphError(
                f"{whence} has {member.name!r} as a link to {member.linkname!r}, which it lacks",
                reason=Reason.SOURCE,
            ) from None
    if not real.isreg():
        raise MorphError(
            f"{whence} holds {member.name!r}, which is neither file, symlink nor directory",
            reason=Reason.SOURCE,
            hint="name it in `leave_out` of the manifest if the source can do without",
        )
    mode = EXECUTABLE if real.mode & 0o100 else REGULAR

    def content() -> IO[bytes]:
        file = tar.extractfile(real)
        assert file is not None
        return file

    return Entry(path, mode, real.size, content)
