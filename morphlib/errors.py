"""The one family of expected failures.

Everything that can go wrong through input, machine or network is a `MorphError`. Only the command
line prints them and picks the exit status; an exception of any other class is a bug in Morph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why something failed, for programs and tests that must not depend on prose."""

    DEFINITION = "definition"  # a definition, VERSION or DEFAULTS is wrong
    USAGE = "usage"  # the command line is wrong: exit status 2
    CONFIG = "config"  # a configuration file is wrong
    NOT_FOUND = "not-found"  # a file, ref, component or artifact is not there
    SOURCE = "source"  # a repository can't be had, or is hostile
    GRAPH = "graph"  # the definitions are well formed but can't be built as they stand
    BUILD = "build"  # a command of a chunk or of system integration failed
    SANDBOX = "sandbox"  # this machine can't isolate builds
    SPACE = "space"  # no room left
    DEPLOY = "deploy"  # a deployment, or one of its extensions, failed
    CACHE = "cache"  # something cached is damaged or can't be written
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a definition. `line` and `column` count from 1 and are None until looked up.

    Loading keeps no line numbers, because finding them costs more than loading itself. Instead
    `keys` leads from the top of the document to the node ("chunks", 3, "ref"), and whoever is about
    to show the location looks the line up (`morphlib.definitions.locate`).
    """

    path: str
    line: int | None = None
    column: int | None = None
    keys: tuple[str | int, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        parts = [self.path]
        if self.line is not None:
            parts.append(str(self.line))
            if self.column is not None:
                parts.append(str(self.column))
        return ":".join(parts)


class MorphError(Exception):
    """An expected failure: what is wrong, where, and what to do about it.

    `hint` says what to do and is printed on a line of its own below the message.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Reason,
        hint: str | None = None,
        location: Location | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.hint = hint
        self.location = location

    def __str__(self) -> str:
        text = f"{self.location}: {self.message}" if self.location else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class MorphErrors(MorphError):
    """Several failures found in one go, such as every mistake in a definitions repository."""

    def __init__(self, errors: Iterable[MorphError]) -> None:
        self.errors: tuple[MorphError, ...] = tuple(errors)
        assert self.errors
        super().__init__(
            "\n".join(str(error) for error in self.errors), reason=self.errors[0].reason
        )


def raise_all(errors: Iterable[MorphError]) -> None:
    """Raise nothing, the one error, or all of them as `MorphErrors`."""
    found = tuple(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise MorphErrors(found)
