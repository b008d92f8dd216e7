"""Step into the place where a chunk is built, or into what a failed build left.

With SYSTEM and CHUNK that is the staging area of a build of just this chunk that failed, with all
that the build left, or else a new one: what the chunk is built with, its sources, and the
environment and working directory of its commands. A new one is removed when you leave. With AREA,
the path of a staging area that a failed build kept, it is that one.

COMMAND is run instead of an interactive shell; put -- before one that has options. Its exit status
is that of morph.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from morphlib.architecture import check_target
from morphlib.commands.build import build_context
from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import BuildGraph, Source

_USAGE = "usage: morph shell SYSTEM CHUNK [-- COMMAND...], or morph shell AREA [-- COMMAND...]"


def run(session: Session, arguments: Sequence[str]) -> int:
    if not arguments:
        raise MorphError(_USAGE, reason=Reason.USAGE)
    if _is_area(arguments[0]):
        from morphlib.build.shell import enter_area

        return enter_area(Path(arguments[0]), arguments[1:])
    if len(arguments) < 2:
        hint = None
        if Path(arguments[0]).is_absolute():
            hint = f"If {arguments[0]} was a staging area, it was removed."
        raise MorphError(_USAGE, reason=Reason.USAGE, hint=hint)
    return _enter_chunk(session, arguments[0], arguments[1], arguments[2:])


def _is_area(argument: str) -> bool:
    """A directory is meant, unless there is a file of a system that can be called so, too."""
    return Path(argument).is_dir() and not Path(f"{argument}.morph").exists()


def _enter_chunk(session: Session, system: str, name: str, argv: Sequence[str]) -> int:
    workshop = Workshop.of(session)
    definitions, paths = workshop.open_definitions([system])
    (graph,) = workshop.resolve(definitions, paths)
    check_target(graph.arch)
    source = _find_chunk(graph, name, paths[0])
    from morphlib.build.shell import enter_chunk
    from morphlib.cache.inuse import InUse

    settings = session.settings
    context = build_context(workshop, graph)
    keys = {each.key for each in graph.reachable([source.id])}
    with (
        context.store,
        InUse(settings.cachedir / "in-use", keys),
        InUse(settings.tempdir / "in-use", keys),
    ):
        build = [*session.call, *_origin_options(session), "build", system]
        return enter_chunk(context, source, argv, session.listener, build)


def _origin_options(session: Session) -> list[str]:
    settings = session.settings
    return [f"--repo={settings.repo}", f"--ref={settings.ref}"] if settings.repo else []


def _find_chunk(graph: BuildGraph, name: str, path: str) -> Source:
    named = graph.named(name)
    for source in named:
        if source.kind is Kind.CHUNK:
            return source
    if named:
        message = f"{name} is a {named[0].kind} and no chunk, so it has no sources to step into"
        raise MorphError(message, reason=Reason.NOT_FOUND)
    chunks = [source.name for source in graph.sources if source.kind is Kind.CHUNK]
    near = get_close_matches(name, chunks, n=1)
    raise MorphError(
        f"Component not found: no chunk {name} in {path}",
        reason=Reason.NOT_FOUND,
        hint=f"Did you mean {near[0]}?" if near else None,
    )
