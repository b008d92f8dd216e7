"""List the names of all cached files that belong to some systems.

MORPH are files of systems in the definitions around the working directory (or in --repo at --ref).
Nothing is built. The older form, list-artifacts REPO REF MORPH..., is understood as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session
from morphlib.commands.triplets import with_repo
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import BuildGraph


def run(session: Session, arguments: Sequence[str]) -> None:
    settings = session.settings
    if settings.repo is None and len(arguments) >= 3 and not _is_morph(arguments[:2]):
        session, arguments = with_repo(session, arguments[0], arguments[1]), arguments[2:]
    if not arguments:
        raise MorphError("usage: morph list-artifacts MORPH [MORPH]...", reason=Reason.USAGE)
    workshop = Workshop.of(session)
    source, paths = workshop.open_definitions(arguments)
    names = sorted(artifact_files(workshop.resolve(source, paths)))
    if settings.json:
        session.print_json(names)
    else:
        session.stdout.write("".join(f"{name}\n" for name in names))


def _is_morph(names: Iterable[str]) -> bool:
    return any(name.endswith(".morph") for name in names)


def artifact_files(graphs: Iterable[BuildGraph]) -> set[str]:
    """The names of all files that the cache holds of some systems once they are built."""
    names: set[str] = set()
    for graph in graphs:
        for source in graph.sources:
            names.update(source.filenames())
            names.add(f"{source.key}.meta")
            if source.kind is Kind.CHUNK:
                names.add(f"{source.key}.build-log")
    return names
