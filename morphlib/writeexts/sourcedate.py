"""The time that images tell for what they hold: not when they were made, or no two were equal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from morphlib.writeexts.parameters import parameter_error

#: What everything in artifacts has: 24 August 1991, 23:00 UTC.
_OF_ARTIFACTS = 683074800
_NAME = "SOURCE_DATE_EPOCH"
_LATEST = 2**32 - 1  # what image formats have room for


def source_date(environment: Mapping[str, str]) -> int:
    """The time in seconds. Raises MorphError if it can't be understood."""
    text = environment.get(_NAME, "").strip()
    if not text:
        return _OF_ARTIFACTS
    if not (text.isascii() and text.isdigit() and int(text) <= _LATEST):
        raise parameter_error(f"{_NAME} is a number of seconds since 1970, not {text}")
    return int(text)


def as_text(seconds: int) -> str:
    """As RFC 3339 has it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
