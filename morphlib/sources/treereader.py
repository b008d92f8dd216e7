"""Reading definitions from a git tree."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from morphlib.errors import MorphError, Reason
from morphlib.sources.objects import DIRECTORY, GITLINK, LINK, Entry, ObjectReader

_MAX_LINKS = 40
_MAX_ENTRIES = 1_000_000


class TreeReader:
    """The files of one tree. Symlinks are followed as long as they stay within it."""

    def __init__(self, objects: ObjectReader, tree: str) -> None:
        self._objects = objects
        self._tree = tree
        self._found: dict[str, Entry] | None = None

    def paths(self) -> Iterable[str]:
        """Every file and symlink, relative to the root."""
        return self._entries().keys()

    def read(self, path: str) -> bytes | None:
        """The content of the file at `path`, None if there is none.

        Raises MorphError if it is a symlink that leads out of the tree, or round in circles.
        """
        at = posixpath.normpath(path)
        for _ in range(_MAX_LINKS):
            entry, at, rest = self._walk(at)
            if entry is None:
                return None
            content = self._objects.blob(entry.id)
            if entry.kind != LINK:
                return content if not rest else None
            target = content.decode("utf-8", "surrogateescape")
            at = posixpath.normpath(posixpath.join(posixpath.dirname(at), target, rest))
            if at.startswith(("/", "../")) or at == "..":
                raise MorphError(
                    f"{path} is a symlink that leads out of the repository",
                    reason=Reason.DEFINITION,
                )
        raise MorphError(f"{path} is a symlink to itself", reason=Reason.DEFINITION)

    def _walk(self, path: str) -> tuple[Entry | None, str, str]:
        """The first entry on the way along `path` that is no directory, its path, what is left."""
        entries = self._entries()
        parts = path.split("/")
        for depth in range(len(parts), 0, -1):
            here = "/".join(parts[:depth])
            entry = entries.get(here)
            if entry is not None:
                return entry, here, "/".join(parts[depth:])
        return None, path, ""

    def _entries(self) -> dict[str, Entry]:
        if self._found is None:
            found: dict[str, Entry] = {}
            queue: list[tuple[str | bytes, str]] = [(self._tree, "")]
            count = 0
            while queue:
                at, prefix = queue.pop()
                entries = self._objects.entries(at)
                # Directories count as well: a few trees can stand for endless empty ones.
                count += 1 + len(entries)
                if count > _MAX_ENTRIES:
                    raise MorphError(
                        f"Tree {self._tree} has too many files for definitions",
                        reason=Reason.DEFINITION,
                    )
                for entry in entries:
                    path = prefix + entry.name.decode("utf-8", "surrogateescape")
                    if entry.kind == DIRECTORY:
                        queue.append((entry.id, path + "/"))
                    elif entry.kind != GITLINK:
                        found[path] = entry
            self._found = dict(sorted(found.items()))
        return self._found
