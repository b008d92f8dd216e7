"""Print what a controller of distributed builds has to know of a system, as one line of JSON.

For the system that the file MORPHOLOGY defines at REF in the repository REPO. REF_NAME is what REF,
a commit, was called by whoever asked for the build. Nothing else is printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import BuildGraph, Source


def run(session: Session, arguments: Sequence[str]) -> None:
    if len(arguments) not in (3, 4):
        raise MorphError(
            "This command takes a repo/ref/morph triplet, and optionally a ref name.",
            reason=Reason.USAGE,
        )
    from distbuild.graphs import describe, encode_graph
    from morphlib.build.tasks import UNKNOWN_COST

    repo, ref, morphology, *name = arguments
    graph = resolve_commit(session, repo, ref, morphology, *name)
    described = describe(graph, estimate_times(session, graph), UNKNOWN_COST)
    session.stdout.write(encode_graph(described).decode() + "\n")


def resolve_commit(
    session: Session, repo: str, ref: str, morphology: str, name: str | None = None
) -> BuildGraph:
    """The graph of a system at a commit, as every machine of a distributed build works it out.

    What the commit was called counts for nothing: its name stays out of what is built.
    """
    settings = replace(session.settings, repo=repo, ref=ref)
    workshop = Workshop.of(replace(session, settings=settings))
    source, paths = workshop.open_definitions([morphology])
    (graph,) = workshop.resolve(source, paths)
    return graph


def estimate_times(session: Session, graph: BuildGraph) -> Mapping[str, float]:
    """Expected seconds by id, of those sources that earlier builds on this machine tell of."""
    from morphlib.cache.records import Records

    by_kind: dict[Kind, list[Source]] = {}
    for source in graph.sources:
        by_kind.setdefault(source.kind, []).append(source)
    estimates: dict[str, float] = {}
    with Records(session.settings.cachedir / "records.sqlite", session.listener) as records:
        for kind, sources in by_kind.items():
            known = records.estimate([(s.name, s.key) for s in sources], kind=kind.value)
            estimates |= {s.id: known[s.name] for s in sources if s.name in known}
    return estimates
