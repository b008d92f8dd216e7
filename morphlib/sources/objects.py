"""Reading commits, trees and files of a repository, in process.

Whatever is read may be hostile: nothing of a repository's configuration, attributes, replace refs
or hooks counts here, and what is malformed is an error of one kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pygit2

from morphlib.errors import MorphError, Reason
from morphlib.sources.model import Resolved
from morphlib.sources.names import check_ref, is_sha1

# Repositories are often owned by others (a shared cache, an archive of sources). That is harmless
# since libgit2 only reads: it starts no program on behalf of their configuration.
pygit2.settings.owner_validation = False

_COMMITTER = re.compile(rb"^committer .*?(-?[0-9]{1,18}) [+-][0-9]+$", re.MULTILINE)
_TREE = re.compile(rb"tree ([0-9a-f]{40})\n")
_TAGGED = re.compile(rb"object ([0-9a-f]{40})\ntype ([a-z]+)\n")
_MAX_TAGS = 20  # tags of tags of tags ...

#: Latest time that every file system and archive format can hold.
LATEST_TIME = 2**31 - 1

DIRECTORY = 0o040000
FILE = 0o100000
LINK = 0o120000
GITLINK = 0o160000


class Entry(NamedTuple):
    """An entry of a tree. `kind` is one of DIRECTORY, FILE, LINK, GITLINK; `id` has 20 bytes."""

    kind: int
    executable: bool
    name: bytes
    id: bytes


class ObjectReader:
    """The objects and refs of one repository. Several threads may use it at once."""

    def __init__(self, git_dir: Path) -> None:
        """`git_dir` is what `find_git_directory` gives. Raises MorphError if it can't be opened."""
        self.git_dir = git_dir
        try:
            self._odb = pygit2.Odb(str(common_directory(git_dir) / "objects"))
        except (pygit2.GitError, OSError, ValueError) as error:
            raise self._error(f"can't be opened: {error}") from error

    def resolve(self, ref: str) -> Resolved | None:
        """The commit that `ref` (a commit id, branch, tag or other name) means, None if unknown."""
        found = ref if is_sha1(ref) else self._look_up(check_ref(ref))
        for _ in range(_MAX_TAGS):
            if found is None or pygit2.Oid(hex=found) not in self._odb:
                return None
            kind, data = self._read(found)
            if kind == pygit2.enums.ObjectType.COMMIT:
                return Resolved(found, self._tree_of(found, data))
            match = _TAGGED.match(data) if kind == pygit2.enums.ObjectType.TAG else None
            found = match[1].decode() if match else None
        return None

    def has_commit(self, commit: str) -> bool:
        """Is the commit (or tag) with this full id there?"""
        return pygit2.Oid(hex=commit) in self._odb

    def commit_time(self, commit: str) -> int:
        """When it was committed, in seconds since the epoch, within what files can have."""
        kind, data = self._read(commit)
        header = data.split(b"\n\n", 1)[0]
        match = _COMMITTER.search(header)
        if kind != pygit2.enums.ObjectType.COMMIT or match is None:
            raise self._error(f"commit {commit} is malformed: it has no committer time")
        return min(max(int(match[1]), 0), LATEST_TIME)

    def tree_of(self, commit_or_tree: str) -> str:
        """The id of a commit's tree, or of the tree itself."""
        kind, data = self._read(commit_or_tree)
        if kind == pygit2.enums.ObjectType.TREE:
            return commit_or_tree
        if kind == pygit2.enums.ObjectType.COMMIT:
            return self._tree_of(commit_or_tree, data)
        raise self._error(f"{commit_or_tree} is neither a commit nor a tree")

    def entries(self, tree: str | bytes) -> list[Entry]:
        """What a tree holds, as it is written there: names may be hostile."""
        kind, data = self._read(tree)
        if kind != pygit2.enums.ObjectType.TREE:
            raise self._error(f"{_hex(tree)} is not a tree")
        try:
            return list(_parse_tree(data))
        except ValueError as error:
            raise self._error(f"tree {_hex(tree)} is malformed") from error

    def blob(self, blob: str | bytes) -> bytes:
        """The content of a file or symlink."""
        kind, data = self._read(blob)
        if kind != pygit2.enums.ObjectType.BLOB:
            raise self._error(f"{_hex(blob)} is not a file")
        return data

    def find(self, tree: str, path: str) -> Entry | None:
        """The entry at `path` (relative, '/'); no symlink is followed. None: there is none."""
        at: str | bytes = tree
        parts = path.encode("utf-8", "surrogateescape").split(b"/")
        for depth, part in enumerate(parts, 1):
            entry = next((entry for entry in self.entries(at) if entry.name == part), None)
            if entry is None or depth == len(parts):
                return entry
            if entry.kind != DIRECTORY:
                return None
            at = entry.id
        return None

    def _read(self, id: str | bytes) -> tuple[int, bytes]:
        oid = pygit2.Oid(hex=id) if isinstance(id, str) else pygit2.Oid(raw=id)
        try:
            kind, data = self._odb.read(oid)
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise self._error(
                f"object {_hex(id)} can't be read: {error}",
                hint="The repository is incomplete (a partial clone?) or damaged.",
            ) from error
        return int(kind), data

    def _tree_of(self, commit: str, data: bytes) -> str:
        match = _TREE.match(data)
        if match is None:
            raise self._error(f"commit {commit} is malformed: it has no tree")
        return match[1].decode()

    def _look_up(self, ref: str) -> str | None:
        """The id that a symbolic ref or an abbreviated id stands for."""
        try:
            return str(pygit2.Repository(str(self.git_dir)).revparse_single(ref).id)
        except (KeyError, ValueError):
            return None  # there is none, or an abbreviation fits several
        except pygit2.GitError as error:
            raise self._error(f"can't look up {ref}: {error}") from error

    def _error(self, message: str, hint: str | None = None) -> MorphError:
        return MorphError(
            f"Git repository {self.git_dir}: {message}", reason=Reason.SOURCE, hint=hint
        )


def find_git_directory(path: Path) -> Path | None:
    """The git directory of the repository at `path`: bare, with `.git`, or a worktree with a file
    `.git` that leads elsewhere. None if there is no repository."""
    inner = path / ".git"
    if inner.is_dir():
        return inner if _looks_like_git_directory(inner) else None
    if inner.is_file():
        text = inner.read_bytes()[:5000].decode("utf-8", "surrogateescape")
        target = path / text.removeprefix("gitdir:").strip()
        return target if text.startswith("gitdir:") and _looks_like_git_directory(target) else None
    return path if _looks_like_git_directory(path) else None


def common_directory(git_dir: Path) -> Path:
    """Where objects and shared refs are: `git_dir`, or the main repository of a worktree."""
    try:
        text = (git_dir / "commondir").read_bytes()[:5000].decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return git_dir
    return git_dir / text.strip()


def alternate_directories(objects: Path) -> tuple[Path, ...]:
    """The object directories that the one at `objects` borrows from, directly or not."""
    found: dict[Path, None] = {}
    queue = [objects]
    while queue and len(found) < 20:
        at = queue.pop(0)
        try:
            lines = (at / "info" / "alternates").read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            text = line.decode("utf-8", "surrogateescape")
            if text and not text.startswith("#"):
                other = (at / text).resolve()
                if other.is_dir() and other not in found and other != objects.resolve():
                    found[other] = None
                    queue.append(other)
    return tuple(found)


def _looks_like_git_directory(path: Path) -> bool:
    return (path / "HEAD").is_file() and (common_directory(path) / "objects").is_dir()


def _hex(id: str | bytes) -> str:
    return id if isinstance(id, str) else id.hex()


def _parse_tree(data: bytes) -> Iterator[Entry]:
    at, end = 0, len(data)
    while at < end:
        space = data.index(b" ", at)
        nul = data.index(b"\0", space)
        mode = int(data[at:space], 8)
        kind = mode & 0o170000
        if kind not in (DIRECTORY, FILE, LINK, GITLINK) or nul + 21 > end:
            raise ValueError(f"mode {mode:o}")
        yield Entry(kind, bool(mode & 0o100), data[space + 1 : nul], data[nul + 1 : nul + 21])
        at = nul + 21
