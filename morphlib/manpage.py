"""The manual page's parts that follow from the tables of commands and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from morphlib.commandline import ACTIONS
from morphlib.commands import COMMANDS
from morphlib.errors import MorphError, Reason
from morphlib.helptext import help_text, option_names_text
from morphlib.rows import Group, Row
from morphlib.settings import table


def fill_template(
    template: Path, rows: Sequence[Row] | None = None, synopsis: Iterable[str] | None = None
) -> str:
    """The page with everything below its headings SYNOPSIS and OPTIONS made anew.

    `rows` are the settings of the program and `synopsis` its lines, Morph's unless given.
    """
    try:
        page = template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MorphError(f"can't read {template}: {error}", reason=Reason.NOT_FOUND) from error
    page = _fill(page, "SYNOPSIS", "\n".join(_synopsis() if synopsis is None else synopsis))
    return _fill(page, "OPTIONS", "\n".join(_options(table() if rows is None else rows)))


def _fill(page: str, heading: str, text: str) -> str:
    section = re.compile(rf'^(\.SH "?{heading}"?\n).*?(?=^\.SH |\Z)', re.MULTILINE | re.DOTALL)
    return section.sub(lambda found: f"{found[1]}{text}\n", page)


def _synopsis() -> Iterator[str]:
    yield ".nf"
    for command in COMMANDS.values():
        if not command.hidden:
            arguments = f" {_escape(command.arguments)}" if command.arguments else ""
            yield f".B morph\n.RI [ options ]\n.B {_escape(command.name)}{arguments}\n.br"
    yield ".fi"


def _options(rows: Sequence[Row]) -> Iterator[str]:
    for group in Group:
        if any(row.group is group for row in rows):
            yield f".SS {_escape(group.value)}"
        for row in rows:
            if row.group is group:
                yield f".TP\n.B {_escape(option_names_text(row, everything=False))}"
                yield _escape(help_text(row).capitalize() + ".")
        if group is Group.GENERAL:
            for name, (metavar, text) in ACTIONS.items():
                yield f".TP\n.B \\-\\-{_escape(name)}{'=' + metavar if metavar else ''}"
                yield _escape(text.capitalize() + ".")


def _escape(text: str) -> str:
    r"""Text as troff takes it: `-` is a hyphen there unless escaped, `.` and `'` start requests."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + escaped if escaped[:1] in (".", "'") else escaped
