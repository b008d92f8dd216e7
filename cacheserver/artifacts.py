"""The artifacts of a directory, as they are handed out: none without a digest that it agrees with.

What the manifest of a source names is checked against its stamp, and against its digest where the
stamp is another: a file that was altered is noticed, and removed together with its source. A build
log, KEY.meta and KEY.signatures vary, so no manifest names them; what they are now is digested as
they are opened.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from morphlib.cache.manifest import Manifest, decode_manifest, read_file, stamp_of
from morphlib.cache.names import (
    LOG_SUFFIX,
    MANIFEST_SUFFIX,
    META_SUFFIX,
    SIGNATURES_SUFFIX,
    is_file_name,
    key_of,
)
from morphlib.cache.store import ArtifactStore
from morphlib.errors import MorphError, Reason
from morphlib.events import Listener

_REMEMBERED = 10_000  # digests of files that are not as their manifest knows them
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class BadNameError(Exception):
    """A name that could lead out of the directory."""


@dataclass(frozen=True, slots=True)
class OpenArtifact:
    """An open file, which whoever has it closes. `mtime` is in seconds since the epoch."""

    name: str
    descriptor: int
    size: int
    mtime: float
    sha256: str

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of the listing: times in seconds since the epoch, sizes in bytes."""

    atime: float
    size: int
    used: int


class Artifacts:
    """What is stored in one directory. Raises MorphError when the disk refuses."""

    def __init__(self, directory: Path, listener: Listener, *, serve_unlisted: bool) -> None:
        self.store = ArtifactStore(directory, listener)
        self.directory = directory
        self._serve_unlisted = serve_unlisted
        self._digests: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._guard = threading.Lock()

    # Reading

    def open(self, name: str) -> OpenArtifact | None:
        """The file `name`, None if it is not stored. Raises BadNameError."""
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise BadNameError
        if not is_artifact_name(name):
            return None
        for _ in range(2):  # what was replaced or damaged since is looked at once more
            manifest = self.manifest(key_of(name))
            if not self._may_serve(name, manifest):
                return None
            descriptor = self._open(name)
            if descriptor is None:
                return None
            found = self._verify(name, descriptor, manifest)
            if found is not None:
                return found
            os.close(descriptor)
            self.store.check(key_of(name), [name])
        return None

    def has(self, names: Iterable[str]) -> dict[str, bool]:
        """Which of the names are stored. Those that can't be names of artifacts are not."""
        by_key: dict[str, list[str]] = {}
        found = dict.fromkeys(names, False)
        for name in found:
            if is_artifact_name(name) and is_volatile(name):
                found[name] = self._is_file(name)
            elif is_artifact_name(name):
                by_key.setdefault(key_of(name), []).append(name)
        whole = self.store.check_many(by_key)
        for key, wanted in by_key.items():
            there = dict.fromkeys(wanted, True) if key in whole else self._find(key, wanted)
            if key not in whole and any(there.values()) and not all(there.values()):
                # It may just be appearing or vanishing, and nobody is to see half of it.
                is_whole = self.store.check(key, wanted)
                there = dict.fromkeys(wanted, True) if is_whole else self._find(key, wanted)
            found |= there
        return found

    def _find(self, key: str, names: Iterable[str]) -> dict[str, bool]:
        """Which of a source's files are stored, one by one."""
        manifest = self.manifest(key)
        return {name: self._may_serve(name, manifest) and self._is_there(name) for name in names}

    def _is_file(self, name: str) -> bool:
        """Is it there? What varies has nothing to be compared with."""
        try:
            return stat.S_ISREG(os.lstat(self.directory / name).st_mode)
        except OSError:
            return False

    def _is_there(self, name: str) -> bool:
        found = self.open(name)
        if found is not None:
            found.close()
        return found is not None

    def manifest(self, key: str) -> Manifest | None:
        """What is known of the files of a source, None if it is not stored."""
        try:
            raw = read_file(os.fspath(self.directory / (key + MANIFEST_SUFFIX)))
        except OSError as error:
            raise self._error("read a manifest", error) from error
        return None if raw is None else decode_manifest(raw)

    def _may_serve(self, name: str, manifest: Manifest | None) -> bool:
        if manifest is not None and name in manifest:
            return True
        return is_volatile(name) or (manifest is None and self._serve_unlisted)

    def _open(self, name: str) -> int | None:
        try:
            return os.open(self.directory / name, _OPEN)
        except OSError as error:
            # ELOOP is a symlink, ENXIO a socket: nothing that was stored.
            absent = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)
            if error.errno in absent:
                return None
            raise self._error("read an artifact", error) from error

    def _verify(self, name: str, descriptor: int, manifest: Manifest | None) -> OpenArtifact | None:
        """The open file if it is intact. Raises MorphError if it can't be read."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        known = manifest.get(name) if manifest is not None else None
        if known is None or stamp_of(status, known.sha256) != known:
            try:
                digest = self._digest(descriptor, status)
            except OSError as error:
                os.close(descriptor)
                raise self._error("read an artifact", error) from error
            if known is not None and digest != known.sha256:
                return None
        else:
            digest = known.sha256
        return OpenArtifact(name, descriptor, status.st_size, status.st_mtime, digest)

    def _digest(self, descriptor: int, status: os.stat_result) -> str:
        """The SHA-256 of an open file, remembered as long as its stamp stays the same."""
        import hashlib

        changed = (status.st_mtime_ns, status.st_ctime_ns)
        stamp = (status.st_dev, status.st_ino, status.st_size, *changed)
        with self._guard:
            if stamp in self._digests:
                self._digests.move_to_end(stamp)
                return self._digests[stamp]
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._guard:
            self._digests[stamp] = digest
            if len(self._digests) > _REMEMBERED:
                self._digests.popitem(last=False)
        return digest

    def note_use(self, name: str) -> None:
        """A source that was handed out counts as used now."""
        self.store.touch([key_of(name)])

    # Listing and removing

    def listing(self) -> dict[str, Listed]:
        """Every file that is stored, by name; `atime` is when its source was last used."""
        found = {}
        used: dict[str, float] = {}
        for name in self.store.names():
            try:
                status = (self.directory / name).lstat()
            except OSError:
                continue  # removed just now
            if not stat.S_ISREG(status.st_mode):
                continue
            key = key_of(name)
            if key not in used:
                used[key] = self.store.last_used(key) or 0.0
            last = max(used[key], status.st_mtime)
            found[name] = Listed(last, status.st_size, status.st_blocks * 512)
        return found

    def free_space(self) -> int:
        """Bytes that the disk has left for us. Raises MorphError if there is no directory."""
        try:
            room = os.statvfs(self.directory)
        except OSError as error:
            raise self._error("look at the disk", error) from error
        return room.f_bavail * room.f_frsize

    def delete(self, name: str) -> None:
        """Remove one file. Raises BadNameError, or MorphError (NOT_FOUND)."""
        if not is_artifact_name(name):
            raise BadNameError
        self.store.discard(name)

    def _error(self, doing: str, error: OSError) -> MorphError:
        return MorphError(
            f"can't {doing} in {self.directory}: {error.strerror}", reason=Reason.CACHE
        )


def is_artifact_name(name: str) -> bool:
    """Can it be the name of a stored file, as short as file systems want it?"""
    longest = max(len(name.encode()), len(key_of(name).encode()) + len(MANIFEST_SUFFIX))
    return longest <= 255 and is_file_name(name)


def is_volatile(name: str) -> bool:
    """Is it a build log, KEY.meta or KEY.signatures, which come with a source and are not what it
    is?"""
    key = key_of(name)
    return name in (key + LOG_SUFFIX, key + META_SUFFIX, key + SIGNATURES_SUFFIX)
