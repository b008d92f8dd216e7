"""What is stored, for people to look through: sources by name, and what systems are made of.

Names, kinds and dependencies are told by KEY.meta, which builds leave beside artifacts. Where it is
missing (it need not come along when artifacts are fetched), names of artifacts have to do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cacheserver.tallies import common_name
from morphlib.cache.names import LOG_SUFFIX, MANIFEST_SUFFIX, META_SUFFIX, TEMPORARY_PREFIX, key_of

KINDS = ("system", "stratum", "chunk")

_FRESH_SECONDS = 5.0  # for which what was read is taken as current, without a look
_STALE_SECONDS = 60.0  # after which it is read again even if the directory seems unchanged
_LARGEST_META = 64 << 20  # bytes


class Dependency(msgspec.Struct, frozen=True, gc=False):
    """An artifact that a source was built with, and the key of its source."""

    artifact: str
    key: str = msgspec.field(name="cache-key")


class _Identity(msgspec.Struct, frozen=True, gc=False):
    name: str = ""
    kind: str = ""
    arch: str = ""
    kids: tuple[Dependency, ...] = ()


class _Meta(msgspec.Struct, frozen=True, gc=False):
    identity: _Identity = msgspec.field(name="cache-id", default=_Identity())
    build_times: Mapping[str, Mapping[str, str]] = msgspec.field(name="build-times", default={})


_decoder = msgspec.json.Decoder(_Meta)
_EMPTY = _Meta()


@dataclass(frozen=True, slots=True)
class StoredFile:
    name: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class StoredSource:
    """Times are seconds since the epoch, sizes bytes. `complete`: its manifest is there; a build
    that failed leaves a log alone. `seconds` is how long it took to build, None if not known."""

    key: str
    kind: str
    name: str
    arch: str
    files: tuple[StoredFile, ...]
    size: int
    stored: float
    used: float
    complete: bool
    has_log: bool
    seconds: float | None
    dependencies: tuple[Dependency, ...]


class Catalogue:
    """Reads one directory of artifacts, no more often than is useful."""

    def __init__(self, directory: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._now = now
        self._guard = threading.Lock()
        self._metas: dict[str, tuple[int, _Meta]] = {}
        self._sources: dict[str, StoredSource] = {}
        self._read_at = self._looked_at = float("-inf")
        self._changed = 0

    def sources(self) -> Mapping[str, StoredSource]:
        """All sources by key. Raises OSError if the directory can't be read."""
        with self._guard:
            now = self._now()
            if now - self._looked_at < _FRESH_SECONDS:
                return self._sources
            changed = self._directory.stat().st_mtime_ns
            if changed != self._changed or now - self._read_at > _STALE_SECONDS:
                self._sources = self._read()
                self._read_at, self._changed = now, changed
            self._looked_at = now
            return self._sources

    def _read(self) -> dict[str, StoredSource]:
        groups: dict[str, list[tuple[str, os.stat_result]]] = {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.startswith((".", TEMPORARY_PREFIX)) or not entry.name.isprintable():
                    continue
                try:
                    if entry.is_file(follow_symlinks=False):
                        found = entry.name, entry.stat(follow_symlinks=False)
                        groups.setdefault(key_of(entry.name), []).append(found)
                except OSError:
                    continue  # it was removed just now
        self._metas = {key: meta for key, meta in self._metas.items() if key in groups}
        return {key: self._describe(key, sorted(group)) for key, group in groups.items()}

    def _describe(self, key: str, group: list[tuple[str, os.stat_result]]) -> StoredSource:
        statuses = dict(group)
        manifest = statuses.pop(key + MANIFEST_SUFFIX, None)
        meta = self._meta(key, statuses.get(key + META_SUFFIX))
        files = tuple(StoredFile(name, status.st_size) for name, status in statuses.items())
        artifacts = [name for name in statuses if name.count(".") >= 2]
        kind, name = _guess(artifacts)
        identity = meta.identity
        stored = max((status.st_mtime for status in statuses.values()), default=0.0)
        return StoredSource(
            key,
            identity.kind or kind,
            identity.name or name,
            identity.arch,
            files,
            sum(file.size for file in files),
            stored,
            manifest.st_mtime if manifest else stored,
            manifest is not None,
            key + LOG_SUFFIX in statuses,
            _seconds(meta),
            identity.kids,
        )

    def _meta(self, key: str, status: os.stat_result | None) -> _Meta:
        if status is None or status.st_size > _LARGEST_META:
            return _EMPTY
        kept = self._metas.get(key)
        if kept is not None and kept[0] == status.st_mtime_ns:
            return kept[1]
        try:
            meta = _decoder.decode((self._directory / (key + META_SUFFIX)).read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeError, RecursionError):
            meta = _EMPTY
        self._metas[key] = status.st_mtime_ns, meta
        return meta


def _guess(artifacts: Iterable[str]) -> tuple[str, str]:
    """Kind and name of a source from its artifacts' files: KEY.KIND.ARTIFACT."""
    parts = [name.split(".", 2)[1:] for name in artifacts]
    if not parts:
        return "", ""
    names = [name for _, name in parts]
    return parts[0][0], common_name(names) or names[0]


def _seconds(meta: _Meta) -> float | None:
    try:
        return float(meta.build_times["overall-build"]["delta"])
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Member:
    """Something that a source needs, directly or not; `source` is None where it is not stored."""

    artifact: str
    key: str
    source: StoredSource | None


def members_of(source: StoredSource, sources: Mapping[str, StoredSource]) -> tuple[Member, ...]:
    """All that a source is made of and built with, as far as what is stored tells, by artifact."""
    found: dict[str, Member] = {}
    queue = [source]
    while queue:
        for each in queue.pop().dependencies:
            if each.key not in found:
                stored = sources.get(each.key)
                found[each.key] = Member(each.artifact, each.key, stored)
                if stored is not None:
                    queue.append(stored)
    return tuple(sorted(found.values(), key=lambda member: (member.artifact, member.key)))


def search(sources: Iterable[StoredSource], kind: str, text: str) -> list[StoredSource]:
    """Those of a kind whose name holds the text, or whose key begins with it; last used first."""
    wanted = text.strip().lower()
    found = [
        each
        for each in sources
        if each.kind == kind
        and (wanted in each.name.lower() or (wanted and each.key.startswith(wanted)))
    ]
    return sorted(found, key=lambda each: (-each.used, each.name, each.key))
