"""The command line: click, taught the conventions that Morph's users and scripts know.

One flat command takes every setting as an option, anywhere on the line. Options may be cut short
as far as they stay clear, flags are turned off by `--no-NAME`, and an option that takes a list
replaces the list of the configuration when it comes first and adds to its own after that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from morphlib.errors import MorphError, Reason
from morphlib.rows import Kind, Row, Value
from morphlib.settings import table
from morphlib.values import parse_list, parse_value

_USAGE = "Usage: morph [options] COMMAND [arguments]; see morph --help"

#: Options that ask for information or choose the configuration, and so are no settings:
#: name -> (metavar, help). Those of `HIDDEN_ACTIONS` are shown by --help-all only.
ACTIONS: Mapping[str, tuple[str, str]] = {
    "version": ("", "show the version and exit"),
    "config": ("FILE", "also read this configuration file"),
    "no-default-configs": ("", "read no configuration files but those of --config"),
    "dump-config": ("", "show the whole configuration and exit"),
    "dump-setting-names": ("", "show the names of all settings and exit"),
    "list-config-files": ("", "show which configuration files are looked for and exit"),
    "generate-manpage": ("TEMPLATE", "fill a manual page's SYNOPSIS and OPTIONS and exit"),
}
HIDDEN_ACTIONS = frozenset({"dump-setting-names", "list-config-files", "generate-manpage"})


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a command line says. `values` holds the settings given, by attribute."""

    words: tuple[str, ...]
    values: Mapping[str, Value]
    actions: frozenset[str]
    configs: tuple[Path, ...]
    template: str | None


def option_names(rows: Sequence[Row] | None = None) -> dict[str, tuple[str, bool]]:
    """Every long option, without its dashes -> (the setting or action it is for, takes a value).

    `rows` are the settings of the program, Morph's unless given.
    """
    names = {name: (name, bool(metavar)) for name, (metavar, _) in ACTIONS.items()}
    for row in table() if rows is None else rows:
        names |= dict.fromkeys(row.names, (row.name, row.kind is not Kind.FLAG))
        if row.kind is Kind.FLAG:
            names[negation(row)] = (negation(row), False)
    return names


def negation(row: Row) -> str:
    """Name of the option that turns a flag off."""
    return f"no-{row.name}"


def parse_command_line(
    arguments: Sequence[str],
    warn: Callable[[str], None],
    rows: Sequence[Row] | None = None,
    usage: str = _USAGE,
) -> Invocation:
    """What the command line of a program with the settings `rows` (Morph's unless given) says.

    Raises MorphError with reason USAGE, and `usage` as its hint, for what can't be understood.
    """
    rows = table() if rows is None else rows
    command = click.Command("program", params=_parameters(rows), add_help_option=False)
    try:
        context = command.make_context("program", _expand_abbreviations(arguments, rows))
        given = context.params
        values = _values(given, rows, warn)
    except click.ClickException as error:
        raise _usage_error(error.format_message(), usage) from error
    except ValueError as error:
        raise _usage_error(str(error), usage) from error
    return Invocation(
        words=given["words"],
        values=values,
        actions=frozenset(name for name in ACTIONS if given[_action_key(name)] is True),
        configs=tuple(Path(name) for name in given[_action_key("config")] or ()),
        template=given[_action_key("generate-manpage")],
    )


def _usage_error(message: str, usage: str) -> MorphError:
    message = message[:1].lower() + message[1:].rstrip(".")
    return MorphError(message, reason=Reason.USAGE, hint=usage)


def _expand_abbreviations(arguments: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The arguments with every long option written out.

    Raises ValueError for an option that is unknown or could be several.
    """
    names = option_names(rows)
    expanded: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            return [*expanded, argument, *remaining]
        if not argument.startswith("--"):
            expanded.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        name = _expand(name, names)
        expanded.append(f"--{name}{equals}{value}")
        if names[name][1] and not equals:
            expanded.extend(value for value in (next(remaining, None),) if value is not None)
    return expanded


def _expand(name: str, names: Mapping[str, tuple[str, bool]]) -> str:
    if name in names:
        return name
    found = sorted(full for full in names if full.startswith(name))
    if len({names[full] for full in found}) == 1:
        return found[0]
    if found:
        several = ", ".join(f"--{full}" for full in found)
        raise ValueError(f"ambiguous option: --{name} could be {several}")
    from difflib import get_close_matches

    near = get_close_matches(name, names, n=1)
    question = f" (did you mean --{near[0]}?)" if near else ""
    raise ValueError(f"no such option: --{name}{question}")


def _action_key(name: str) -> str:
    return "action " + name


def _parameters(rows: Sequence[Row]) -> list[click.Parameter]:
    parameters: list[click.Parameter] = [
        click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    ]
    for name, (metavar, _) in ACTIONS.items():
        parameters.append(
            click.Option(
                [f"--{name}"],
                type=click.UNPROCESSED if metavar else None,
                is_flag=not metavar,
                multiple=name == "config",
                default=None,
            )
        )
        parameters[-1].name = _action_key(name)
    return parameters + [_option(row) for row in rows]


def _option(row: Row) -> click.Option:
    names = [row.attribute, *(f"--{name}" for name in row.names)]
    if row.letter:
        names.append(f"-{row.letter}")
    if row.kind is Kind.FLAG:
        names[1] += f"/--{negation(row)}"
        return click.Option(names, default=None)
    multiple = row.kind is Kind.LIST
    return click.Option(names, type=click.UNPROCESSED, multiple=multiple, default=None)


def _values(
    given: Mapping[str, object], rows: Sequence[Row], warn: Callable[[str], None]
) -> dict[str, Value]:
    """Raises ValueError for a value that makes no sense."""
    values: dict[str, Value] = {}
    for row in rows:
        match given[row.attribute]:
            case None | ():
                pass
            case bool(flag):
                values[row.attribute] = flag
            case str(text):
                try:
                    values[row.attribute] = parse_value(row, text, warn)
                except ValueError as error:
                    raise ValueError(f"--{error}") from error
            case texts:
                assert isinstance(texts, tuple)
                values[row.attribute] = parse_list(row, texts)
    return values
