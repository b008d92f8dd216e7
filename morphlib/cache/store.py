"""The artifact store: what was built, by cache key.

On disk, in CACHEDIR/artifacts:

    KEY.chunk.NAME, KEY.stratum.NAME, KEY.system.NAME    artifacts
    KEY.stratum.NAME.meta                                data that belongs to an artifact
    KEY.manifest                                         digests and stamps of a source's files
    KEY.meta                                             when and how long a build ran
    KEY.build-log                                        log of the last build, successful or not
    KEY.signatures                                       who says what the artifacts are
    tmp-TOKEN-RANDOM*                                    what is being written
    tmp-TOKEN.lock                                       locked while the writers of TOKEN live

A source's artifacts count as stored once KEY.manifest names them, and it is written last; files it
does not name are as good as absent and are overwritten. So whatever dies whenever, there is either
a whole source or none. Nothing is flushed to the disk on purpose: if the machine itself goes down,
what was lost no longer agrees with its manifest.

KEY.manifest is JSON, {file name: {sha256, size, mtime_ns, ctime_ns, inode}}. As long as a file's
stamps are those recorded it is taken as intact. If they differ (the cache was copied, say, or a
file altered) its digest decides: the stamps are renewed, or the source is removed and said to be
damaged. The manifest's own modification time says when its source was last used.

Locking: finished files have their final names from one rename on and are never written to again,
so readers take no lock. Whoever changes what a manifest says, or removes a source, holds the flock
of the directory itself for that moment. Who may build a source is settled elsewhere (KeyLocks); if
two processes publish the same key nevertheless, both end up with a whole source.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from morphlib.cache.failures import explain_failure, storage_error
from morphlib.cache.locks import Lock, acquire_directory
from morphlib.cache.manifest import (
    DamageError,
    Manifest,
    decode_manifest,
    digest_file,
    encode_manifest,
    read_file,
    stamp_of,
    verify_file,
)
from morphlib.cache.names import (
    LOG_SUFFIX,
    MANIFEST_SUFFIX,
    SIGNATURES_SUFFIX,
    TEMPORARY_PREFIX,
    check_name,
    is_file_name,
    key_of,
)
from morphlib.cache.signatures import (
    Content,
    Signatures,
    decode_signatures,
    encode_signatures,
    merge_signatures,
)
from morphlib.cache.temporaries import Temporaries, remove_files
from morphlib.errors import MorphError, Reason
from morphlib.events import Listener, Status, silence

_MODE = 0o644

#: Signs files, of which it gets names and contents.
Sign = Callable[[Mapping[str, Content]], Signatures]


class ArtifactStore:
    """The artifacts in one directory, which any number of processes may use at once.

    Methods raise MorphError: CACHE when the disk refuses, SPACE when it is full.
    """

    def __init__(self, directory: Path, listener: Listener = silence) -> None:
        self.directory = directory
        self._listener = listener
        self._prefix = os.fspath(directory) + "/"
        self._temporaries = Temporaries(directory)

    # Names and paths

    def path(self, name: str) -> Path:
        """Where the file `name` (such as KEY.chunk.zlib-libs) is or would be."""
        return self.directory / check_name(name)

    def names(self) -> list[str]:
        """The names of all files of sources in the store, sorted; manifests are not among them."""
        return sorted(name for name in self._list() if not name.endswith(MANIFEST_SUFFIX))

    def keys(self) -> list[str]:
        """The keys of all sources that the store has, sorted. Nothing is verified."""
        return sorted(
            name.removesuffix(MANIFEST_SUFFIX)
            for name in self._list()
            if name.endswith(MANIFEST_SUFFIX)
        )

    def digest(self, name: str) -> str:
        """The recorded SHA-256 (hex) of a file. Raises MorphError (NOT_FOUND) if not stored."""
        manifest = self._load(key_of(check_name(name)))
        if manifest is None or name not in manifest:
            raise MorphError(f"{name} is not in {self.directory}", reason=Reason.NOT_FOUND)
        return manifest[name].sha256

    # Is it there?

    def check(self, key: str, names: Sequence[str]) -> bool:
        """Does the store have all these files of the source `key`, and are they intact?

        A source with a damaged file is removed, which is told with a warning.
        """
        return key in self.check_many({key: names})

    def check_many(self, wanted: Mapping[str, Sequence[str]]) -> set[str]:
        """The keys of which the store has all the wanted files intact.

        Costs one read per key and one stat per file unless something changed since it was stored.
        """
        found: set[str] = set()
        prefix, lstat, read = self._prefix, os.lstat, self._read
        for key, names in wanted.items():
            raw = read(key)
            if raw is None:
                continue
            manifest = decode_manifest(raw)
            if manifest is None:
                self._discard_unreadable(key, raw)
                continue
            try:
                for name in names:
                    known = manifest[name]
                    now = lstat(prefix + name)
                    if (
                        now.st_ctime_ns != known.ctime_ns
                        or now.st_size != known.size
                        or now.st_mtime_ns != known.mtime_ns
                        or now.st_ino != known.inode
                    ):
                        break
                else:
                    found.add(key)
                    continue
            except KeyError:
                continue
            except OSError:
                pass  # missing or unreadable: looked into below
            if self._recheck(key, names):
                found.add(key)
        return found

    def _recheck(self, key: str, names: Sequence[str]) -> bool:
        """Decide by digest whether the files of `key` are intact; renew stamps, or remove them."""
        while True:
            raw = self._read(key)
            manifest = decode_manifest(raw) if raw is not None else None
            if manifest is None or any(name not in manifest for name in names):
                return False
            renewed = dict(manifest)
            damage: str | None = None
            try:
                for name in names:
                    renewed[name] = verify_file(self.directory / name, manifest[name])
            except DamageError as error:
                damage = str(error)
            except OSError as error:
                raise storage_error(error, "read artifacts", self.directory) from error
            if damage is None and renewed == manifest:
                return True
            with self._changing():
                if self._read(key) != raw:
                    continue  # somebody else removed or stored it meanwhile
                if damage is None:
                    self._renew(key, renewed)
                    return True
                try:
                    self._remove_stored(key, manifest)
                except OSError:
                    pass  # whoever builds it again will hear why it can't be replaced
            self._warn(f"{damage}; it will be built again")
            return False

    def _renew(self, key: str, manifest: Manifest) -> None:
        try:
            self._write_manifest(key, manifest)
        except (OSError, MorphError):
            pass  # a cache that can only be read is verified by digest every time

    def _discard_unreadable(self, key: str, raw: bytes) -> None:
        """Remove a manifest that does not say what it should; its files count as absent then."""
        with self._changing():
            if self._read(key) != raw:
                return
            try:
                self._manifest_path(key).unlink(missing_ok=True)
            except OSError:
                pass  # it stays, and counts for nothing
        self._warn(
            f"manifest {self._manifest_path(key)} is damaged; "
            "what it belongs to will be built again"
        )

    # Storing

    def temporary(self, suffix: str = "") -> Path:
        """A fresh path beside the artifacts to write to (nothing is there yet).

        Hand it to `publish`. It is swept away when no process that might write it is alive.
        """
        return self._temporaries.fresh(suffix)

    @contextmanager
    def temporaries(self) -> Iterator[Callable[[], Path]]:
        """Gives such paths too; what is left of them at the end of the block is removed.

        So a failure to write what is to be published does not keep the disk full.
        """
        made: list[Path] = []

        def fresh() -> Path:
            made.append(self.temporary())
            return made[-1]

        try:
            yield fresh
        finally:
            remove_files(made)

    def publish(
        self,
        key: str,
        files: Mapping[str, Path],
        extra: Mapping[str, bytes] | None = None,
        *,
        digests: Mapping[str, str] | None = None,
        sign: Sign | None = None,
    ) -> None:
        """Store a source: all of its files, or none of them.

        `files` maps final names to finished temporary files of the same directory, which are moved;
        when this fails they are removed. `extra` are small files that vary and are therefore not
        verified (KEY.meta). `digests` are SHA-256 of files whose writer knows them already; others
        are read once more. `sign` tells the signatures of the files, which come with them. Files
        that the key has already under other names stay.
        """
        extra = extra or {}
        for name in (*files, *extra):
            if key_of(check_name(name)) != key:
                raise AssertionError(f"{name} does not belong to {key}")
        written: dict[str, Path] = {}
        try:
            with explain_failure(f"store what was built as {key[:12]}", self.directory):
                known = self._digest_new(files, digests or {})
                for name, data in extra.items():
                    written[name] = self._temporaries.write(data, _MODE)
                signed: Signatures = {}
                if sign is not None:
                    contents = {n: Content(d, os.lstat(files[n]).st_size) for n, d in known.items()}
                    signed = sign(contents)
                with self._changing():
                    self._place(key, files, known, written, signed)
        finally:
            remove_files((*files.values(), *written.values()))

    def adopt(self, key: str, files: Mapping[str, Path], digests: Mapping[str, str]) -> None:
        """Store files that came from elsewhere, such as an artifact server, like `publish`.

        Raises MorphError (CACHE) if a file's content does not have the digest that was promised.
        """
        for name, path in files.items():
            with explain_failure(f"read {name}", self.directory):
                digest, _ = digest_file(path)
            if digest != digests[name]:
                remove_files(files.values())
                raise MorphError(
                    f"{name} did not arrive as promised: its SHA-256 is {digest}, "
                    f"not {digests[name]}",
                    reason=Reason.CACHE,
                )
        self.publish(key, files, digests=digests)

    def _digest_new(self, files: Mapping[str, Path], known: Mapping[str, str]) -> dict[str, str]:
        digests: dict[str, str] = {}
        for name, path in files.items():
            digests[name] = known[name] if name in known else digest_file(path)[0]
            if stat.S_IMODE(os.lstat(path).st_mode) != _MODE:
                path.chmod(_MODE)
        return digests

    def _place(
        self,
        key: str,
        files: Mapping[str, Path],
        digests: Mapping[str, str],
        written: Mapping[str, Path],
        signed: Signatures,
    ) -> None:
        """Move everything to its name and write the manifest last; or leave nothing new behind."""
        manifest: Manifest = dict(self._load(key) or {})
        unnamed = [name for name in files if name not in manifest]
        try:
            for name, path in (*files.items(), *written.items()):
                path.rename(self.directory / name)
            # Stamped after the rename, which changes a file's ctime.
            for name, digest in digests.items():
                manifest[name] = stamp_of(os.lstat(self._prefix + name), digest)
            if signed:
                manifest.pop(key + SIGNATURES_SUFFIX, None)
                self._merge_signatures(key, signed, manifest)
            self._write_manifest(key, manifest)
        except BaseException:
            remove_files(self.directory / name for name in unnamed)
            raise

    # Signatures

    def signatures(self, key: str) -> Signatures:
        """The signatures of a source's files, none if there are none. Nothing is verified."""
        path = self._prefix + key + SIGNATURES_SUFFIX
        with explain_failure("read signatures", self.directory):
            raw = read_file(path)
        return (decode_signatures(raw) or {}) if raw is not None else {}

    def add_signatures(self, key: str, signed: Signatures) -> None:
        """Keep further signatures of files that are stored; those of others are dropped."""
        with self._changing(), explain_failure("store signatures", self.directory):
            manifest = self._load(key) or {}
            # They vary. A server that did not know of them may have taken them for an artifact.
            if manifest.pop(key + SIGNATURES_SUFFIX, None) is not None:
                self._write_manifest(key, manifest)
            self._merge_signatures(key, signed, manifest)

    def _merge_signatures(self, key: str, signed: Signatures, manifest: Manifest) -> None:
        before = self.signatures(key)
        merged = merge_signatures((before, signed), manifest)
        if merged != before:
            path = self._temporaries.write(encode_signatures(merged), _MODE)
            path.rename(self.directory / (key + SIGNATURES_SUFFIX))

    # Logs

    def log_path(self, key: str) -> Path:
        """Where the log of the last build of a source is, or would be."""
        return self.path(key + LOG_SUFFIX)

    @contextmanager
    def open_log(self, key: str) -> Iterator[BinaryIO]:
        """An unbuffered file to which a build's log goes; its name is that of a temporary file.

        Whether the block succeeds or fails, the log is stored at its end.
        """
        with explain_failure("write a build log", self.directory):
            path = self.temporary()
            file = path.open("xb", buffering=0)
        try:
            with file:
                yield file
        finally:
            with explain_failure("store a build log", self.directory):
                path.rename(self.log_path(key))

    def write_log(self, key: str, data: bytes) -> None:
        """Store the log of a build."""
        with explain_failure("store a build log", self.directory):
            path = self._temporaries.write(data, _MODE)
            path.rename(self.log_path(key))

    # Use and removal

    def touch(self, keys: Iterable[str]) -> None:
        """Note that these sources are being used now. Does nothing for those not stored."""
        for key in keys:
            try:
                os.utime(self._prefix + key + MANIFEST_SUFFIX)
            except OSError:
                pass  # not stored, or not ours to write: then its age is not ours to keep either

    def last_used(self, key: str) -> float | None:
        """When a source was last used, in seconds since the epoch. None if it is not stored."""
        try:
            return self._manifest_path(key).stat().st_mtime
        except OSError:
            return None

    def remove(self, key: str, names: Iterable[str] = ()) -> None:
        """Remove a source: its manifest first, then its files and the further `names` of it."""
        with self._changing(), explain_failure(f"remove {key[:12]}", self.directory):
            manifest = self._load(key) or {}
            self._remove_stored(key, [*manifest, *(check_name(name) for name in names)])

    def discard(self, name: str) -> None:
        """Remove one file; its source stays without it. Raises MorphError (NOT_FOUND)."""
        key = key_of(check_name(name))
        with self._changing(), explain_failure(f"remove {name}", self.directory):
            manifest = self._load(key) or {}
            kept = {each: stamp for each, stamp in manifest.items() if each != name}
            if kept and len(kept) < len(manifest):
                self._write_manifest(key, kept)
            elif not kept:
                self._manifest_path(key).unlink(missing_ok=True)
            try:
                (self.directory / name).unlink()
            except FileNotFoundError as error:
                missing = f"{name} is not in {self.directory}"
                raise MorphError(missing, reason=Reason.NOT_FOUND) from error

    def _remove_stored(self, key: str, names: Iterable[str]) -> None:
        """Remove the manifest, then as many of the files as possible. Raises OSError at the end."""
        self._manifest_path(key).unlink(missing_ok=True)
        failure: OSError | None = None
        for name in names:
            # A manifest that somebody tampered with must not lead out of the store.
            if is_file_name(name) and key_of(name) == key:
                try:
                    (self.directory / name).unlink(missing_ok=True)
                except OSError as error:
                    failure = error
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Stop writing. Temporary files that are left may be removed by anybody from now on."""
        self._temporaries.close()

    def __enter__(self) -> ArtifactStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Files

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the store's lock, for the moment in which manifests or files are changed."""
        with explain_failure("make the artifact cache", self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        with self.lock():
            yield

    def lock(self) -> Lock:
        """Keep others from changing what is stored, until the lock is released.

        Raises MorphError (NOT_FOUND) if there is no directory.
        """
        # It may be a link to a larger disk: what is locked is the directory that this leads to.
        held = acquire_directory(Path(os.path.realpath(self.directory)))
        assert held is not None
        return held

    def _list(self) -> Iterator[str]:
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    if not entry.name.startswith((TEMPORARY_PREFIX, ".")):
                        yield entry.name
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, "list artifacts", self.directory) from error

    def _read(self, key: str) -> bytes | None:
        """The manifest of `key` as it is on disk, None if there is none."""
        try:
            return read_file(self._prefix + key + MANIFEST_SUFFIX)
        except OSError as error:
            raise storage_error(error, "read a manifest", self.directory) from error

    def _load(self, key: str) -> Manifest | None:
        raw = self._read(key)
        return decode_manifest(raw) if raw is not None else None

    def _write_manifest(self, key: str, manifest: Manifest) -> None:
        path = self._temporaries.write(encode_manifest(manifest), _MODE)
        try:
            path.rename(self._manifest_path(key))
        except BaseException:
            remove_files([path])
            raise

    def _manifest_path(self, key: str) -> Path:
        return self.directory / (key + MANIFEST_SUFFIX)

    def _warn(self, text: str) -> None:
        self._listener(Status(text=text, level="warning"))
