"""Build a system, or some of its components, and all that they need.

SYSTEM is the file of a system in the definitions around the working directory (or in --repo at
--ref). With COMPONENTs, which are names of strata or chunks in the system, only those and what they
need are built. What was built before is taken from the cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from morphlib.architecture import check_target
from morphlib.build.model import BuildContext, BuildOptions, OnError
from morphlib.cache.ownership import refuse_planted
from morphlib.cache.store import ArtifactStore
from morphlib.commands.cacheservers import open_cache_server, open_signing_key
from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import BuildGraph
from morphlib.version import describe_version


def run(session: Session, arguments: Sequence[str]) -> None:
    if not arguments:
        raise MorphError("usage: morph build SYSTEM [COMPONENT...]", reason=Reason.USAGE)
    from morphlib.cache.inuse import InUse
    from morphlib.cache.records import Records
    from morphlib.cache.space import check_space

    settings = session.settings
    check_space(
        (settings.tempdir, settings.tempdir_min_space),
        (settings.cachedir, settings.cachedir_min_space),
    )
    workshop = Workshop.of(session)
    source, paths = workshop.open_definitions(arguments[:1])
    (graph,) = workshop.resolve(source, paths)
    check_target(graph.arch)
    targets = find_components(graph, arguments[1:], paths[0])
    session.status(f"Starting build of {graph.system.name}")
    from morphlib.build.run import run_build

    context = build_context(workshop, graph)
    keys = {source.key for source in graph.reachable(targets)}
    with (
        context.store,
        Records(settings.cachedir / "records.sqlite", session.listener) as records,
        InUse(settings.cachedir / "in-use", keys),
        InUse(settings.tempdir / "in-use", keys),
    ):
        run_build(context, targets, records, session.listener)


def find_components(graph: BuildGraph, names: Sequence[str], system: str) -> list[str]:
    """The ids of the sources that are to be built: the named components, or the system.

    A stratum stands for all of its artifacts.
    """
    if not names:
        return [graph.root]
    found = {name: graph.named(name) for name in names}
    unknown = [name for name, sources in found.items() if not sources]
    if unknown:
        raise MorphError(
            f"Components {', '.join(unknown)} are not in {system}",
            reason=Reason.NOT_FOUND,
            hint="Components are given by the names of strata and chunks, not by their files.",
        )
    return list(dict.fromkeys(source.id for sources in found.values() for source in sources))


def build_context(workshop: Workshop, graph: BuildGraph) -> BuildContext:
    settings = workshop.session.settings
    refuse_planted(settings.tempdir)
    ccache = None
    if not settings.no_ccache:
        ccache = settings.compiler_cache_dir or settings.cachedir / "ccache"
    options = BuildOptions(
        tempdir=Path(settings.tempdir),
        locks=settings.cachedir / "locks",
        builders=settings.builders,
        max_jobs=settings.max_jobs,
        on_error=OnError(settings.on_error),
        ccache=ccache,
        distcc=not settings.no_distcc,
        log_on_stdout=settings.build_log_on_stdout,
        caller=dict(os.environ),
        program=workshop.session.call,
        version={"version": describe_version()},
    )
    store = ArtifactStore(settings.cachedir / "artifacts", workshop.session.listener)
    return BuildContext(
        graph,
        store,
        workshop.mirrors,
        workshop.aliases,
        options,
        remote=open_cache_server(workshop.session, settings.artifact_cache_server or ""),
        push=open_cache_server(workshop.session, settings.share_server),
        signing=open_signing_key(workshop.session),
    )
