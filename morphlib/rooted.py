"""Reaching into a tree that somebody else's code made, without being led out of it."""

from __future__ import annotations

import os
from pathlib import Path

from morphlib.errors import MorphError, Reason

_MAX_LINKS = 40  # as many as the kernel follows


def resolve_in(root: Path, path: str) -> Path:
    """Where `path` is when `root` is taken as `/`: symlinks are followed, but not out of it.

    The last component may be missing, and is followed too. Raises MorphError for a path that goes
    in circles.
    """
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        try:
            target = str(root.joinpath(*done, part).readlink())
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise MorphError(f"{path} leads through too many symbolic links", reason=Reason.BUILD)
        if target.startswith("/"):
            done = []
        todo += [p for p in target.split("/") if p not in ("", ".")][::-1]
    return root.joinpath(*done)


def write_in(root: Path, path: str, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file below `root`, whatever symlinks the tree has; replaces what is there.

    Directories on the way are made. Raises MorphError if something else is in the way.
    """
    try:
        parent = resolve_in(root, path.rpartition("/")[0])
        parent.mkdir(parents=True, exist_ok=True)
        place = parent / path.rpartition("/")[2]
        if place.is_symlink() or place.exists():
            place.unlink()
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
    except OSError as error:
        raise MorphError(
            f"can't write {path} into the tree: {error.strerror}", reason=Reason.BUILD
        ) from error
