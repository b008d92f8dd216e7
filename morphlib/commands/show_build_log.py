"""Print the build log of a chunk.

Takes a SYSTEM, as a path from the root of the definitions, and the name of a CHUNK in it. The log
is that of the last build of the chunk as it is defined now, whether it succeeded or not.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.cache.store import ArtifactStore
from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason


def run(session: Session, arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        raise MorphError("usage: morph show-build-log SYSTEM CHUNK", reason=Reason.USAGE)
    system, name = arguments
    workshop = Workshop.of(session)
    source, paths = workshop.open_definitions([system], root_relative=True)
    (graph,) = workshop.resolve(source, paths)
    chunk = next((s for s in graph.named(name) if s.kind is Kind.CHUNK), None)
    if chunk is None:
        raise MorphError(
            f"Component not found: no chunk {name} in {paths[0]}", reason=Reason.NOT_FOUND
        )
    store = ArtifactStore(session.settings.cachedir / "artifacts", session.listener)
    try:
        log = store.log_path(chunk.key).read_bytes()
    except FileNotFoundError:
        raise MorphError(
            f"No build log for artifact {chunk.key} found on cache server or in {store.directory}",
            reason=Reason.NOT_FOUND,
            hint=f"The chunk {name} was not built here as it is defined now.",
        ) from None
    text = log.decode("utf-8", "backslashreplace")
    if session.settings.json:
        session.print_json({"chunk": name, "key": chunk.key, "log": text})
    else:
        session.output.write(text)
