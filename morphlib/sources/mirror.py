"""One repository on this machine that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from morphlib.errors import MorphError, Reason
from morphlib.sources.model import Resolved, Submodule

if TYPE_CHECKING:
    from morphlib.definitions.reader import FileReader
    from morphlib.sources.objects import ObjectReader


class Mirror:
    """A repository on this machine that can be read: a mirror, or a `file://` repository."""

    def __init__(self, url: str, path: Path, *, is_mirror: bool = True) -> None:
        """`path` is the git directory."""
        self.url = url
        self.path = path
        self.is_mirror = is_mirror
        self._objects: ObjectReader | None = None

    @property
    def objects(self) -> ObjectReader:
        if self._objects is None:
            from morphlib.sources.objects import ObjectReader

            self._objects = ObjectReader(self.path)
        return self._objects

    def resolve(self, ref: str) -> Resolved:
        """Commit and tree of a ref. Raises MorphError (NOT_FOUND) if it names no commit here."""
        found = self.objects.resolve(ref)
        if found is None:
            raise MorphError(
                f"Git repository {self.url} has no commit at ref {ref}", reason=Reason.NOT_FOUND
            )
        return found

    def has(self, ref: str) -> bool:
        """Is this commit (40 digits) there?"""
        return self.objects.has_commit(ref)

    def commit_time(self, commit: str) -> int:
        """When it was committed, seconds since the epoch."""
        return self.objects.commit_time(commit)

    def submodules(self, commit: str) -> tuple[Submodule, ...]:
        """The submodules of a commit, in the order of `.gitmodules`."""
        from morphlib.sources.submodules import read_submodules

        return read_submodules(self.objects, commit, self.url)

    def read_blob(self, commit_or_tree: str, path: str) -> bytes | None:
        """The file at `path`, None if there is none. No symlink is followed."""
        from morphlib.sources.objects import FILE

        entry = self.objects.find(self.objects.tree_of(commit_or_tree), path)
        return self.objects.blob(entry.id) if entry and entry.kind == FILE else None

    def reader(self, tree: str) -> FileReader:
        """The files of a tree, for the loading of definitions."""
        from morphlib.sources.treereader import TreeReader

        return TreeReader(self.objects, tree)

    def export(self, tree: str, into: Path, *, mtime: int) -> None:
        """Lay out a tree in a new or empty directory, everything with one modification time."""
        from morphlib.sources.export import export_tree

        export_tree(self.objects, tree, into, mtime=mtime)
