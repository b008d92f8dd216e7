"""Which installed files go into which artifact of a chunk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from morphlib.build.members import Member, parents
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import SplitRule

_SHOWN = 20  # leftovers that an error names


@dataclass(frozen=True, slots=True)
class Split:
    """The members of each artifact, sorted by path, and what no rule matches."""

    artifacts: Mapping[str, tuple[Member, ...]]
    unmatched: tuple[Member, ...]


def split_members(members: Sequence[Member], rules: Sequence[SplitRule]) -> Split:
    """Assign every member to the artifact of the first rule with a pattern that matches its path.

    Patterns are matched at the start of the path and not anchored at its end. Directories are
    matched like files, without a trailing slash; the top is `.`.
    """
    compiled = [
        (rule.artifact, pattern.match)
        for rule in rules
        for pattern in compile_patterns(tuple(rule.include))
    ]
    found: dict[str, list[Member]] = {rule.artifact: [] for rule in rules}
    unmatched: list[Member] = []
    for member in members:
        path = member.path
        for artifact, match in compiled:
            if match(path):
                found[artifact].append(member)
                break
        else:
            unmatched.append(member)
    return Split({name: tuple(each) for name, each in found.items()}, tuple(unmatched))


@lru_cache(maxsize=1024)
def compile_patterns(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Raises MorphError for what is no regular expression."""
    try:
        return tuple(re.compile(pattern) for pattern in patterns)
    except re.error as error:
        raise MorphError(
            f"split rule {error.pattern!r} is no regular expression: {error}",
            reason=Reason.DEFINITION,
        ) from error


def check_leftovers(split: Split, destdir: str) -> None:
    """Raise MorphError if something installed is in no artifact.

    A directory is, also, if anything below it is; the top need not be.
    """
    if not split.unmatched:
        return
    covered = {"."}
    for members in split.artifacts.values():
        for member in members:
            covered.update(parents(member.path))
    leftovers = [member.path for member in split.unmatched if member.path not in covered]
    if leftovers:
        shown = ", ".join(map(repr, leftovers[:_SHOWN]))
        more = f" and {len(leftovers) - _SHOWN} more" if len(leftovers) > _SHOWN else ""
        raise MorphError(
            f"DESTDIR {destdir} is not empty: no split rule matches {shown}{more}",
            reason=Reason.BUILD,
            hint="Add a rule that matches them to the chunk's products, or don't install them.",
        )
