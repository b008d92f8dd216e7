"""Manifests of files to install: one entry a line, `[template ][overwrite ]OCTALMODE UID GID PATH`.

The mode says the type too: 0040755 is a directory, 0100644 a file, 0120000 a symlink. PATH is where
the entry goes in the system, and where its source is below the directory of the manifest.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from morphlib.errors import Location, MorphError, Reason, raise_all

_FORMAT = "[template ][overwrite ]OCTALMODE UID GID PATH"
_MAX_ID = 2**32 - 2  # the last number means "no change" to the kernel


class Type(StrEnum):
    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"


_TYPES = {stat.S_IFDIR: Type.DIRECTORY, stat.S_IFREG: Type.FILE, stat.S_IFLNK: Type.SYMLINK}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to install. `path` is relative to the system's root, without `.` and `..`."""

    path: str
    type: Type
    mode: int  # without the type
    owner: tuple[int, int]
    template: bool
    overwrite: bool
    manifest: Path
    line: int

    @property
    def source(self) -> Path:
        return self.manifest.parent / self.path

    def error(self, message: str) -> MorphError:
        """An error that tells the line of the manifest."""
        return _error(self.manifest, self.line, message)


def read_manifest(path: Path) -> list[Entry]:
    """The entries of a manifest. Raises MorphError if it can't be read, or for all bad lines."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise MorphError(
            f"can't read the manifest {path}: {error.strerror}", reason=Reason.DEPLOY
        ) from error
    return parse_manifest(text, path)


def parse_manifest(text: str, path: Path) -> list[Entry]:
    """Blank lines and those that start with # say nothing. Raises MorphError for all bad lines."""
    entries, errors = [], []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            entries.append(_parse_line(words, path, number))
        except ValueError as error:
            errors.append(_error(path, number, str(error)))
    raise_all(errors)
    return entries


def _parse_line(words: list[str], manifest: Path, number: int) -> Entry:
    """Raises ValueError. What follows the path has no meaning."""
    flags = set(_flags(words))
    rest = words[len(flags) :]
    if len(rest) < 4 or not _are_numbers(rest):
        raise ValueError(f"Invalid manifest entry, format: {_FORMAT}")
    mode, uid, gid = int(rest[0], 8), int(rest[1]), int(rest[2])
    kind = _TYPES.get(stat.S_IFMT(mode))
    if kind is None or mode > 0o177777:
        raise ValueError(
            f"{rest[3]} is not a file, symlink or directory: "
            f"{rest[0]} has no type such as 0100644, 0120000 or 0040755"
        )
    if max(uid, gid) > _MAX_ID:
        raise ValueError(f"{uid}:{gid} is no owner")
    if "template" in flags and kind is not Type.FILE:
        raise ValueError(f"{rest[3]} is a {kind}: only files can be templates")
    return Entry(
        path=_clean(rest[3]),
        type=kind,
        mode=stat.S_IMODE(mode),
        owner=(uid, gid),
        template="template" in flags,
        overwrite="overwrite" in flags,
        manifest=manifest,
        line=number,
    )


def _flags(words: list[str]) -> Iterator[str]:
    for word in words[:2]:
        if word not in ("template", "overwrite"):
            return
        yield word


def _are_numbers(words: list[str]) -> bool:
    return bool(
        re.fullmatch(r"[0-7]{1,12}", words[0])
        and all(re.fullmatch(r"[0-9]{1,12}", word, re.ASCII) for word in words[1:3])
    )


def _clean(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"{path} must not have '..' in it")
    if "\0" in path:
        raise ValueError("a path can't have a zero byte in it")
    if not parts:
        raise ValueError(f"{path} is the root of the system, which is there already")
    return "/".join(parts)


def _error(manifest: Path, line: int, message: str) -> MorphError:
    return MorphError(message, reason=Reason.DEPLOY, location=Location(str(manifest), line))
