"""Show help: for Morph, or for the TOPIC, which is the name of a command or of an extension.

An extension is named with its kind, such as tar.write. Its help is looked for in the definitions
that you are in, then among the extensions that come with Morph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from morphlib.commands.session import Session


def run(session: Session, arguments: Sequence[str]) -> None:
    show_help(session, arguments, everything=False)


def show_help(session: Session, arguments: Sequence[str], *, everything: bool) -> None:
    """Print help for the first of the arguments, or general help where there is none."""
    from morphlib.commands import COMMANDS
    from morphlib.helptext import general_help, help_on_command

    if not arguments:
        session.print(general_help(session.program, everything=everything).rstrip())
    elif arguments[0] in COMMANDS:
        command = COMMANDS[arguments[0]]
        session.print(help_on_command(session.program, command).rstrip())
    else:
        from morphlib.deploy.help import extension_help

        session.print(extension_help(arguments[0], Path.cwd()).rstrip())
