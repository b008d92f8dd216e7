"""What has to be built: a pure function of the graph and of what the stores hold.

Nothing else asks "is it cached?". A source is built when something that is wanted needs it and it
is not there. What is there hides what it was made from: a cached system needs no chunk at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from morphlib.definitions.models import Kind
from morphlib.graph.model import BuildGraph, Source


@dataclass(frozen=True, slots=True)
class Plan:
    """`build`: ids of the sources to build, in build order. `fetch`: ids of those to bring here
    from a cache server. `cached`: ids of those that are used as they are. `total`: how many sources
    the targets reach. `present` and `remote`: keys that the stores have, also those that nothing
    asks for now."""

    targets: tuple[str, ...]
    build: tuple[str, ...]
    cached: tuple[str, ...]
    total: int
    fetch: tuple[str, ...] = ()
    present: frozenset[str] = frozenset()
    remote: frozenset[str] = frozenset()

    @property
    def untouched(self) -> int:
        """How many sources need no work."""
        return self.total - len(self.build) - len(self.fetch)


def inputs(graph: BuildGraph, source: Source) -> tuple[str, ...]:
    """Ids of the sources whose artifacts have to be at hand to build `source`, in build order."""
    needed = dict.fromkeys(ref.source for ref in source.dependencies)
    match source.kind:
        case Kind.CHUNK:
            needed.update(dict.fromkeys(ref.source for ref in graph.staged(source)))
        case Kind.SYSTEM:
            for ref in source.dependencies:
                stratum = graph.source(ref)
                needed.update(dict.fromkeys(r.source for r in graph.content(stratum)))
    return tuple(needed)


def revise_plan(
    graph: BuildGraph, plan: Plan, done: Collection[str], remote: Collection[str]
) -> Plan:
    """The plan when not all of what `plan` wanted to fetch can be had: of what the server was said
    to have, `remote` can.

    `done`: ids of the sources that are here by now. What was to be built stays so. What was to be
    fetched and can't be is built, with all that it needs and is neither here nor there.
    """
    left = {source_id for source_id in plan.fetch if source_id not in done}
    present = plan.present | {graph.source(source_id).key for source_id in done}
    asked_for = {graph.source(source_id).key for source_id in (*plan.build, *left)}
    again = make_plan(graph, plan.targets, present, asked_for - present, remote)
    build = {*plan.build, *again.build}
    fetch = {*plan.fetch, *again.fetch} - (left - set(again.fetch)) - build
    reached = graph.reachable(plan.targets)
    return Plan(
        targets=plan.targets,
        build=tuple(source.id for source in reached if source.id in build),
        cached=tuple(s.id for s in reached if s.id in again.cached and s.id not in done),
        total=plan.total,
        fetch=tuple(source.id for source in reached if source.id in fetch),
        present=plan.present,
        remote=plan.remote & frozenset(remote),
    )


def make_plan(
    graph: BuildGraph,
    targets: Iterable[str],
    present: Collection[str],
    damaged: Collection[str] = (),
    remote: Collection[str] = (),
) -> Plan:
    """Decide what to build so that `targets` (ids) are there.

    `present` holds the keys of the sources that a store has whole. `damaged` holds keys of sources
    that were found damaged: they are built again even when nothing that is missing needs them.
    `remote` holds the keys that a cache server has: of what is not here, they are fetched.
    """
    wanted = tuple(targets)
    reached = graph.reachable(wanted)
    queue = list(wanted) + [source.id for source in reached if source.key in damaged]
    build: set[str] = set()
    cached: set[str] = set()
    fetch: set[str] = set()
    while queue:
        source = graph.source(queue.pop())
        if source.id in build or source.id in cached or source.id in fetch:
            continue
        if source.key in present:
            cached.add(source.id)
            continue
        if source.key in remote:
            fetch.add(source.id)
            continue
        build.add(source.id)
        queue.extend(inputs(graph, source))
    return Plan(
        targets=wanted,
        build=tuple(source.id for source in reached if source.id in build),
        cached=tuple(source.id for source in reached if source.id in cached),
        total=len(reached),
        fetch=tuple(source.id for source in reached if source.id in fetch),
        present=frozenset(present),
        remote=frozenset(remote),
    )
