"""What garbage collection finds on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from morphlib.cache.failures import explain_failure
from morphlib.cache.gcplan import Candidate, Inventory, Limits, Place, What
from morphlib.cache.inuse import exclude_new_uses
from morphlib.cache.locks import is_locked
from morphlib.cache.names import MANIFEST_SUFFIX, TEMPORARY_PREFIX, key_of
from morphlib.cache.space import Room, measure
from morphlib.cache.temporaries import find_temporaries
from morphlib.cache.trees import tree_size
from morphlib.errors import MorphError

#: Trees get such a name in an instant, before they are removed at leisure.
REMOVING_PREFIX = ".removing-"

_KEY = re.compile(r"[0-9a-f]{64}")
_LEFTOVER_SUFFIXES = (".log", ".sh")
_IN_USE = "a running build uses it"


@dataclass(frozen=True, slots=True)
class GcDirectories:
    """Where things are: the two directories of the settings, and what is in them."""

    cachedir: Path
    tempdir: Path

    @property
    def artifacts(self) -> Path:
        return self.cachedir / "artifacts"

    @property
    def locks(self) -> Path:
        return self.cachedir / "locks"

    @property
    def in_use(self) -> tuple[Path, ...]:
        """Where builds register what they need: beside the cache, and beside their layers."""
        return (self.cachedir / "in-use", self.tempdir / "in-use")

    @property
    def staging(self) -> Path:
        return self.tempdir / "staging"

    @property
    def deployments(self) -> Path:
        return self.tempdir / "deployments"

    @property
    def chunks(self) -> Path:
        return self.tempdir / "chunks"

    def room(self, place: Place) -> Room:
        """What the device of a place has free."""
        return measure(self.tempdir if place is Place.TEMP else self.cachedir, 0)


def take_inventory(where: GcDirectories, limits: Limits) -> Inventory:
    """Look at the disk. Raises MorphError if a directory can't be read.

    Layers, which are many and large, are measured only if some may have to go.
    """
    temp, cache = where.room(Place.TEMP), where.room(Place.CACHE)
    one_device = temp.device == cache.device
    is_short = temp.available < limits.required(Place.TEMP, one_device=one_device)
    with exclude_new_uses(where.in_use) as keys:
        used = keys
    candidates = [
        *_find_staging(where.staging),
        *_find_temporaries(where.artifacts),
        *_find_half_removed(where.chunks),
        *_find_deployments(where.deployments),
        *_find_layers(where, used, is_short=is_short),
        *_find_sources(where.artifacts, used),
    ]
    return Inventory(tuple(candidates), temp.available, cache.available, one_device)


def _find_staging(directory: Path) -> Iterator[Candidate]:
    entries = _list(directory)
    areas = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    for entry in entries:
        path = directory / entry.name
        area = _area_of(entry.name)
        if entry.name in areas:
            held = "a build or shell is in it" if is_locked_by_other(path) else ""
            beside = [directory / (entry.name + suffix) for suffix in _LEFTOVER_SUFFIXES]
            paths = (*(each for each in beside if each.is_file()), path)
            yield _tree(What.STAGING, path, held=held, paths=paths)
        elif area is not None and area not in areas:
            yield _tree(What.LEFTOVER, path)


def _area_of(name: str) -> str | None:
    """The staging area that a file beside it belongs to."""
    for suffix in _LEFTOVER_SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return None


def _find_temporaries(directory: Path) -> Iterator[Candidate]:
    for token, paths in sorted(find_temporaries(directory).items()):
        lock_file = directory / f"{TEMPORARY_PREFIX}-{token}.lock"
        held = "a running process writes it" if is_locked_by_other(lock_file) else ""
        size = sum(tree_size(path) for path in paths)
        yield Candidate(What.TEMPORARY, token, tuple(paths), size, _last_change(paths), held)


def _find_half_removed(directory: Path) -> Iterator[Candidate]:
    for entry in _list(directory):
        if entry.name.startswith(REMOVING_PREFIX):
            yield _tree(What.LEFTOVER, directory / entry.name)


def _find_deployments(directory: Path) -> Iterator[Candidate]:
    for entry in _list(directory):
        path = directory / entry.name
        yield _tree(
            What.DEPLOYMENT, path, held="a deployment runs" if is_locked_by_other(path) else ""
        )


def _find_layers(
    where: GcDirectories, used: frozenset[str], *, is_short: bool
) -> Iterator[Candidate]:
    for entry in _list(where.chunks):
        if entry.name.startswith(REMOVING_PREFIX):
            continue
        path = where.chunks / entry.name
        key = key_of(entry.name)
        held = _IN_USE if key in used or is_locked_by_other(path) else ""
        size = tree_size(path) if is_short and not held else 0
        # A layer is used whenever its source is, and only the source keeps note of that.
        manifest = where.artifacts / (key + MANIFEST_SUFFIX)
        yield Candidate(What.LAYER, entry.name, (path,), size, _last_change([manifest, path]), held)


def _find_sources(directory: Path, used: frozenset[str]) -> Iterator[Candidate]:
    """Files by the whole of their key, manifests first; what has no key in its name is not ours."""
    groups: dict[str, list[os.DirEntry[str]]] = {}
    for entry in _list(directory):
        key = key_of(entry.name)
        if _KEY.fullmatch(key):
            groups.setdefault(key, []).append(entry)
    for key, entries in sorted(groups.items()):
        entries.sort(key=lambda entry: (not entry.name.endswith(MANIFEST_SUFFIX), entry.name))
        size, times = 0, []
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # somebody removed or replaced it just now
            size += found.st_blocks * 512 if found.st_nlink == 1 else 0
            times.append(found.st_mtime)
        if not times:
            continue
        has_manifest = entries[0].name.endswith(MANIFEST_SUFFIX)
        last_used = times[0] if has_manifest else max(times)
        held = _IN_USE if key in used else ""
        paths = tuple(directory / entry.name for entry in entries)
        yield Candidate(What.SOURCE, key, paths, size, last_used, held)


def is_locked_by_other(path: Path) -> bool:
    """Is it locked? What we may not even open is left to whoever tries to remove it."""
    try:
        return is_locked(path)
    except MorphError:
        return False


def _tree(
    what: What, path: Path, *, held: str = "", paths: tuple[Path, ...] | None = None
) -> Candidate:
    paths = paths or (path,)
    size = 0 if held else sum(tree_size(each) for each in paths)
    return Candidate(what, path.name, paths, size, _last_change([path]), held)


def _last_change(paths: list[Path]) -> float:
    """The modification time of the first of these that is there."""
    for path in paths:
        try:
            return path.lstat().st_mtime
        except OSError:
            continue
    return 0.0


def _list(directory: Path) -> list[os.DirEntry[str]]:
    with explain_failure("look for what can be removed", directory):
        try:
            with os.scandir(directory) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
