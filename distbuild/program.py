"""The program `distbuild-helper`: command line, settings, log, and the exit status.

0 when the daemon hangs up, or after SIGTERM or SIGINT; 1 where the daemon can't be reached or
refuses; 2 for a command line that can't be understood.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from distbuild.helpersettings import HelperSettings, helper_table
from morphlib.commandline import parse_command_line
from morphlib.configfiles import default_files, format_config, read_entries, values_of
from morphlib.errors import MorphError, MorphErrors, Reason
from morphlib.helptext import help_text, option_names_text
from morphlib.rows import defaults_of
from morphlib.text import make_printable

_USAGE = "Usage: distbuild-helper [options]; see distbuild-helper --help"


def run_program(argv: Sequence[str]) -> int:
    """Do what the command line `argv` (program first) says. The exit status is returned."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        _run(Path(argv[0]).name, argv)
    except MorphError as error:
        for each in error.errors if isinstance(error, MorphErrors) else (error,):
            sys.stderr.write(f"ERROR: {make_printable(str(each))}\n")
        return 2 if error.reason is Reason.USAGE else 1
    except KeyboardInterrupt:
        pass  # all that ran was ended on the way here
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _warn(text: str) -> None:
    sys.stderr.write(f"WARNING: {make_printable(text)}\n")


def _run(program: str, argv: Sequence[str]) -> None:
    rows = helper_table()
    invocation = parse_command_line(argv[1:], _warn, rows, _USAGE)
    if "version" in invocation.actions:
        from morphlib.version import describe_version

        print(describe_version())
        return
    files = [] if "no-default-configs" in invocation.actions else default_files(program)
    files += invocation.configs
    entries = read_entries(files)
    known = {name: row for row in rows for name in row.names}
    read = values_of(entries, _warn, known, program)
    values: dict[str, Any] = {**defaults_of(rows), **read, **invocation.values}
    settings = HelperSettings(**values)
    if settings.help:
        print(format_help(program), end="")
    elif "dump-config" in invocation.actions:
        print(format_config(settings, entries), end="")
    else:
        _help(settings, argv)


def format_help(program: str) -> str:
    """What --help shows."""
    formatter = click.HelpFormatter(width=100)
    formatter.write_usage(program, "[options]")
    rows = [row for row in helper_table() if not row.hidden]
    with formatter.section("Options"):
        formatter.write_dl(
            [(option_names_text(row, everything=False), help_text(row)) for row in rows]
        )
    return formatter.getvalue()


def _help(settings: HelperSettings, argv: Sequence[str]) -> None:
    """Work for the daemon. Raises MorphError."""
    from distbuild import crashing
    from distbuild.addresses import Address
    from distbuild.handshake import read_party
    from distbuild.helper import serve
    from distbuild.messages import Role
    from morphlib.events import silence
    from morphlib.logs import add_log

    if settings.log not in ("", "none"):
        add_log(silence, settings, argv)
    crashing.arm(settings.crash_condition)
    party = read_party(Role.HELPER, settings)
    serve(Address(settings.parent_address, settings.parent_port), party)
