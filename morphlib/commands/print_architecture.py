"""Print the name of the host architecture, as the `arch` of a system gives it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.architecture import host_architecture
from morphlib.commands.session import Session


def run(session: Session, arguments: Sequence[str]) -> None:
    if session.settings.json:
        session.print_json({"architecture": host_architecture()})
    else:
        session.print(host_architecture())
