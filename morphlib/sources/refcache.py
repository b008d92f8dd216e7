"""Remembers which tree each commit has, so that known commits need no repository at all.

One JSON file: {"version": 1, "trees": {"COMMIT REPOSITORY": "TREE", ...}} with repositories as they
are written in definitions, least recently used first. Commits never change, so an entry is valid
for ever; the file only has to stay small.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from morphlib.errors import MorphError
from morphlib.events import Listener, Status, silence
from morphlib.sources.names import is_sha1

#: How many commits are remembered.
MAX_ENTRIES = 10_000


class _Document(msgspec.Struct, frozen=True):
    version: Literal[1]
    trees: dict[str, str]


class RefCache:
    """(repository as written, commit) -> tree. `load` before use, `save` to keep what was put."""

    def __init__(
        self, path: Path, *, limit: int = MAX_ENTRIES, listener: Listener = silence
    ) -> None:
        self.path = path
        self._limit = limit
        self._listener = listener
        self._trees: dict[str, str] | None = None
        self._used: dict[str, str] = {}  # in order of use, the latest last
        self._is_changed = False

    def load(self) -> None:
        """Read the file, unless that is done. One that is damaged counts as empty."""
        if self._trees is None:
            self._trees = self._read()

    def get(self, repo: str, commit: str) -> str | None:
        """The tree of a commit, None if it is not known (as of anything but a full commit id)."""
        self.load()
        assert self._trees is not None
        key = f"{commit} {repo}"
        tree = self._trees.get(key)
        if tree is None or not is_sha1(commit) or not is_sha1(tree):
            return None
        self._used.pop(key, None)
        self._used[key] = tree
        return tree

    def put(self, repo: str, commit: str, tree: str) -> None:
        self.load()
        assert self._trees is not None
        assert is_sha1(commit) and is_sha1(tree)
        key = f"{commit} {repo}"
        self._is_changed = self._is_changed or self._trees.get(key) != tree
        self._trees[key] = tree
        self._used.pop(key, None)
        self._used[key] = tree

    def save(self) -> None:
        """Write what was put, merged with what other processes wrote meanwhile.

        A cache that can't be written costs time later, nothing else: it is told, not raised.
        """
        if not self._is_changed:
            return
        from morphlib.cache.locks import lock

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with lock(self.path.with_name(self.path.name + ".lock")):
                trees = self._read()
                for key, tree in self._used.items():
                    trees.pop(key, None)
                    trees[key] = tree
                self._write(dict(list(trees.items())[-self._limit :]))
        except (OSError, MorphError) as error:
            self._tell(f"Can't write {self.path}: {error}")
        else:
            self._is_changed = False

    def _read(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Document).trees
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            self._tell(f"Starting an empty cache of refs, for {self.path} is unreadable: {error}")
            return {}

    def _write(self, trees: dict[str, str]) -> None:
        import tempfile

        fd, name = tempfile.mkstemp(prefix="tmp-trees-", dir=self.path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.json.encode(_Document(version=1, trees=trees)))
            Path(name).chmod(0o644)
            Path(name).replace(self.path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise

    def _tell(self, text: str) -> None:
        self._listener(Status(text=text, level="chatty"))
