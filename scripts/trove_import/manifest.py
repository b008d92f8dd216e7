"""The manifest: what a trove is made of, and what it must turn out to be.

One YAML file describes every repository of the trove. For each it names the package and version (or
the tarball, or the directory), the SHA-256 of the files that come from elsewhere, and the commit
that importing them gives. Importing verifies both; `--update` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path, PurePosixPath

import msgspec
import yaml

from morphlib.errors import Location, MorphError, Reason, raise_all

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*\Z")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.:~-]*\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


class SourceKind(StrEnum):
    DEBIAN_SOURCE = "debian-source"  # a source package, with the distribution's patches applied
    DEBIAN_BINARY = "debian-binary"  # the files of a binary package
    TARBALL = "tarball"  # a tar file on this machine
    DIRECTORY = "directory"  # a directory beside the manifest


class SourceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One repository of the trove. `version` also names the branch that the import makes."""

    name: str
    kind: SourceKind
    version: str
    package: str = ""  # of the two Debian kinds
    path: str = ""  # of tarballs and directories, relative to the manifest
    date: int | None = None  # of directories: seconds since the epoch
    only: tuple[str, ...] = ()  # shell patterns of paths; nothing else is imported
    leave_out: tuple[str, ...] = ()  # shell patterns of paths that are not imported
    files: Mapping[str, str] = {}  # name -> SHA-256 of what comes from elsewhere
    commit: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def branch(self) -> str:
        """The version as a branch name: git takes neither `:` nor `~` in one."""
        return "import/" + re.sub(r"[^A-Za-z0-9.+_-]", "_", self.version)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sources: tuple[SourceEntry, ...]


def read_manifest(path: Path) -> tuple[SourceEntry, ...]:
    """Every entry, checked. Raises MorphError, or MorphErrors with all that is wrong."""
    try:
        document = yaml.safe_load(path.read_bytes())
        entries = msgspec.convert(document, _Document).sources
    except OSError as error:
        raise MorphError(
            f"can't read the manifest {path}: {error.strerror}", reason=Reason.NOT_FOUND
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = Location(str(path), mark.line + 1, mark.column + 1) if mark else Location(str(path))
        raise MorphError(
            f"not YAML: {error.problem}", reason=Reason.DEFINITION, location=place
        ) from error
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        raise MorphError(
            f"not a manifest of sources: {error}",
            reason=Reason.DEFINITION,
            location=Location(str(path)),
        ) from error
    raise_all(
        MorphError(
            f"source {entry.name!r}: {problem}",
            reason=Reason.DEFINITION,
            location=Location(str(path)),
        )
        for position, entry in enumerate(entries)
        for problem in _problems(entry, entries[:position])
    )
    return entries


def _problems(entry: SourceEntry, earlier: tuple[SourceEntry, ...]) -> list[str]:
    found = []
    if not _NAME.match(entry.name):
        found.append("the name must be letters, digits and any of +._- and start with one of both")
    if any(entry.name == other.name for other in earlier):
        found.append("there are two of this name")
    if not _VERSION.match(entry.version):
        found.append(f"{entry.version!r} is no version")
    debian = entry.kind in (SourceKind.DEBIAN_SOURCE, SourceKind.DEBIAN_BINARY)
    if debian and not _PACKAGE.match(entry.package):
        found.append(f"`package` must name a Debian package, not {entry.package!r}")
    if not debian and not entry.path:
        found.append("`path` is missing")
    if (entry.kind is SourceKind.DIRECTORY) != (entry.date is not None):
        found.append("`date` must be given for a directory, and for nothing else")
    for name, digest in entry.files.items():
        if "/" in name or name.startswith((".", "-")):
            found.append(f"{name!r} is no plain file name")
        if not _SHA256.match(digest):
            found.append(f"{digest!r} (of {name}) is not a SHA-256 in hex")
    if entry.commit and not _COMMIT.match(entry.commit):
        found.append(f"{entry.commit!r} is not a commit in hex")
    return found


def write_manifest(path: Path, entries: tuple[SourceEntry, ...]) -> None:
    """Write the manifest again, keeping the comment at its top."""
    header = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.strip() and not line.startswith("#"):
            break
        header.append(line)
    documents = []
    for entry in entries:
        fields = msgspec.to_builtins(entry)
        filled = {name: value for name, value in fields.items() if value or value == 0}
        for name in ("only", "leave_out"):
            if name in filled:
                filled[name] = list(filled[name])
        text = yaml.safe_dump([filled], sort_keys=False, default_flow_style=False, width=100)
        documents.append(text)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text("".join(header) + "sources:\n" + "\n".join(documents), encoding="utf-8")
    temporary.replace(path)


def repin_definitions(directory: Path, commits: Mapping[str, str]) -> list[PurePosixPath]:
    """Replace each old commit by the new one in every definition below `directory`."""
    changed = []
    for path in sorted(directory.rglob("*.morph")):
        text = path.read_text(encoding="utf-8")
        new = text
        for old, commit in commits.items():
            new = new.replace(old, commit)
        if new != text:
            path.write_text(new, encoding="utf-8")
            changed.append(PurePosixPath(path.relative_to(directory).as_posix()))
    return changed
