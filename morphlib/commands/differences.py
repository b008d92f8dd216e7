"""Differences between key documents, as people read them."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import unified_diff

from morphlib.commands.session import format_json
from morphlib.graph.keys import DEPENDENCY, Difference

#: How many unchanged lines are shown around those that changed.
_CONTEXT = 2


def describe_difference(difference: Difference) -> str:
    """What changed, and below it the lines that went and came, with what is around them."""
    what = f"  {difference.source}: {difference.field}"
    if difference.field.startswith(DEPENDENCY) and None in (difference.old, difference.new):
        return f"{what} is {'new' if difference.old is None else 'gone'}"
    old, new = _lines_of(difference.old), _lines_of(difference.new)
    if old == new:  # they differ in which lines belong together
        old, new = (format_json(v).splitlines() for v in (difference.old, difference.new))
    lines = _changed_lines(old, new)
    return "\n".join([f"{what} differs", *(f"    {line}" for line in lines)])


def _changed_lines(old: list[str], new: list[str]) -> Iterator[str]:
    hunks = 0
    for line in list(unified_diff(old, new, n=_CONTEXT, lineterm=""))[2:]:
        if line.startswith("@@"):
            hunks += 1
            if hunks > 1:
                yield "..."
        else:
            yield f"{line[0]} {line[1:]}".rstrip()


def _lines_of(value: object) -> list[str]:
    if value is None:
        return ["(absent)"]
    if isinstance(value, str):
        return value.splitlines()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [line for item in value for line in item.splitlines()] or ["(none)"]
    return format_json(value).splitlines()
