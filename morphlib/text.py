"""Text from outside, made fit to be shown: names, logs and messages may hold any bytes."""

from __future__ import annotations

import unicodedata


def make_valid(value: object) -> object:
    """`value`, made of plain types, with bytes that were no UTF-8 written as escapes."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {make_valid(key): make_valid(item) for key, item in value.items()}
        case list() | tuple():
            return [make_valid(item) for item in value]
        case _:
            return value


def make_printable(text: str) -> str:
    """The text with control characters escaped: what others wrote must not drive the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\t\n" else _escape(char) for char in text)


def has_control_characters(text: str) -> bool:
    """Is there what is no character to be seen but moves cursors or ends lines?"""
    return any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode-escape").decode()
