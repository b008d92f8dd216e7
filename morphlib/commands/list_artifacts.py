"""List the names of the files in the cache that systems are made of and built with.

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
    chosen = settings.repo is not None or settings.ref is not None
    if not chosen and len(arguments) >= 3 and not _is_morph(arguments[:2]):
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
    """What the cache holds of all that some systems need, once they are built."""
    names: set[str] = set()
    for graph in graphs:
        for source, ref in graph.needed():
            names.update(source.filenames([ref.name]))
            names.add(f"{source.key}.meta")
            if source.kind is Kind.CHUNK:
                names.add(f"{source.key}.build-log")
    return names
