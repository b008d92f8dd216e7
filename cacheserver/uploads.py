"""What comes in: received aside, verified by its digest, and put among the artifacts as a whole.

Files are staged one by one, each under its SHA-256, and then published together under their names:
readers see all files of a source or none. Nothing that is stored is replaced by other bytes.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cacheserver.artifacts import Artifacts, BadNameError, is_artifact_name, is_volatile
from morphlib.cache.failures import explain_failure
from morphlib.cache.names import SIGNATURES_SUFFIX, key_of
from morphlib.cache.signatures import LARGEST, Signatures, decode_signatures
from morphlib.cache.temporaries import remove_files
from morphlib.errors import MorphError, Reason

_BLOCK = 1 << 20
_STAGED_SECONDS = 3600.0


class UploadError(Exception):
    """An upload that is not taken; `status` is that of the answer, the text says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Staged:
    """A verified file that has no name yet."""

    path: Path
    size: int
    since: float


@dataclass(frozen=True, slots=True)
class Named:
    """What was staged, and has a name now."""

    name: str
    since: float


@dataclass(slots=True)
class Uploads:
    """Uploads into one store. `max_size` is that of one file, in bytes."""

    artifacts: Artifacts
    max_size: int
    now: Callable[[], float] = time.monotonic
    _staged: dict[str, Staged] = field(default_factory=dict)
    _named: dict[str, Named] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _publishing: threading.RLock = field(default_factory=threading.RLock)

    def receive(self, stream: Readable, length: int, sha256: str) -> Path:
        """Write `length` bytes to a temporary file. Raises UploadError unless they are as said."""
        self._check_room(length)
        path = self.artifacts.store.temporary()
        try:
            with explain_failure("receive an artifact", self.artifacts.directory):
                digest = _copy(stream, path, length)
            if digest != sha256:
                raise UploadError(422, f"its SHA-256 is {digest}, not {sha256}")
        except BaseException:
            remove_files([path])
            raise
        return path

    def _check_room(self, length: int) -> None:
        if length > self.max_size:
            raise UploadError(413, f"{length} bytes are more than the {self.max_size} allowed")
        if length > self.artifacts.free_space():
            raise MorphError("no room left for an upload", reason=Reason.SPACE)

    def stage(self, stream: Readable, length: int, sha256: str) -> None:
        """Keep a file, for an hour, until it is published."""
        self.expire()
        path = self.receive(stream, length, sha256)
        with self._guard:
            before = self._staged.get(sha256)
            self._staged[sha256] = Staged(path, length, self.now())
        if before is not None:
            remove_files([before.path])

    def is_staged(self, sha256: str) -> bool:
        self.expire()
        with self._guard:
            return sha256 in self._staged

    def publish_staged(self, key: str, wanted: Mapping[str, str]) -> bool:
        """Give staged files their names: name -> SHA-256. Returns whether anything was new.

        Raises UploadError if a file is not staged, or a name is taken by other bytes.
        """
        check_names(key, wanted)
        files: dict[str, Path] = {}
        try:
            # Whoever waits for what this takes is to find it under its name.
            with self._publishing:
                self._take(key, wanted, files)
                return self.publish(key, files, wanted)
        finally:
            remove_files(files.values())

    def _take(self, key: str, wanted: Mapping[str, str], taken: dict[str, Path]) -> None:
        """The staged files that are not stored already; they are no longer staged then."""
        # What is damaged, or somebody removed, is not there whatever the manifest says.
        there = {name for name, is_there in self.artifacts.has(wanted).items() if is_there}
        known = self.artifacts.manifest(key) or {}
        stored = {name for name in there if name in known and known[name].sha256 == wanted[name]}
        missing = {name: digest for name, digest in wanted.items() if name not in stored}
        names: dict[str, list[str]] = {}
        for name, digest in missing.items():
            names.setdefault(digest, []).append(name)
        with self._guard, ExitStack() as opened:
            others = {d: self._open_named(d, opened) for d in names if d not in self._staged}
            absent = [name for d, found in others.items() if found is None for name in names[d]]
            if absent:
                raise UploadError(409, f"not uploaded: {', '.join(sorted(absent))}")
            for digest, wanting in names.items():
                original = others.get(digest)
                if original is None:
                    first = wanting.pop(0)
                    original = taken[first] = self._staged.pop(digest).path
                    self._named[digest] = Named(first, self.now())
                for name in wanting:
                    taken[name] = self.artifacts.store.temporary()
                    with explain_failure("copy an artifact", self.artifacts.directory):
                        shutil.copyfile(original, taken[name])

    def _open_named(self, digest: str, opened: ExitStack) -> Path | None:
        """What was staged, and got the name of another source a moment ago.

        Whoever asked whether it is staged before that need not send it again.
        """
        named = self._named.get(digest)
        found = self.artifacts.open(named.name) if named is not None else None
        if found is None:
            return None
        opened.callback(found.close)
        return Path(f"/proc/self/fd/{found.descriptor}") if found.sha256 == digest else None

    def publish(self, key: str, files: Mapping[str, Path], digests: Mapping[str, str]) -> bool:
        """Move received files to their names. Returns whether anything was new.

        Raises UploadError if a name is taken by other bytes. Files that were not needed stay where
        they are.
        """
        store = self.artifacts.store
        with self._publishing:
            named = [name for name in files if not is_volatile(name)]
            # What is damaged is removed by this, and may be replaced.
            present = [name for name, there in self.artifacts.has(named).items() if there]
            known = self.artifacts.manifest(key) or {}
            for name in present:
                if name in known and known[name].sha256 != digests[name]:
                    raise UploadError(409, f"{name} is stored already, with other content")
            fresh = {n: files[n] for n in named if n not in present or n not in known}
            signed = self._read_signatures(key, files)
            if fresh:
                store.publish(key, fresh, digests=digests, sign=lambda _: signed)
            elif signed:
                store.add_signatures(key, signed)
            for name in files:
                if is_volatile(name) and not name.endswith(SIGNATURES_SUFFIX):
                    with explain_failure(f"store {name}", self.artifacts.directory):
                        files[name].chmod(0o644)
                        files[name].rename(self.artifacts.directory / name)
            return bool(fresh)

    def _read_signatures(self, key: str, files: Mapping[str, Path]) -> Signatures:
        """The signatures that came along, to be added to those that are here. Whether they are
        valid is for those to find out who trust a key; raises UploadError if they are no such."""
        path = files.get(key + SIGNATURES_SUFFIX)
        if path is None:
            return {}
        signed = read_signatures(path)
        if signed is None:
            raise UploadError(422, f"{key}{SIGNATURES_SUFFIX} holds no signatures")
        return signed

    def expire(self) -> None:
        """Remove what was staged and that nobody gave a name."""
        with self._guard:
            old = self.now() - _STAGED_SECONDS
            self._named = {d: each for d, each in self._named.items() if each.since >= old}
            expired = [digest for digest, each in self._staged.items() if each.since < old]
            remove_files([self._staged.pop(digest).path for digest in expired])

    def close(self) -> None:
        """Remove what is staged."""
        with self._guard:
            remove_files([each.path for each in self._staged.values()])
            self._staged.clear()
        self.artifacts.store.close()


def read_signatures(path: Path) -> Signatures | None:
    """What a file that came in says of artifacts, None if it says nothing. Nothing is verified."""
    with explain_failure("read signatures", path):
        return decode_signatures(path.read_bytes()) if path.stat().st_size <= LARGEST else None


def check_names(key: str, names: Mapping[str, str]) -> None:
    """Raises BadNameError unless all of these can be names of files of the source `key`."""
    for name in names:
        if not is_artifact_name(name) or key_of(name) != key:
            raise BadNameError


def _copy(stream: Readable, path: Path, length: int) -> str:
    """Write exactly `length` bytes. Returns their SHA-256. Raises UploadError, OSError."""
    digest = hashlib.sha256()
    left = length
    with path.open("xb", buffering=0) as file:
        while left:
            try:
                block = stream.read(min(_BLOCK, left))
            except OSError as error:
                raise UploadError(400, f"it ended early: {error}") from error
            if not block:
                raise UploadError(400, f"it ended early: {left} of {length} bytes are missing")
            digest.update(block)
            left -= len(block)
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
    return digest.hexdigest()
