"""Configuration files: which ones, what they say, and writing one.

The format is the INI of old: `name = value` or `name: value` in a section `[config]`, indented
lines continue a value, `#` and `;` start comment lines, ` ;` starts a comment behind a value, `""`
is the empty string, a repeated name overrides. Nothing in a value is expanded. The standard
library's reader keeps no line numbers, and complaints without them are of no use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import Location, MorphError, Reason, raise_all
from morphlib.rows import Kind, Row, Value
from morphlib.settings import rows_by_name
from morphlib.values import format_value, named_values, parse_value

_SECTION = re.compile(r"\[(?P<name>[^]]+)\]")
_ENTRY = re.compile(r"(?P<name>[^:=\s][^:=]*?)\s*[:=]\s*(?P<value>.*)", re.DOTALL)
_COMMENT = re.compile(r"(^|\s);.*")


@dataclass(frozen=True, slots=True)
class Entry:
    """`name = value` as it stands in a section of a file; `line` counts from 1."""

    section: str
    name: str
    value: str
    path: str
    line: int

    @property
    def location(self) -> Location:
        return Location(self.path, self.line)


def default_files(program: str) -> list[Path]:
    """The files that the program of this name reads, later ones winning, whether there or not."""
    files = [Path(f"/etc/{program}.conf"), *_drop_ins(Path(f"/etc/{program}"))]
    try:
        home = Path.home()
    except RuntimeError:
        return files
    return [*files, home / f".{program}.conf", *_drop_ins(home / ".config" / program)]


def _drop_ins(directory: Path) -> list[Path]:
    try:
        found = [path for path in directory.iterdir() if path.name.endswith(".conf")]
    except OSError:
        return []
    return sorted(found, key=lambda path: bytes(path))


def read_entries(files: Iterable[Path]) -> list[Entry]:
    """What the files say, in order. A file that is not there says nothing."""
    entries: list[Entry] = []
    for path in files:
        try:
            # Paths in values may hold any bytes.
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise MorphError(
                f"can't read configuration file {path}: {error.strerror}", reason=Reason.CONFIG
            ) from error
        entries += parse_entries(text, str(path))
    return entries


def parse_entries(text: str, path: str) -> list[Entry]:
    """The entries of one file. Raises MorphError, with every line that is none of the format's."""
    entries: list[Entry] = []
    errors: list[MorphError] = []
    section: str | None = None
    continues = False
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if line[0].isspace() and continues:
            last = entries[-1]
            value = _COMMENT.sub("", stripped)
            entries[-1] = Entry(last.section, last.name, f"{last.value}\n{value}", path, last.line)
        elif found := _SECTION.match(stripped):
            section, continues = found["name"], False
        elif section is not None and (found := _ENTRY.fullmatch(stripped)):
            value = _COMMENT.sub("", found["value"]).strip()
            value = "" if value == '""' else value
            entries.append(Entry(section, found["name"].lower(), value, path, number))
            continues = True
        else:
            errors.append(_bad_line(Location(path, number), stripped, section))
            continues = False
    raise_all(errors)
    return entries


def _bad_line(location: Location, line: str, section: str | None) -> MorphError:
    what = "no section before" if section is None else "neither a section nor a setting"
    return MorphError(
        f"{what}: {line}",
        reason=Reason.CONFIG,
        location=location,
        hint="A configuration file has a line [config] and below it lines NAME = VALUE.",
    )


def values_of(
    entries: Sequence[Entry],
    warn: Callable[[str], None],
    rows: Mapping[str, Row] | None = None,
    program: str = "morph",
) -> dict[str, Value]:
    """The settings that the entries of section `config` make, by attribute, later ones winning.

    `rows` are those of the program by name, Morph's unless given. Raises all unknown names and bad
    values at once.
    """
    known = rows_by_name() if rows is None else rows
    values: dict[str, Value] = {}
    errors: list[MorphError] = []
    for entry in entries:
        if entry.section != "config":
            continue
        row = known.get(entry.name)
        if row is None:
            errors.append(_unknown(entry, known, program))
            continue
        try:
            values[row.attribute] = _value_of(row, entry, warn)
        except ValueError as error:
            errors.append(MorphError(str(error), reason=Reason.CONFIG, location=entry.location))
    raise_all(errors)
    return values


def _value_of(row: Row, entry: Entry, warn: Callable[[str], None]) -> Value:
    # --dump-config writes None for what is not set, and its output serves as a file again.
    if entry.value == "None" and row.kind in (Kind.TEXT, Kind.PATH):
        return row.default()
    return parse_value(row, entry.value, lambda text: warn(f"{entry.location}: {text}"))


def _unknown(entry: Entry, known: Mapping[str, Row], program: str) -> MorphError:
    from difflib import get_close_matches

    near = get_close_matches(entry.name, known, n=1)
    return MorphError(
        f"there is no setting '{entry.name}'",
        reason=Reason.CONFIG,
        location=entry.location,
        hint=f"Did you mean {near[0]}?" if near else f"See {program} --dump-config.",
    )


def format_config(settings: object, others: Sequence[Entry] = ()) -> str:
    """All settings as a configuration file, followed by the files' other sections."""
    sections: dict[str, dict[str, str]] = {
        "config": {name: format_value(value) for name, value in named_values(settings).items()}
    }
    for entry in others:
        if entry.section != "config":
            sections.setdefault(entry.section, {})[entry.name] = entry.value
    return "\n".join(_format_section(name, values) for name, values in sections.items())


def _format_section(name: str, values: Mapping[str, str]) -> str:
    lines = (f"{key} = {value}".replace("\n", "\n\t") for key, value in values.items())
    return "\n".join((f"[{name}]", *lines)) + "\n"
