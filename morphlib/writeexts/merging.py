"""Merging a tree with a directory that has something in it.

All that takes long, and all that is likely to fail, is done in a directory inside of the target,
which nobody looks at. Then files are renamed into place one by one: each is the old one or the new
one at any moment. Who kills that in the middle leaves some files old; the next writer renames them
all anew and removes what was left.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphlib.errors import MorphError, Reason, raise_all
from morphlib.process import run
from morphlib.writeexts.aside import held_directory

#: What the directory's name begins with, after a dot.
_NAME = "morph-merge"


@contextmanager
def merged_directory(target: Path) -> Iterator[Path]:
    """Gives a new empty directory (mode 0700), whose entries go into `target` in the end.

    They take the place of what is there; directories that both have are merged, and get what the
    new one has of mode, owner, times and extended attributes. If an exception ends the block
    nothing is changed. Raises MorphError, before anything is changed, if a directory would take the
    place of something else or the other way round.
    """
    with held_directory(target / _NAME) as part:
        yield part
        raise_all(list(_clashes(part, target, target)))
        found = part.stat()
        _move(part, target)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))  # which lost an entry just now


def _clashes(source: Path, target: Path, top: Path) -> Iterator[MorphError]:
    for entry in os.scandir(source):
        there = target / entry.name
        if not os.path.lexists(there):
            continue
        mine, its = entry.is_dir(follow_symlinks=False), _is_directory(there)
        if mine and its:
            yield from _clashes(Path(entry.path), there, top)
        elif mine or its:
            kind = "a directory" if mine else "no directory"
            other = "a directory" if its else "none"
            yield MorphError(
                f"{there.relative_to(top)} is {kind} in the system and {other} in {top}",
                reason=Reason.DEPLOY,
                hint=f"Nothing was changed. Remove {there} first, or deploy to another directory.",
            )


def _move(source: Path, target: Path) -> None:
    found = source.stat()  # its time will be that of the last thing taken out of it
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        there = target / entry.name
        if entry.is_dir(follow_symlinks=False) and _is_directory(there):
            _move(Path(entry.path), there)
        else:
            _rename(entry.path, there)
    os.chown(target, found.st_uid, found.st_gid)
    shutil.copystat(source, target)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _rename(source: str, target: Path) -> None:
    try:
        os.rename(source, target)  # noqa: PTH104 - of many files, text is faster
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Something else is mounted on a directory of the target.
        run(["cp", "-a", "--no-target-directory", "--remove-destination", "--", source, target])


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
