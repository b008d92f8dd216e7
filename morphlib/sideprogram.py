"""What the programs beside `morph` have in common: daemons that take no commands, only settings.

They read settings as Morph does, from configuration files of their own name and from options, and
answer questions about these. What else they do is theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import click

from morphlib.commandline import ACTIONS, HIDDEN_ACTIONS, Invocation, parse_command_line
from morphlib.configfiles import default_files, format_config, read_entries, values_of
from morphlib.errors import MorphError, MorphErrors, Reason
from morphlib.helptext import help_text, option_names_text
from morphlib.rows import Group, Row, defaults_of
from morphlib.text import make_printable


class HasHelp(Protocol):
    @property
    def help(self) -> bool: ...


S = TypeVar("S", bound=HasHelp)


@dataclass(frozen=True, slots=True)
class SideProgram(Generic[S]):
    """`rows` describe the settings, which `make` makes a value of. `work` does what the program is
    for and gives its exit status; `manual` fills a manual page's template."""

    name: str
    rows: Sequence[Row]
    make: Callable[..., S]
    work: Callable[[S, Sequence[str]], int]
    manual: Callable[[Path], str] | None = None

    def run(self, argv: Sequence[str]) -> int:
        """Do what the command line `argv` (program first) says. The exit status is returned:
        2 for a command line that can't be understood, 1 for other errors, which are told."""
        try:
            usage = f"Usage: {self.name} [options]; see {self.name} --help"
            invocation = parse_command_line(argv[1:], _warn, self.rows, usage)
            return self._run(argv, invocation)
        except MorphError as error:
            for each in error.errors if isinstance(error, MorphErrors) else (error,):
                sys.stderr.write(f"ERROR: {make_printable(str(each))}\n")
            return 2 if error.reason is Reason.USAGE else 1

    def _run(self, argv: Sequence[str], invocation: Invocation) -> int:
        program = Path(argv[0]).name
        files = [] if "no-default-configs" in invocation.actions else default_files(program)
        files += invocation.configs
        if self._inform(files, invocation):
            return 0
        entries = read_entries(files)
        known: Mapping[str, Row] = {name: row for row in self.rows for name in row.names}
        read = values_of(entries, _warn, known, program)
        values: dict[str, Any] = {**defaults_of(self.rows), **read, **invocation.values}
        settings = self.make(**values)
        if settings.help:
            print(self.format_help(program), end="")
        elif "dump-config" in invocation.actions:
            print(format_config(settings, entries), end="")
        else:
            return self.work(settings, argv)
        return 0

    def _inform(self, files: Sequence[Path], invocation: Invocation) -> bool:
        """Print what needs no configuration. False if nothing of it was asked for."""
        if "version" in invocation.actions:
            from morphlib.version import describe_version

            print(describe_version())
        elif "list-config-files" in invocation.actions:
            print("\n".join(map(str, files)))
        elif "dump-setting-names" in invocation.actions:
            print("\n".join(row.name for row in self.rows))
        elif invocation.template is not None:
            if self.manual is None:
                raise MorphError(f"{self.name} has no manual page", reason=Reason.USAGE)
            print(self.manual(Path(invocation.template)), end="")
        else:
            return False
        return True

    def format_help(self, program: str) -> str:
        """What --help shows."""
        formatter = click.HelpFormatter(width=100)
        formatter.write_usage(program, "[options]")
        for group in Group:
            rows = [row for row in self.rows if row.group is group and not row.hidden]
            named = [(option_names_text(row, everything=False), help_text(row)) for row in rows]
            named += _actions() if group is Group.GENERAL else []
            if named:
                with formatter.section(group.value):
                    formatter.write_dl(named)
        return formatter.getvalue()


def _actions() -> list[tuple[str, str]]:
    return [
        (f"--{name}={metavar}" if metavar else f"--{name}", text)
        for name, (metavar, text) in ACTIONS.items()
        if name not in HIDDEN_ACTIONS
    ]


def _warn(text: str) -> None:
    sys.stderr.write(f"WARNING: {make_printable(text)}\n")
