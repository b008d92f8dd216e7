"""Rows of the table of settings: what is known of a setting besides its value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

Value = bool | int | str | Path | tuple[str, ...] | None


class Kind(Enum):
    """How the text of a setting is understood; the value names what help shows for it."""

    FLAG = ""
    TEXT = "TEXT"
    NUMBER = "NUMBER"
    SIZE = "SIZE"
    CHOICE = "CHOICE"
    LIST = "LIST"
    PATH = "DIR"


class Group(Enum):
    """Headings of --help, in the order in which they are shown."""

    GENERAL = "Options"
    ORIGIN = "Definitions origin options"
    ADVANCED = "Advanced Options"
    BUILD = "Build Options"
    STORAGE = "Storage Options"
    DEPLOY = "Deploy Options"
    ANCHOR = "anchor options"
    MANIFEST = "generate-manifest-csv options"
    GET_REPO = "get-repo options"
    DISTBUILD = "Distributed Build Options"
    LOGGING = "Logging"
    PERFORMANCE = "Performance"
    SERVING = "What is served"
    WRITING = "Writing"
    TLS = "TLS"
    LIMITS = "Limits"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `default` computes the value that stands where nobody gives another.

    `minimum` and `maximum` bound numbers. `aliases` are other long names, `letter` a one-letter
    option. Hidden settings are shown by --help-all only.
    """

    name: str
    kind: Kind
    help: str
    group: Group
    default: Callable[[], Value]
    metavar: str
    aliases: tuple[str, ...] = ()
    letter: str = ""
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    hidden: bool = False

    @property
    def attribute(self) -> str:
        """Name of the field of `Settings`."""
        return self.name.replace("-", "_")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


def rows_of(settings: type[Any]) -> tuple[Row, ...]:
    """The table that a class of settings makes: a row for each of its fields, in their order."""
    return tuple(Row(name=f.name.replace("_", "-"), **f.metadata) for f in fields(settings))


def defaults_of(rows: Iterable[Row]) -> dict[str, Value]:
    """The value of every setting where nothing is given, by attribute."""
    return {row.attribute: row.default() for row in rows}


def row_field(kind: Kind, default: Value | Callable[[], Value], help: str, **more: Any) -> Any:
    """A field of `Settings`; `Any`, so that the field may declare its own type."""
    more.setdefault("group", Group.GENERAL)
    more.setdefault("metavar", kind.value)
    more |= {
        "kind": kind,
        "help": help,
        "default": default if callable(default) else lambda: default,
    }
    return field(metadata=more)


def flag_field(help: str, *, default: bool = False, **more: Any) -> Any:
    return row_field(Kind.FLAG, default, help, **more)


def text_field(default: str | Callable[[], Value] | None, help: str, **more: Any) -> Any:
    return row_field(Kind.TEXT, default, help, **more)


def number_field(default: int | Callable[[], Value], help: str, **more: Any) -> Any:
    return row_field(Kind.NUMBER, default, help, **more)


def size_field(default: int, help: str, **more: Any) -> Any:
    return row_field(Kind.SIZE, default, help, **more)


def choice_field(choices: tuple[str, ...], help: str, **more: Any) -> Any:
    return row_field(Kind.CHOICE, choices[0], help, choices=choices, **more)


def list_field(default: tuple[str, ...], help: str, **more: Any) -> Any:
    return row_field(Kind.LIST, default, help, **more)


def path_field(default: Callable[[], Value] | None, help: str, **more: Any) -> Any:
    return row_field(Kind.PATH, default, help, **more)
