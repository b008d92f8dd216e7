"""Laying out a source tree as a build sees it: files, submodules, and a `.git` that works.

What is laid out depends on the commit alone: not on this machine, the mirror's place, the user, or
what else the mirror holds. Objects are not copied; `.git` borrows them from `.git/mirror-objects`,
an empty directory onto which the sandbox binds the mirror's objects.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.sources.aliases import Aliases
from morphlib.sources.export import Exported, export_tree
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.model import SourceRef, StagedSource
from morphlib.sources.objects import ObjectReader, alternate_directories, common_directory
from morphlib.sources.submodules import submodule_url

#: More submodules (at all levels) than any real source has.
MAX_SUBMODULES = 10_000

# Abbreviated ids are as long as it takes in a repository of this size, unless they are told how
# long to be: what `git describe --always` prints must not depend on what the mirror holds.
_CONFIG = b"""\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tabbrev = 12
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""


@dataclass(frozen=True, slots=True)
class _Place:
    """A commit, and where it goes (`below` the root, empty for the source itself)."""

    url: str
    commit: str
    below: str


def stage_commit(
    ref: SourceRef,
    submodule_urls: tuple[tuple[str, str], ...],
    mirrors: MirrorCache,
    aliases: Aliases,
    into: Path,
) -> StagedSource:
    """See `pool.stage_source`."""
    overrides = dict(submodule_urls)
    time = mirrors.get(ref.url).commit_time(ref.commit)
    queue = [_Place(ref.url, ref.commit, "")]
    binds: list[tuple[Path, str]] = []
    places: list[_Place] = []
    while queue:
        place = queue.pop(0)
        places.append(place)
        if len(places) > MAX_SUBMODULES:
            raise MorphError(
                f"{ref.repo} has more than {MAX_SUBMODULES} submodules", reason=Reason.SOURCE
            )
        binds += _stage_one(place, mirrors, into, time)
        queue += _find_submodules(place, mirrors, aliases, overrides)
    # Directories changed while submodules and .git were put into them.
    for place in reversed(places):
        os.utime(into / place.below, (time, time))
    return StagedSource(time, tuple(binds))


def _find_submodules(
    place: _Place, mirrors: MirrorCache, aliases: Aliases, overrides: Mapping[str, str]
) -> list[_Place]:
    return [
        _Place(
            submodule_url(submodule, parent=place.url, overrides=overrides, aliases=aliases),
            submodule.commit,
            f"{place.below}/{submodule.path}".lstrip("/"),
        )
        for submodule in mirrors.get(place.url).submodules(place.commit)
    ]


def _stage_one(
    place: _Place, mirrors: MirrorCache, into: Path, time: int
) -> list[tuple[Path, str]]:
    """Lay out one commit, without its submodules."""
    mirror = mirrors.get(place.url)
    resolved = mirror.resolve(place.commit)
    root = into / place.below
    exported = export_tree(mirror.objects, resolved.tree, root, mtime=time)
    if any(entry.path == b".gitfat" for entry in exported):
        raise MorphError(
            f"{place.url} keeps large files with git-fat, which is not supported",
            reason=Reason.SOURCE,
            hint="Use a repository that holds the files themselves.",
        )
    objects = common_directory(mirror.path).resolve() / "objects"
    borrowed = [objects, *alternate_directories(objects)]
    names = ["mirror-objects", *(f"mirror-objects-{n}" for n in range(1, len(borrowed)))]
    _make_git_directory(root / ".git", resolved.commit, exported, names, mirror.objects, time)
    prefix = f"{place.below}/" if place.below else ""
    return [
        (directory, f"{prefix}.git/{name}") for directory, name in zip(borrowed, names, strict=True)
    ]


def _make_git_directory(
    git_dir: Path,
    commit: str,
    exported: list[Exported],
    alternates: list[str],
    objects: ObjectReader,
    time: int,
) -> None:
    directories = [
        *("", "objects", "objects/info", "refs"),
        *alternates,
    ]
    files = {
        "HEAD": f"{commit}\n".encode(),
        "config": _CONFIG,
        "index": make_index(exported),
        "objects/info/alternates": "".join(f"../{name}\n" for name in alternates).encode(),
    }
    shallow = common_directory(objects.git_dir) / "shallow"
    if shallow.is_file():
        files["shallow"] = shallow.read_bytes()
    paths = [git_dir / name for name in directories]
    for path in paths:
        path.mkdir()
        path.chmod(0o755)
    for name, content in files.items():
        path = git_dir / name
        path.write_bytes(content)
        path.chmod(0o644)
        os.utime(path, (time, time))
    for path in reversed(paths):
        os.utime(path, (time, time))


def make_index(exported: list[Exported]) -> bytes:
    """A git index (version 2) of these files.

    It has no times, sizes or inode numbers, so git compares contents once where it needs to know
    whether a file changed, and the bytes are the same on every machine.
    """
    parts = [b"DIRC" + struct.pack(">II", 2, len(exported))]
    pack = struct.Struct(">24xI12x20sH").pack  # times, device and inode; mode; owner and size; id
    for entry in sorted(exported, key=lambda entry: entry.path):
        length = len(entry.path)
        parts.append(pack(entry.mode, entry.id, min(length, 0xFFF)))
        parts.append(entry.path + b"\0" * (8 - (62 + length) % 8))
    body = b"".join(parts)
    return body + hashlib.sha1(body, usedforsecurity=False).digest()
