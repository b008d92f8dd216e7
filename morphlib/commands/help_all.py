"""Show help with all options and commands, those too that are seldom of use."""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.help import show_help
from morphlib.commands.session import Session


def run(session: Session, arguments: Sequence[str]) -> None:
    show_help(session, arguments, everything=True)
