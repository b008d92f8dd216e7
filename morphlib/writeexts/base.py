"""What a system was before its deployment changed it: MORPH_BASE, for who writes it whole.

The file that it names is JSON: `artifact` is the system's tar, `tree` what that unpacks to, and
`changes` the directory in which the overlay that is deployed keeps what it has instead. Copying the
base as it is and then the few changes is faster than reading all of it through the overlay.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason

#: Namespaces in which overlayfs keeps its attributes: the other one is that of users.
_NAMESPACES = ("trusted.overlay.", "user.overlay.")
_KNOWN = ("opaque", "origin", "impure", "nlink", "upper", "whiteout", "uuid", "protattr")


class UnknownChangeError(Exception):
    """The overlay says of something what is not understood here: read the tree itself instead."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What an overlay has in the place of its base.

    `entries`: path -> status of everything that it has itself, directories above included, sorted.
    `gone`: paths of the base at which there is nothing any more, or something else than a directory
    that stays. `emptied`: directories of which nothing below counts any more.
    """

    directory: Path
    entries: Mapping[str, os.stat_result]
    gone: frozenset[str]
    emptied: frozenset[str]

    def hides(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """The paths of the base that do not count, and the beginnings of further ones."""
        below = sorted(f"{path}/" for path in (*self.gone, *self.emptied))
        return self.gone | self.entries.keys(), tuple(below)


@dataclass(frozen=True, slots=True)
class Base:
    artifact: Path
    tree: Path
    changes: Path


def read_base(environment: Mapping[str, str]) -> Base | None:
    """None if nobody knows. Raises MorphError if the file can't be understood."""
    name = environment.get("MORPH_BASE")
    if not name:
        return None
    try:
        document = json.loads(Path(name).read_bytes())
        places = {key: Path(document[key]) for key in ("artifact", "tree", "changes")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MorphError(
            f"what the system was before, in {name}, can't be read: {error}", reason=Reason.DEPLOY
        ) from error
    return Base(**places)


def read_changes(directory: Path) -> Changes:
    """What an overlay's upper directory says. Raises UnknownChangeError, OSError."""
    entries: dict[str, os.stat_result] = {".": directory.lstat()}
    gone: set[str] = set()
    emptied: set[str] = set()
    _check(directory)
    for path, entry in _walk(directory, ""):
        status = entry.stat(follow_symlinks=False)
        marks = _check(Path(entry.path))
        if _is_whiteout(status, marks):
            gone.add(path)
            continue
        entries[path] = status
        if not stat.S_ISDIR(status.st_mode):
            gone.add(path)
        elif "opaque" in marks:
            emptied.add(path)
    ordered = sorted(entries, key=lambda path: "" if path == "." else f"/{path}")
    kept = {path: entries[path] for path in ordered}
    return Changes(directory, kept, frozenset(gone), frozenset(emptied))


def _walk(directory: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(directory) as found:
        for entry in sorted(found, key=lambda each: each.name):
            yield prefix + entry.name, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")


def _is_whiteout(status: os.stat_result, marks: Mapping[str, bytes]) -> bool:
    return (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0) or "whiteout" in marks


def _check(path: Path) -> dict[str, bytes]:
    """The marks of overlayfs on a file."""
    marks = {}
    for name in os.listxattr(path, follow_symlinks=False):
        for namespace in _NAMESPACES:
            if name.startswith(namespace):
                mark = name.removeprefix(namespace)
                marks[mark] = os.getxattr(path, name, follow_symlinks=False)
                if mark not in _KNOWN:
                    raise UnknownChangeError(f"{path} is marked {name}")
    return marks


def is_overlay_attribute(name: str) -> bool:
    return name.startswith(_NAMESPACES)
