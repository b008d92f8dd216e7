"""Help, made from the tables of commands and settings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import click

from morphlib.commandline import ACTIONS, HIDDEN_ACTIONS, negation
from morphlib.commands import COMMANDS, Command, command_help
from morphlib.rows import Group, Kind, Row
from morphlib.settings import table
from morphlib.values import format_value


def general_help(program: str, *, everything: bool) -> str:
    """What --help shows, or --help-all with `everything`."""
    formatter = _formatter()
    formatter.write_usage(program, "[options] COMMAND [arguments]")
    with formatter.section("Commands"):
        formatter.write_dl(
            [
                (f"{command.name} {command.arguments}".strip(), command.summary)
                for command in COMMANDS.values()
                if everything or not command.hidden
            ]
        )
    for group in Group:
        options = list(_options(group, everything=everything))
        if options:
            with formatter.section(group.value):
                formatter.write_dl(options)
    formatter.write_paragraph()
    formatter.write_text(
        f"Options may stand anywhere and may be shortened. See {program} help COMMAND for more on"
        " a command."
    )
    return formatter.getvalue()


def help_on_command(program: str, command: Command) -> str:
    """The usage line and the help text of one command."""
    usage = f"Usage: {program} [options] {command.name} {command.arguments}".rstrip()
    return f"{usage}\n\n{command_help(command)}\n"


def _formatter() -> click.HelpFormatter:
    return click.HelpFormatter(width=max(40, min(100, shutil.get_terminal_size().columns)))


def _options(group: Group, *, everything: bool) -> Iterator[tuple[str, str]]:
    for row in table():
        if row.group is group and (everything or not row.hidden):
            yield option_names_text(row, everything=everything), help_text(row)
    if group is Group.GENERAL:
        for name, (metavar, text) in ACTIONS.items():
            if everything or name not in HIDDEN_ACTIONS:
                yield f"--{name}={metavar}" if metavar else f"--{name}", text


def option_names_text(row: Row, *, everything: bool) -> str:
    """The option with its value and its other names, such as `-q, --quiet`."""
    value = f"={row.metavar}" if row.metavar else ""
    names = [f"-{row.letter}"] if row.letter else []
    names += [f"--{name}{value}" for name in row.names]
    if everything and row.kind is Kind.FLAG:
        names.append(f"--{negation(row)}")
    return ", ".join(names)


def help_text(row: Row) -> str:
    """What the setting does, the values it takes, and its default where the text lacks it."""
    text = row.help
    if row.kind is Kind.CHOICE:
        text += f" [{', '.join(row.choices)}]"
    default = row.default()
    if "(default:" in text or default in (None, "", (), False) or row.name == "repo-alias":
        return text
    return f"{text} (default: {format_value(default)})"
