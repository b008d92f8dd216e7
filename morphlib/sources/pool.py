"""Sources: what there is to build, each with the exact tree that it is built from.

A source kind is a small interface (`Source`). Git is its first member; archives and local
directories would be others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from morphlib.errors import MorphError
from morphlib.sources.aliases import Aliases
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.model import SourceRef, StagedSource
from morphlib.sources.resolving import resolve_refs

__all__ = [
    "GitSource",
    "Source",
    "SourceRef",
    "StagedSource",
    "fetch_sources",
    "resolve_refs",
    "stage_source",
]


class Source(Protocol):
    """Where the files of a chunk come from."""

    @property
    def kind(self) -> str:
        """The name of the source kind."""
        ...

    def identity(self) -> dict[str, str]:
        """What the content of the files is determined by: part of the cache key."""
        ...

    def fetch(self, mirrors: MirrorCache, aliases: Aliases) -> None:
        """Bring everything that `stage` needs onto this machine. Uses the network."""
        ...

    def stage(self, mirrors: MirrorCache, aliases: Aliases, into: Path) -> StagedSource:
        """Lay out the files in a new or empty directory. Uses no network."""
        ...


@dataclass(frozen=True, slots=True)
class GitSource:
    """A commit of a git repository. `submodule_urls` are (submodule name, URL) that replace what
    `.gitmodules` says, at every level of nesting."""

    kind: ClassVar[str] = "git"

    ref: SourceRef
    submodule_urls: tuple[tuple[str, str], ...] = ()

    def identity(self) -> dict[str, str]:
        return {"tree": self.ref.tree}

    def fetch(self, mirrors: MirrorCache, aliases: Aliases) -> None:
        fetch_sources([self], mirrors, aliases)

    def stage(self, mirrors: MirrorCache, aliases: Aliases, into: Path) -> StagedSource:
        return stage_source(self, mirrors, aliases, into)


def fetch_sources(sources: Iterable[GitSource], mirrors: MirrorCache, aliases: Aliases) -> None:
    """Bring the commits of sources, and of all their submodules, into mirrors, side by side.

    Raises all that fails at once.
    """
    from morphlib.sources.fetching import fetch_commits

    fetch_commits([(s.ref, s.submodule_urls) for s in sources], mirrors, aliases)


def stage_source(
    source: GitSource, mirrors: MirrorCache, aliases: Aliases, into: Path
) -> StagedSource:
    """Lay out what a build sees of a source in `into`, a new or empty directory. No network.

    The files of the tree and of its submodules have one modification time, the commit's. `.git` is
    a directory with HEAD detached at the commit, no branches, tags or remotes, an index that
    matches, and alternates that lead to `.git/mirror-objects`: bind what the result says.
    Raises MorphError if something has not been fetched, is hostile, or can't be written.
    """
    from morphlib.sources.staging import stage_commit

    try:
        return stage_commit(source.ref, source.submodule_urls, mirrors, aliases, into)
    except MorphError as error:
        raise MorphError(
            f"Failed to check out ref {source.ref.ref} of {source.ref.repo}: {error.message}",
            reason=error.reason,
            hint=error.hint,
        ) from error
