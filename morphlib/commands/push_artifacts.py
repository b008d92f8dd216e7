"""Send what was built to a cache server, for others to fetch instead of building it.

SYSTEM is the file of a system in the definitions, as for build. All that was built for it goes
there, or with COMPONENTs, which are names of strata or chunks in the system, these and what they
need: artifacts, build logs and times. What the server has already is not sent again.

The server is --share-server, or else --artifact-cache-server. It has to allow writing, and
unless it is for its own machine alone it wants a token (--server-token-file), a certificate
(--server-certificate), or both. With share-server in a configuration file, builds send all
that they build by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.build import build_context, find_components
from morphlib.commands.cacheservers import open_cache_server
from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason, raise_all


def run(session: Session, arguments: Sequence[str]) -> None:
    if not arguments:
        raise MorphError("usage: morph push-artifacts SYSTEM [COMPONENT...]", reason=Reason.USAGE)
    from morphlib.build.push import push_sources
    from morphlib.cache.inuse import InUse

    settings = session.settings
    url = settings.share_server or settings.artifact_cache_server or ""
    server = open_cache_server(session, url)
    if server is None:
        raise MorphError(
            "no cache server to send artifacts to",
            reason=Reason.CONFIG,
            hint="Name one with --share-server=URL.",
        )
    workshop = Workshop.of(session)
    source, paths = workshop.open_definitions(arguments[:1])
    (graph,) = workshop.resolve(source, paths)
    reached = graph.reachable(find_components(graph, arguments[1:], paths[0]))
    context = build_context(workshop, graph)
    with context.store, InUse(settings.cachedir / "in-use", {each.key for each in reached}):
        stored = context.store.check_many({each.key: each.filenames() for each in reached})
        here = [each for each in reached if each.key in stored]
        if not here:
            raise MorphError(
                f"nothing of {paths[0]} was built here",
                reason=Reason.NOT_FOUND,
                hint="Build it first: morph build " + " ".join(arguments),
            )
        report = push_sources(context.store, server, here, session.listener)
    text = f"Sent {len(report.sent)} to {server.url}; {len(report.there)} were there, "
    text += f"{len(reached) - len(here)} were not built here"
    if left := len(here) - len(report.there) - len(report.sent):
        text += f", {left} could not be sent"
    session.status(text)
    raise_all(report.failed.values())
