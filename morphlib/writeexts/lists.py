"""Parameters that are lists: commands and settings, as a shell or as YAML has them."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Mapping

from morphlib.writeexts.parameters import Parameter

Command = tuple[str, ...] | None
Settings = Mapping[str, str]


def command(name: str, help: str, *, shown: str = "") -> Parameter[Command]:
    """A program with arguments, split like a shell would, or a list. None if it is not given."""

    def parse(value: str) -> tuple[str, ...]:
        return tuple(_items(name, value))

    unset: Command = None
    return Parameter(name, help, parse, unset, shown=shown)


def settings(name: str, help: str, *, shown: str = "") -> Parameter[Settings]:
    """Words NAME=VALUE, split like a shell would, or a list of these, or a mapping."""

    def parse(value: str) -> Mapping[str, str]:
        if value.strip().startswith("{"):
            found = _literal(name, value)
            if isinstance(found, dict):
                return {str(key): str(each) for key, each in found.items()}
        pairs: dict[str, str] = {}
        for item in _items(name, value):
            key, equals, each = item.partition("=")
            if not key or not equals:
                raise ValueError(f"{name} has NAME=VALUE in it, not {item!r}")
            pairs[key] = each
        return pairs

    unset: Settings = {}
    return Parameter(name, help, parse, unset, shown=shown)


def _items(name: str, value: str) -> list[str]:
    if value.strip().startswith("["):
        found = _literal(name, value)
        if isinstance(found, list):
            return [str(item) for item in found]
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"Cannot parse {name} value {value}: {error}") from None


def _literal(name: str, value: str) -> object:
    """Lists and mappings of a cluster arrive as Python writes them."""
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"Cannot parse {name} value {value}") from None
