"""Build one step of a distributed build: what workers run for a controller.

The step is read from standard input, as one line of JSON. NAME is there to be seen in lists of
processes. The exit status is 75 where this machine has no room, 76 where something else is wrong
with it, and 1 where the step itself fails.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from morphlib.commands.session import Session
from morphlib.credentials import hide_credentials
from morphlib.errors import MorphError, MorphErrors, Reason
from morphlib.text import make_printable


def run(session: Session, arguments: Sequence[str]) -> int | None:
    if len(arguments) > 1:
        raise MorphError("usage: morph worker-build [NAME]", reason=Reason.USAGE)
    from distbuild.faults import status_of
    from distbuild.framing import MAX_LINE, BadLine, LineDecoder
    from distbuild.workermessages import Step

    try:
        step = LineDecoder[Step](Step).decode(sys.stdin.buffer.readline(MAX_LINE + 1).rstrip())
    except BadLine as error:
        raise MorphError(f"standard input has no step: {error}", reason=Reason.USAGE) from error
    try:
        _build(session, step.repo, step.ref, step.morphology, step.key)
    except MorphError as error:
        for each in error.errors if isinstance(error, MorphErrors) else (error,):
            sys.stderr.write(f"ERROR: {make_printable(hide_credentials(str(each)))}\n")
        return status_of(error)
    return None


def _build(session: Session, repo: str, ref: str, morphology: str, key: str) -> None:
    """Raises MorphError."""
    from morphlib.build.run import run_build
    from morphlib.cache.inuse import InUse
    from morphlib.cache.records import Records
    from morphlib.commands.build import build_context
    from morphlib.commands.calculate_build_graph import resolve_commit
    from morphlib.commands.resolving import Workshop

    settings = session.settings
    _make_room(session)
    graph = resolve_commit(session, repo, ref, morphology)
    source = next((source for source in graph.sources if source.key == key), None)
    if source is None:
        raise MorphError(
            f"no source of {morphology} at {ref} has the key {key} here",
            reason=Reason.CONFIG,
            hint="Give controller and workers the same version of Morph and the same settings.",
        )
    context = build_context(Workshop.of(session), graph)
    keys = {each.key for each in graph.reachable([source.id])}
    with (
        context.store,
        Records(settings.cachedir / "records.sqlite", session.listener) as records,
        InUse(settings.cachedir / "in-use", keys),
        InUse(settings.tempdir / "in-use", keys),
    ):
        run_build(context, [source.id], records, session.listener)


def _make_room(session: Session) -> None:
    """Remove what was not used for long, if there is too little space. Raises MorphError (SPACE)
    where that is not enough."""
    from morphlib.cache.space import check_space
    from morphlib.commands import gc

    settings = session.settings
    wanted = (
        (settings.tempdir, settings.tempdir_min_space),
        (settings.cachedir, settings.cachedir_min_space),
    )
    try:
        check_space(*wanted)
    except MorphError as error:
        if error.reason is not Reason.SPACE:
            raise
        gc.run(session, [])
        check_space(*wanted)
