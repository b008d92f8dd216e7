"""Show the URLs that repositories in alias form stand for.

For each REPOURL, such as upstream:zlib, the URL to fetch from and the URL to push to are shown.
What is no alias is shown as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.common import aliases_of
from morphlib.commands.session import Session


def run(session: Session, arguments: Sequence[str]) -> None:
    aliases = aliases_of(session.settings)
    expanded = [(name, aliases.pull_url(name), aliases.push_url(name)) for name in arguments]
    if session.settings.json:
        session.print_json([{"original": n, "pull": f, "push": t} for n, f, t in expanded])
        return
    for name, pull, push in expanded:
        session.print(f"Original: {name}\npull: {pull}\npush: {push}\n")
