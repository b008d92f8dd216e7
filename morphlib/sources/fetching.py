"""Bringing sources and all their submodules into the mirrors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morphlib.errors import MorphError, Reason, raise_all
from morphlib.sources.aliases import Aliases
from morphlib.sources.mirror import Mirror
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.model import SourceRef
from morphlib.sources.submodules import submodule_url

Overrides = tuple[tuple[str, str], ...]

#: More levels than any real nesting has.
MAX_LEVELS = 100


@dataclass(frozen=True, slots=True)
class _Commit:
    url: str
    commit: str
    overrides: Overrides


def fetch_commits(
    wanted: Sequence[tuple[SourceRef, Overrides]], mirrors: MirrorCache, aliases: Aliases
) -> None:
    """Make commits and those of their submodules, at all levels, available without network.

    One level of nesting after the other, each level side by side. A commit that is met again is not
    looked at again. Raises all failures of a level at once.
    """
    level = list(dict.fromkeys(_Commit(ref.url, ref.commit, over) for ref, over in wanted))
    seen: set[_Commit] = set(level)
    for _ in range(MAX_LEVELS):
        if not level:
            return
        commits: dict[str, list[str]] = {}
        for item in level:
            commits.setdefault(item.url, []).append(item.commit)
        found, failed = mirrors.try_obtain_many(commits)
        errors = list(failed.values())
        following: dict[_Commit, None] = {}
        for item in level:
            if item.url in found:
                try:
                    following |= dict.fromkeys(_submodules_of(item, found[item.url], aliases))
                except MorphError as error:
                    errors.append(error)
        raise_all(errors)
        level = [item for item in following if item not in seen]
        seen.update(level)
    raise MorphError(
        f"Submodules of {wanted[0][0].repo} are nested more than {MAX_LEVELS} levels deep",
        reason=Reason.SOURCE,
    )


def _submodules_of(item: _Commit, mirror: Mirror, aliases: Aliases) -> list[_Commit]:
    mirror.resolve(item.commit)  # raises if it is not there
    overrides = dict(item.overrides)
    return [
        _Commit(
            submodule_url(submodule, parent=item.url, overrides=overrides, aliases=aliases),
            submodule.commit,
            item.overrides,
        )
        for submodule in mirror.submodules(item.commit)
    ]
