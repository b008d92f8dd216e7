"""From manifest to trove: fetch, verify, commit, compare with what was pinned."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import msgspec

from morphlib.cache.locks import lock
from morphlib.errors import MorphError, Reason, raise_all
from morphlib.process import PIPE, ProcessError, run, spawn
from trove_import.apt import PrivateApt, files_present
from trove_import.manifest import SourceEntry, SourceKind
from trove_import.repository import Repository
from trove_import.tree import (
    Entry,
    Selection,
    directory_entries,
    newest_time,
    open_tar,
    tar_entries,
)


@dataclass(frozen=True, slots=True)
class Importer:
    """Where things come from and go to.

    `trove` gets a bare repository per source; `downloads` keeps what came from elsewhere; `base` is
    the directory that paths in the manifest are relative to. With `update`, what is found replaces
    what was pinned instead of having to equal it.
    """

    trove: Path
    downloads: Path
    base: Path
    apt: PrivateApt
    tell: Callable[[str], None]
    update: bool = False

    def import_all(self, entries: Sequence[SourceEntry]) -> tuple[SourceEntry, ...]:
        """Import what the trove lacks and return the entries as they turned out.

        Raises MorphErrors with every source that failed.
        """
        self.trove.mkdir(parents=True, exist_ok=True)
        with lock(self.trove / ".lock"):
            return self._import_all(entries)

    def _import_all(self, entries: Sequence[SourceEntry]) -> tuple[SourceEntry, ...]:
        errors: list[MorphError] = []

        def import_one(entry: SourceEntry) -> SourceEntry:
            try:
                return self._import_one(entry)
            except MorphError as error:
                errors.append(error)
                return entry

        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            done = tuple(pool.map(import_one, entries))
        raise_all(errors)
        return done

    def _import_one(self, entry: SourceEntry) -> SourceEntry:
        repository = Repository(self.trove / entry.name)
        if entry.commit and not self.update and repository.has(entry.commit):
            repository.publish(entry.commit, entry.branch)
            self.tell(f"{entry.title}: there already")
            return entry
        files = self._fetch(entry)
        with self._open(entry, files) as (entries, time):
            message = f"Import {entry.title}\n"
            commit = repository.commit(entries, message=message, time=time)
        if not self.update and commit != entry.commit:
            raise MorphError(
                f"importing {entry.title} gives commit {commit}, but "
                + (f"{entry.commit} is pinned" if entry.commit else "none is pinned"),
                reason=Reason.SOURCE,
                hint="if the source was changed on purpose, run scripts/import-sources --update",
            )
        repository.publish(commit, entry.branch)
        self.tell(f"{entry.title}: imported as {commit}")
        return msgspec.structs.replace(entry, commit=commit, files=files)

    def _fetch(self, entry: SourceEntry) -> dict[str, str]:
        """Have the files at hand; returns their SHA-256, which equal the pinned ones."""
        if entry.kind is SourceKind.DIRECTORY:
            return {}
        if entry.kind is SourceKind.TARBALL:
            path = self.base / entry.path
            if not path.is_file():
                raise MorphError(f"there is no tarball {path}", reason=Reason.NOT_FOUND)
            return self._verified(entry, {path.name: path})
        version = re.sub(r"[^A-Za-z0-9.+~-]", "_", entry.version)
        into = self.downloads / f"{entry.package}_{version}"
        if not files_present(entry.files, into) or self.update:
            into.mkdir(parents=True, exist_ok=True)
            self.tell(f"{entry.title}: downloading")
            fetch = {
                SourceKind.DEBIAN_SOURCE: self.apt.fetch_source,
                SourceKind.DEBIAN_BINARY: self.apt.fetch_binary,
            }[entry.kind]
            fetch(entry.package, entry.version, into)
        return self._verified(entry, {file.name: file for file in sorted(into.iterdir())})

    def _verified(self, entry: SourceEntry, files: dict[str, Path]) -> dict[str, str]:
        found = {name: _sha256(path) for name, path in files.items()}
        if self.update:
            return found
        wrong = [
            f"{name}: {found.get(name, 'not there')} where {digest} is pinned"
            for name, digest in entry.files.items()
            if found.get(name) != digest
        ]
        wrong += [f"{name}: not in the manifest" for name in found if name not in entry.files]
        if wrong:
            for name in entry.files if entry.kind is not SourceKind.TARBALL else ():
                files[name].unlink(missing_ok=True) if name in files else None
            raise MorphError(
                f"{entry.title} is not what the manifest pins (SHA-256):\n"
                + "\n".join(f"    {line}" for line in wrong),
                reason=Reason.SOURCE,
                hint="downloaded files were removed and will be fetched again; if the source was "
                "changed on purpose, run scripts/import-sources --update",
            )
        return found

    @contextmanager
    def _open(
        self, entry: SourceEntry, files: dict[str, str]
    ) -> Iterator[tuple[Iterator[Entry], int]]:
        """The content of a source and its time, in seconds since the epoch."""
        selection = Selection(entry.only, entry.leave_out)
        version = re.sub(r"[^A-Za-z0-9.+~-]", "_", entry.version)
        downloads = self.downloads / f"{entry.package}_{version}"
        match entry.kind:
            case SourceKind.DIRECTORY:
                root = self.base / entry.path
                if not root.is_dir():
                    raise MorphError(f"there is no directory {root}", reason=Reason.NOT_FOUND)
                yield directory_entries(root, selection), entry.date or 0
            case SourceKind.TARBALL:
                path = self.base / entry.path
                with open_tar(path, path) as tar:
                    time = newest_time(tar.getmembers())
                    yield tar_entries(tar, path, selection, strip_top=True), time
            case SourceKind.DEBIAN_BINARY:
                with _deb_payload(downloads / _only(files, ".deb", entry)) as (tar, path):
                    time = newest_time(tar.getmembers())
                    yield tar_entries(tar, path, selection, strip_top=False), time
            case SourceKind.DEBIAN_SOURCE:
                with _patched_source(downloads / _only(files, ".dsc", entry)) as root:
                    # the packaging tool's own record of patches is no part of the source
                    aside = Selection(entry.only, (*entry.leave_out, ".pc/*"))
                    yield directory_entries(root, aside), changelog_time(root)


def _only(files: dict[str, str], suffix: str, entry: SourceEntry) -> str:
    found = [name for name in files if name.endswith(suffix)]
    if len(found) != 1:
        raise MorphError(
            f"{entry.title} should come with one {suffix} file, not {len(found)}",
            reason=Reason.SOURCE,
        )
    return found[0]


@contextmanager
def _patched_source(dsc: Path) -> Iterator[Path]:
    """Unpack a source package with its patches; checksums in the .dsc are checked."""
    with tempfile.TemporaryDirectory(prefix="trove-import-") as temporary:
        root = Path(temporary) / "source"
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": temporary}
        run(["dpkg-source", "--no-copy", "-x", "--", dsc.absolute(), root], env=environment)
        yield root


@contextmanager
def _deb_payload(deb: Path) -> Iterator[tuple[tarfile.TarFile, Path]]:
    with tempfile.TemporaryFile() as payload:
        argv: list[str | bytes | Path] = ["dpkg-deb", "--fsys-tarfile", deb]
        child = spawn(argv, stdout=payload.fileno(), stderr=PIPE)
        assert child.stderr is not None
        complaint = child.stderr.read()
        child.stderr.close()
        if child.wait() != 0:
            raise ProcessError(argv, child.returncode, complaint)
        payload.seek(0)
        with open_tar(payload, deb) as tar:
            yield tar, deb


def changelog_time(root: Path) -> int:
    """When the version at the top of debian/changelog was made, in seconds since the epoch."""
    path = root / "debian/changelog"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        trailer = re.search(r"(?m)^ -- .*>  ?(.*)$", text)
        if trailer:
            return int(parsedate_to_datetime(trailer[1]).timestamp())
    except (OSError, ValueError) as error:
        raise MorphError(f"can't tell the date of {path}: {error}", reason=Reason.SOURCE) from error
    raise MorphError(f"{path} has no dated entry", reason=Reason.SOURCE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
