"""A tree as lines of text, one for each file: all of it that can be seen without reading files.

Layers are compared with what they were by these, each time they are used, so making them is quick:
no values of a type are made, and another process can help.
"""

# Plain text paths here: making Path objects takes longer than the system calls.

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import signal
import stat
from collections.abc import Iterable, Sequence

from morphlib.build.members import MTIME_NS, Member

#: Another process is worth its start when so many files were seen, and so many directories are left
#: for the two.
_MANY_FILES, _MANY_DIRECTORIES = 2000, 16
_MTIME = MTIME_NS[1]
_FILE, _DIRECTORY, _LINK, _FIFO = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO
_KINDS = 0o170000


class UnfitTreeError(Exception):
    """A tree that no layer has: times that are not those of artifacts, sockets and the like."""


def lines_of_members(members: Iterable[Member]) -> list[str]:
    """One line for each: path, mode, owner, group, size, target, with null bytes between.

    Members sorted by path give sorted lines, but for the top, which is first.
    """
    lines = []
    for path, mode, uid, gid, size, target, _, device, _ in members:
        if device:  # an empty file stands for it
            mode, uid, gid = _FILE, 0, 0
        lines.append(f"{path}\0{mode}\0{uid}\0{gid}\0{size}\0{target or ''}")
    return lines


def digest(lines: Iterable[str]) -> bytes:
    """Of all lines of a tree."""
    return hashlib.sha256(os.fsencode("\0\0".join(lines))).digest()


def lines_of_tree(root: str, *, may_fork: bool = False) -> list[str]:
    """What `lines_of_members` gives for a tree on disk. Raises UnfitTreeError, OSError.

    A caller that has a single thread may let a second process do half of it.
    """
    top = os.lstat(root)
    if top.st_mtime_ns != _MTIME:
        raise UnfitTreeError(root)
    lines: list[str] = []
    pending = [("", root)]
    least = _MANY_DIRECTORIES if may_fork else None
    while pending:
        if least is not None and len(lines) >= _MANY_FILES and len(pending) >= least:
            lines += _with_help(pending)
            break
        # With a helper to come, the top of the tree first: that way there are many to share soon.
        prefix, directory = pending.pop(0 if least is not None else -1)
        _add_directory(prefix, directory, lines, pending)
    lines.sort()
    whose = f"{top.st_uid}\0{top.st_gid}"
    return [f".\0{top.st_mode}\0{whose}\0{0}\0", *lines]


def _add_directory(
    prefix: str, directory: str, lines: list[str], pending: list[tuple[str, str]]
) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # From its own directory: a third of the time, for trees with long paths.
        with os.scandir(fd) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                name = entry.name
                if found.st_mtime_ns != _MTIME:
                    raise UnfitTreeError(f"{directory}/{name}")
                mode, size, target = found.st_mode, 0, ""
                kind = mode & _KINDS
                if kind == _FILE:
                    size = found.st_size
                elif kind == _DIRECTORY:
                    pending.append((f"{prefix}{name}/", f"{directory}/{name}"))
                elif kind == _LINK:
                    mode, target = _LINK | 0o777, os.readlink(name, dir_fd=fd)
                elif kind != _FIFO:
                    raise UnfitTreeError(f"{directory}/{name}")
                owner = f"{found.st_uid}\0{found.st_gid}"
                lines.append(f"{prefix}{name}\0{mode}\0{owner}\0{size}\0{target}")
    finally:
        os.close(fd)


def _below(pending: list[tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    while pending:
        _add_directory(*pending.pop(), lines, pending)
    return lines


def _with_help(pending: Sequence[tuple[str, str]]) -> list[str]:
    """What is below directories: half of them are done by another process."""
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        return _below(list(pending))
    if pid == 0:
        _be_help(list(pending[::2]), writing)
    os.close(writing)
    is_ended = False
    try:
        with os.fdopen(reading, "rb") as pipe:
            lines = _below(list(pending[1::2]))
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        is_ended = True
    finally:
        if not is_ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if status != 0:
        raise UnfitTreeError("half of it")
    theirs: list[str] = marshal.loads(text)  # of a process that we forked
    return lines + theirs


def _be_help(pending: list[tuple[str, str]], writing: int) -> None:
    """Never returns."""
    status = 1
    # Whatever happens here, the other process takes it from the status.
    with contextlib.suppress(BaseException):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        lines = _below(pending)
        left = memoryview(marshal.dumps(lines))
        while left:
            left = left[os.write(writing, left) :]
        status = 0
    os._exit(status)
