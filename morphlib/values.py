"""Settings as text: reading what people write, and writing it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from morphlib.rows import Kind, Row, Value, rows_of
from morphlib.settings import absolute_path

_TRUE = frozenset({"yes", "on", "1", "true"})
_FALSE = frozenset({"no", "off", "0", "false", ""})
_SIZE = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)\s*(?P<unit>[kmgt]?i?)b?", re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_value(row: Row, text: str, warn: Callable[[str], None]) -> Value:
    """The value that `text` gives the setting.

    Raises ValueError, with what is wrong, for a number or choice that is none. What reads as false
    or as 0 without saying so is allowed, as configurations in use rely on it, but warned of.
    """
    match row.kind:
        case Kind.FLAG:
            word = text.strip().lower()
            if word not in _TRUE | _FALSE:
                warn(f"{row.name} is a yes or no: '{text}' counts as no")
            return word in _TRUE
        case Kind.TEXT:
            return text
        case Kind.NUMBER:
            return _parse_number(row, text)
        case Kind.SIZE:
            size = parse_size(text)
            if size is None:
                warn(f"{row.name} is no size, such as 4G or 512MiB: '{text}' counts as 0")
            return size or 0
        case Kind.CHOICE:
            if text.strip() not in row.choices:
                raise ValueError(
                    f"{row.name} must be one of {', '.join(row.choices)}, not '{text}'"
                )
            return text.strip()
        case Kind.LIST:
            return parse_list(row, [text])
        case Kind.PATH:
            if not text.strip():
                raise ValueError(f"{row.name} must be a directory, not empty")
            return absolute_path(text)


def _parse_number(row: Row, text: str) -> int:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text, re.ASCII):
        raise ValueError(f"{row.name} must be a whole number, not '{text}'")
    number = int(text)
    if row.minimum is not None and number < row.minimum:
        raise ValueError(f"{row.name} must be at least {row.minimum}, not {number}")
    if row.maximum is not None and number > row.maximum:
        raise ValueError(f"{row.name} must be at most {row.maximum}, not {number}")
    return number


def parse_size(text: str) -> int | None:
    """Bytes in `4G`, `1.5ki`, `512MiB`: powers of 1000, or of 1024 with an i. None: no size."""
    found = _SIZE.fullmatch(text.strip().lower())
    if not found:
        return None
    unit = found["unit"]
    if unit == "i":
        return None
    base = 1024 if unit.endswith("i") else 1000
    return int(float(found["number"]) * base ** _POWERS[unit.rstrip("i")])


def parse_list(row: Row, texts: Sequence[str]) -> tuple[str, ...]:
    """The items of all texts, split at commas; none at all is the default."""
    items = tuple(item for text in texts for part in text.split(",") if (item := part.strip()))
    if items:
        return items
    default = row.default()
    assert isinstance(default, tuple)
    return default


def format_value(value: Value) -> str:
    """A value as --dump-config shows it."""
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def named_values(settings: object) -> dict[str, Value]:
    """The values of all settings of a program by name, in the order of its table."""
    kind: type[Any] = type(settings)
    return {row.name: getattr(settings, row.attribute) for row in rows_of(kind)}


def plain_values(settings: object) -> dict[str, bool | int | str | list[str] | None]:
    """The values of all settings by name, of types that JSON has."""
    return {name: _plain(value) for name, value in named_values(settings).items()}


def _plain(value: Value) -> bool | int | str | list[str] | None:
    match value:
        case Path():
            return str(value)
        case tuple():
            return list(value)
        case _:
            return value
