"""List the extensions that deployments can use.

These are the configure and write extensions of the definitions that you are in, and those that
come with Morph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from morphlib.commands.session import Session
from morphlib.deploy.help import list_extensions


def run(session: Session, arguments: Sequence[str]) -> None:
    names = list_extensions(Path.cwd())
    if session.settings.json:
        session.print_json({"extensions": names})
        return
    session.print("Extensions:")
    for name in names:
        session.print(f"    {name}")
