"""Reading files in the syntax of git's configuration, such as `.gitmodules`.

No includes, no other files: what stands in the text and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_HEADER = re.compile(r'\s*\[([^\]"\\]*(?:"(?:[^"\\]|\\.)*")?[^\]"\\]*)\]')
_VARIABLE = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)[ \t]*(=?)[ \t]*")
_SUBSECTION = re.compile(r'([A-Za-z0-9.-]+)\s+"((?:[^"\\]|\\.)*)"')
_ESCAPES = {"n": "\n", "t": "\t", "b": "\b", "\\": "\\", '"': '"'}


@dataclass(frozen=True, slots=True)
class Section:
    """`title` is what stands in the brackets; `values` by lower-case name, the last one wins."""

    title: str
    values: dict[str, str] = field(default_factory=dict)

    def subsection(self, section: str) -> str | None:
        """NAME if the title is `section "NAME"`, otherwise None."""
        match = _SUBSECTION.fullmatch(self.title)
        if match is None or match[1].lower() != section:
            return None
        return re.sub(r"\\(.)", r"\1", match[2])


def parse_config(data: bytes) -> list[Section]:
    """The sections of a file in their order. Raises ValueError, with the line, if malformed."""
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").split("\n")
    sections: list[Section] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        header = _HEADER.match(line)
        if header:
            sections.append(Section(header[1]))
            line = line[header.end() :]
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        variable = _VARIABLE.match(line)
        if variable is None or not sections:
            raise ValueError(f"line {number}: {line.strip()!r}")
        rest = line[variable.end() :]
        while _continues(rest) and number < len(lines):
            rest = rest[:-1] + lines[number]
            number += 1
        value = _parse_value(rest, number) if variable[2] else "true"
        sections[-1].values[variable[1].lower()] = value
    return sections


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _parse_value(text: str, number: int) -> str:
    """A value without its quotes, escapes and comment."""
    value: list[str] = []
    kept = 0  # length without trailing blanks that no quotes protect
    quoted = False
    characters = iter(text)
    for character in characters:
        if character == '"':
            quoted = not quoted
            kept = max(kept, len(value))
            continue
        if character in "#;" and not quoted:
            break
        if character == "\\":
            escape = next(characters, "")
            if escape not in _ESCAPES:
                raise ValueError(f"line {number}: unknown escape \\{escape}")
            character = _ESCAPES[escape]
            value.append(character)
            kept = len(value)
            continue
        value.append(character)
        if quoted or not character.isspace():
            kept = len(value)
    if quoted:
        raise ValueError(f"line {number}: unclosed quote")
    return "".join(value[:kept])
