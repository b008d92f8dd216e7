"""Short names of repositories: `upstream:zlib` instead of a URL.

An alias is written `ALIAS=PULLPATTERN#PUSHPATTERN`. In a pattern each `%s` stands for what follows
the colon; a pattern without `%s` gets it appended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from morphlib.errors import MorphError, Reason

_NAME = re.compile(r"[a-z][a-z0-9-]+")
_ALIASED = re.compile(r"([a-z][a-z0-9-]+):(.*)", re.DOTALL)
_SETTING = re.compile(r"([a-z][a-z0-9-]+)=([^#]*)#([^#]*)", re.DOTALL)
_TROVE_PATTERNS = {"git": "git://{host}/{path}/%s", "ssh": "ssh://git@{host}/{path}/%s"}


@dataclass(frozen=True, slots=True)
class RepoAlias:
    """One alias: where to fetch from and where to push to."""

    name: str
    pull: str
    push: str

    def __str__(self) -> str:
        return f"{self.name}={self.pull}#{self.push}"


class Aliases:
    """All aliases of one run. Never changes; equal if the aliases are."""

    __slots__ = ("_by_name",)

    def __init__(self, aliases: Iterable[RepoAlias] = ()) -> None:
        self._by_name = {alias.name: alias for alias in aliases}

    @classmethod
    def from_settings(
        cls, trove_host: str, trove_id: Sequence[str], repo_alias: Sequence[str]
    ) -> Aliases:
        """Combine the trove's aliases with those that were set, which win.

        With a trove host there are `baserock` (path baserock), `upstream` (path delta) and one
        alias for each `trove_id`: NAME, or NAME=PATH#PULL#PUSH where PULL and PUSH are git or ssh.
        A bare NAME never replaces an alias, the long form does. Raises all that is malformed at
        once.
        """
        from morphlib.errors import raise_all

        found: dict[str, RepoAlias] = {}
        errors: list[MorphError] = []
        if trove_host:
            found["baserock"] = _trove_alias("baserock", trove_host, "baserock", "git", "ssh")
            found["upstream"] = _trove_alias("upstream", trove_host, "delta", "git", "ssh")
            for entry in trove_id:
                try:
                    _add_trove_id(found, trove_host, entry)
                except MorphError as error:
                    errors.append(error)
        for text in repo_alias:
            match = _SETTING.fullmatch(text)
            if match is None:
                errors.append(
                    MorphError(
                        f"Invalid repo-alias: {text}",
                        reason=Reason.CONFIG,
                        hint="Write ALIAS=PULLPATTERN#PUSHPATTERN; ALIAS has two or more of a-z, "
                        "0-9 and '-' and begins with a letter.",
                    )
                )
            else:
                found[match[1]] = RepoAlias(match[1], match[2], match[3])
        raise_all(errors)
        return cls(found.values())

    def pull_url(self, name: str) -> str:
        """The URL to fetch from; `name` itself if it begins with no known alias."""
        found = self._split(name)
        return _expand(found[0].pull, found[1]) if found else name

    def push_url(self, name: str) -> str:
        """The URL to push to; `name` itself if it begins with no known alias."""
        found = self._split(name)
        return _expand(found[0].push, found[1]) if found else name

    def names_of(self, url: str) -> list[str]:
        """Every `ALIAS:REST` that stands for `url`, to fetch from or to push to, sorted."""
        names = set()
        for alias in self._by_name.values():
            for pattern in (alias.pull, alias.push):
                rest = _match(pattern, url)
                if rest is not None:
                    names.add(f"{alias.name}:{rest}")
        return sorted(names)

    def as_settings(self) -> list[str]:
        """The aliases as they are written in settings, sorted by name."""
        return [str(self._by_name[name]) for name in sorted(self._by_name)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Aliases) and self._by_name == other._by_name

    def __hash__(self) -> int:
        return hash(frozenset(self._by_name.values()))

    def _split(self, name: str) -> tuple[RepoAlias, str] | None:
        match = _ALIASED.fullmatch(name)
        alias = self._by_name.get(match[1]) if match else None
        return (alias, match[2]) if match and alias else None


def _trove_alias(name: str, host: str, path: str, pull: str, push: str) -> RepoAlias:
    for protocol in (pull, push):
        if protocol not in _TROVE_PATTERNS:
            raise MorphError(
                f"Unknown protocol in trove_id: {protocol}",
                reason=Reason.CONFIG,
                hint=f"The trove-id of {name} may use git and ssh.",
            )
    return RepoAlias(
        name,
        _TROVE_PATTERNS[pull].format(host=host, path=path),
        _TROVE_PATTERNS[push].format(host=host, path=path),
    )


def _add_trove_id(found: dict[str, RepoAlias], host: str, entry: str) -> None:
    if "=" not in entry:
        if _NAME.fullmatch(entry):
            found.setdefault(entry, _trove_alias(entry, host, entry, "ssh", "ssh"))
        return
    match = re.fullmatch(r"([a-z][a-z0-9-]+)=([^#]+)#([^#]+)#([^#]+)", entry)
    if match:
        found[match[1]] = _trove_alias(match[1], host, match[2], match[3], match[4])


def _expand(pattern: str, rest: str) -> str:
    return pattern.replace("%s", rest) if "%s" in pattern else pattern + rest


def _match(pattern: str, url: str) -> str | None:
    """What `%s` stands for when `pattern` gives `url`."""
    if "%s" not in pattern:
        return url.removeprefix(pattern) if url.startswith(pattern) else None
    first, *others = map(re.escape, pattern.split("%s"))
    expression = first + "(.*)" + r"\1".join(others) if others else first
    match = re.fullmatch(expression, url, re.DOTALL)
    return match[1] if match else None
