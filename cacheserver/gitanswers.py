"""Answers about git repositories: what refs mean, files, and directories. All in this process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pygit2
from pygit2.enums import ObjectType

from cacheserver.repositories import Repositories, Repository
from cacheserver.room import Held
from morphlib.errors import MorphError
from morphlib.sources.names import check_ref

_SHA1 = re.compile(r"[0-9a-fA-F]{40}")
# Searching messages, reflogs, and walks of any length: questions that no client asks.
_EXPENSIVE = re.compile(r"\^\{/|@\{|[~^][0-9]{5}|([~^][0-9]*){20}")
_PREFIX = "refs/origin/"
_KINDS = {0o040000: "tree", 0o100000: "blob", 0o120000: "blob", 0o160000: "commit"}
_ANY = 1 << 62
_TREE_FACTOR = 16  # what entries take in an answer is so many times what they take in git
_GIT_ERRORS = (pygit2.GitError, KeyError, ValueError, OSError, TypeError)


class GitQueryError(Exception):
    """A question that has no answer. The text is part of the answer to batched requests."""


@dataclass(frozen=True, slots=True)
class RepositoryAnswers:
    """Answers from the repositories of one directory. `max_size`: of a file, in bytes."""

    repositories: Repositories
    max_size: int

    def resolve(self, url: str, ref: str) -> dict[str, str]:
        """`sha1` and `tree` of a ref. Raises GitQueryError."""
        repository = self._find(url)
        with repository.lock:
            return self._resolve(repository, url, ref)

    def resolve_all(self, wanted: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
        """What `resolve` gives, or an `error`, for each of (repo, ref), in their order."""
        results: list[dict[str, str]] = [{} for _ in wanted]
        by_url: dict[str, list[int]] = {}
        for index, (url, _) in enumerate(wanted):
            by_url.setdefault(url, []).append(index)
        for url, indices in by_url.items():
            try:
                repository = self._find(url)
            except GitQueryError as error:
                for index in indices:
                    results[index] = {"repo": url, "ref": wanted[index][1], "error": str(error)}
                continue
            with repository.lock:
                for index in indices:
                    ref = wanted[index][1]
                    try:
                        results[index] = self._resolve(repository, url, ref)
                    except GitQueryError as error:
                        results[index] = {"repo": url, "ref": ref, "error": str(error)}
        return results

    def read_file(self, url: str, ref: str, path: str, held: Held, limit: int = _ANY) -> bytes:
        """The file at a path of a commit; of a symlink, where it leads.

        It is not read if it has more than `limit` bytes. `held` gets its size.
        Raises GitQueryError, BusyError.
        """
        repository = self._find(url)
        with repository.lock:
            entry = self._entry(repository, self._tree(repository, url, ref), path)
            if entry is None or entry.filemode == pygit2.enums.FileMode.COMMIT:
                raise GitQueryError(f"File {path} is not in ref {ref} of repo {url}")
            what = f"File {path} in ref {ref} of repo {url}"
            return self._blob(repository, entry.id, what, held, limit)

    def read_tree(self, url: str, ref: str, path: str, held: Held) -> dict[str, dict[str, str]]:
        """The entries that `git ls-tree REF PATH` shows, by path.

        Raises GitQueryError, BusyError.

        Without a path those of the top directory; with one the entry there, or, if it ends in a
        slash, those in it.
        """
        repository = self._find(url)
        with repository.lock:
            tree = self._tree(repository, url, ref)
            name = path.rstrip("/")
            if not name:
                return self._show(repository, tree, "", held)
            entry = self._entry(repository, tree, name)
            if entry is None:
                return {}
            if name == path:
                return {name: _describe(entry)}
            if not isinstance(entry, pygit2.Tree):
                return {}
            return self._show(repository, entry, name + "/", held)

    def _find(self, url: str) -> Repository:
        found = self.repositories.find(url)
        if found is None:
            raise GitQueryError(f"Repository {url} does not exist in the cache")
        return found

    def _resolve(self, repository: Repository, url: str, ref: str) -> dict[str, str]:
        try:
            found = self._look_up(repository.git, ref)
            tree = found.peel(pygit2.Tree).id
        except (*_GIT_ERRORS, MorphError) as error:
            raise GitQueryError(f"Ref {ref} is an invalid reference for repo {url}") from error
        return {"repo": url, "ref": ref, "sha1": str(found.id), "tree": str(tree)}

    def _look_up(self, git: pygit2.Repository, ref: str) -> Any:
        """The object of a ref, tags as they are. Raises what libgit2 raises, or MorphError."""
        if _SHA1.fullmatch(ref):
            return git[ref]
        if _EXPENSIVE.search(check_ref(ref)):
            raise ValueError(ref)
        if not self.repositories.direct and not ref.startswith(_PREFIX):
            try:
                return git.revparse_single(_PREFIX + ref)
            except KeyError:
                pass  # a mirror that has every ref under its own name
        return git.revparse_single(ref)

    def _tree(self, repository: Repository, url: str, ref: str) -> pygit2.Tree:
        if not _SHA1.fullmatch(ref):
            raise GitQueryError(f"Ref {ref} is not a SHA1 ref for repo {url}")
        try:
            tree = repository.git[ref].peel(pygit2.Tree)
        except _GIT_ERRORS as error:
            raise GitQueryError(f"Ref {ref} is an invalid reference for repo {url}") from error
        assert isinstance(tree, pygit2.Tree)
        return tree

    def _entry(self, repository: Repository, tree: pygit2.Tree, path: str) -> Any:
        """The object at a path, with its mode; None if there is none."""
        if "\0" in path:
            return None
        at: Any = tree
        for part in path.split("/"):
            try:
                at = at[part] if part and isinstance(at, pygit2.Tree) else None
            except _GIT_ERRORS:
                at = None
            if at is None:
                return None
        return at

    def _show(
        self, repository: Repository, tree: pygit2.Tree, prefix: str, held: Held
    ) -> dict[str, dict[str, str]]:
        size = _TREE_FACTOR * repository.git.odb.read_header(tree.id)[1]
        if size > self.max_size:
            raise GitQueryError(f"The directory {prefix or 'at the top'} is too large")
        held.take(size)
        return {prefix + _name_of(entry): _describe(entry) for entry in tree}

    def _blob(
        self, repository: Repository, oid: pygit2.Oid, what: str, held: Held, limit: int
    ) -> bytes:
        try:
            kind, size = repository.git.odb.read_header(oid)
            if kind != ObjectType.BLOB:
                raise GitQueryError(f"{what} is not a file")
            if size > self.max_size:
                raise GitQueryError(f"{what} is too large")
            if size > limit:
                raise GitQueryError("There are too many bytes in one answer")
            held.take(size)
            return bytes(repository.git.odb.read(oid)[1])
        except _GIT_ERRORS as error:
            raise GitQueryError(f"{what} can't be read") from error


def _name_of(entry: Any) -> str:
    """Bytes of a name that are no UTF-8 become backslash escapes."""
    raw: bytes = entry.raw_name
    return raw.decode("utf-8", "backslashreplace")


def _describe(entry: Any) -> dict[str, str]:
    mode = int(entry.filemode)
    return {"mode": f"{mode:06o}", "kind": _KINDS[mode & 0o170000], "sha1": str(entry.id)}
