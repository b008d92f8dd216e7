"""Laying out the files of a git tree: fast, and safe against hostile trees.

Every directory is made by the export itself and every file is new, so nothing is ever written
through a symlink. Attributes and filters of the repository do not count: files get exactly the
bytes that the tree holds. Modes (755 or 644) and times depend on nothing of this machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.sources.names import is_git_directory
from morphlib.sources.objects import DIRECTORY, FILE, GITLINK, LINK, Entry, ObjectReader

#: More entries than any real source has; a small hostile repository can stand for endless ones.
MAX_ENTRIES = 4_000_000

# Only names that begin like this can be a spelling of "." or ".." or ".git".
_SUSPICIOUS = frozenset(b".gG\xe2\xef")


@dataclass(frozen=True, slots=True)
class Exported:
    """A file, symlink or gitlink that was laid out. `path` is relative to the tree's root."""

    path: bytes
    mode: int  # as git has it: 100644, 100755, 120000 or 160000 (octal)
    id: bytes


def export_tree(
    objects: ObjectReader, tree: str, into: Path, *, mtime: int, limit: int = MAX_ENTRIES
) -> list[Exported]:
    """Lay out a tree in `into`, which is made unless it is an empty directory.

    Everything gets the modification time `mtime` (seconds since the epoch). Gitlinks become empty
    directories. Raises MorphError if the tree is hostile or malformed or can't be written.
    """
    _make_root(into)
    times = (mtime * 10**9, mtime * 10**9)
    done: list[Exported] = []
    directories = [os.fsencode(into)]
    queue: list[tuple[str | bytes, bytes]] = [(tree, b"")]
    count = 0
    try:
        while queue:
            at, prefix = queue.pop()
            entries = objects.entries(at)
            count += len(entries)
            if count > limit:
                raise _refusal(tree, f"it has more than {limit} entries")
            for entry in entries:
                _check_name(entry.name, prefix, tree)
                path = prefix + entry.name
                target = os.path.join(directories[0], path)  # noqa: PTH118  (bytes)
                if entry.kind in (DIRECTORY, GITLINK):
                    os.mkdir(target)  # noqa: PTH102  (bytes)
                    os.chmod(target, 0o755)  # noqa: PTH101  (bytes)
                    directories.append(target)
                if entry.kind == DIRECTORY:
                    queue.append((entry.id, path + b"/"))
                else:
                    done.append(_write(objects, entry, path, target, times))
        for directory in reversed(directories):
            os.utime(directory, ns=times)
    except FileExistsError as error:
        raise _refusal(tree, f"it has {_text(error.filename)} twice") from error
    except OSError as error:
        raise _write_error(error, into) from error
    except ValueError as error:
        raise _refusal(tree, str(error)) from error
    return done


def _write(
    objects: ObjectReader, entry: Entry, path: bytes, target: bytes, times: tuple[int, int]
) -> Exported:
    if entry.kind == GITLINK:
        return Exported(path, GITLINK, entry.id)
    content = objects.blob(entry.id)
    if entry.kind == LINK:
        if not content:
            raise ValueError(f"the symlink {_text(path)} leads nowhere")
        os.symlink(content, target)  # noqa: PTH211  (bytes)
        os.utime(target, ns=times, follow_symlinks=False)
        return Exported(path, LINK, entry.id)
    mode = 0o755 if entry.executable else 0o644
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        os.fchmod(fd, mode)
        os.utime(fd, ns=times)
    finally:
        os.close(fd)
    return Exported(path, FILE | mode, entry.id)


def _make_root(into: Path) -> None:
    try:
        into.mkdir(exist_ok=True)
        into.chmod(0o755)
        filled = any(os.scandir(into))
    except OSError as error:
        raise _write_error(error, into) from error
    if filled:
        raise MorphError(f"{into} is not empty", reason=Reason.SOURCE)


def _check_name(name: bytes, prefix: bytes, tree: str) -> None:
    if not name or b"/" in name or (name[0] in _SUSPICIOUS and _is_hostile(name)):
        raise _refusal(tree, f"it has an entry named {_text(prefix + name)}")


def _is_hostile(name: bytes) -> bool:
    return name in (b".", b"..") or is_git_directory(name.decode("utf-8", "replace"))


def _refusal(tree: str, why: str) -> MorphError:
    return MorphError(
        f"Refusing tree {tree}: {why}",
        reason=Reason.SOURCE,
        hint="No honest repository has this. Find out who made the commit.",
    )


def _write_error(error: OSError, into: Path) -> MorphError:
    import errno

    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return MorphError(
        f"Can't lay out sources in {into}: {error.strerror}",
        reason=Reason.SPACE if full else Reason.SOURCE,
        hint="Free some space there." if full else None,
    )


def _text(path: bytes | str) -> str:
    return repr(os.fsdecode(path))
