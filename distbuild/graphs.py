"""What a controller has to know of a system: what is built for it, of what, and in which order.

`morph calculate-build-graph` prints it as one line of JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from distbuild.messages import PROTOCOL_VERSION, Key, Name
from morphlib.build.plan import inputs
from morphlib.build.schedule import Task
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import BuildGraph, Source

#: The longest graph that is read, in bytes.
MAX_GRAPH = 64 << 20


class GraphSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`needs`: keys of what has to be in the shared cache before. `cost`: expected seconds, as it
    was `measured` in earlier builds or else as is usual for its kind.

    `files`: those that make it count as built. `logs`: others that are worth having.
    """

    key: Key
    name: Name
    component: Name  # as `morph build` calls it: the stratum of a stratum's artifact
    kind: Kind
    needs: tuple[Key, ...]
    files: tuple[Name, ...]
    logs: tuple[Name, ...]
    cost: Annotated[float, Meta(ge=0, le=10**7)]
    measured: bool = False


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A system. Each source stands after all that it needs."""

    protocol: int
    arch: Name
    root: Key
    sources: tuple[GraphSource, ...]


def describe(
    graph: BuildGraph, estimates: Mapping[str, float], usual: Mapping[Kind, float]
) -> Graph:
    """`estimates`: seconds by id of a source, where earlier builds tell. `usual`: where they
    don't."""

    def of(source: Source) -> GraphSource:
        keys = tuple(graph.source(each).key for each in inputs(graph, source))
        logs = (f"{source.key}.build-log",) if source.kind is Kind.CHUNK else ()
        return GraphSource(
            key=source.key,
            name=source.name,
            component=source.definition,
            kind=source.kind,
            needs=keys,
            files=source.filenames(),
            logs=logs,
            cost=estimates.get(source.id, usual[source.kind]),
            measured=source.id in estimates,
        )

    sources = tuple(of(source) for source in graph.sources)
    return Graph(PROTOCOL_VERSION, graph.arch, graph.system.key, sources)


def encode_graph(graph: Graph) -> bytes:
    return msgspec.json.encode(graph)


def decode_graph(data: bytes) -> Graph:
    """Raises MorphError for what is no graph, and for one that could not be built in its order."""
    try:
        graph = msgspec.json.decode(data, type=Graph)
    except (ValueError, RecursionError) as error:
        raise _bad(str(error)) from error
    if graph.protocol != PROTOCOL_VERSION:
        raise _bad(f"it is of protocol version {graph.protocol}, not {PROTOCOL_VERSION}")
    seen: set[str] = set()
    for source in graph.sources:
        if not seen.issuperset(source.needs):
            raise _bad(f"{source.name} stands before what it needs")
        prefix = f"{source.key}."
        if not all(name.startswith(prefix) for name in (*source.files, *source.logs)):
            raise _bad(f"{source.name} has files of another key")
        seen.add(source.key)
    if graph.root not in seen:
        raise _bad("its root is missing")
    return graph


def _bad(why: str) -> MorphError:
    return MorphError(f"Failed to compute build graph: {why}", reason=Reason.GRAPH)


@dataclass(frozen=True, slots=True)
class Work:
    """What has to be built for a request. `total` counts all that its targets reach."""

    targets: tuple[GraphSource, ...]
    tasks: tuple[Task, ...]
    total: int


def find_targets(graph: Graph, components: Sequence[str]) -> tuple[GraphSource, ...]:
    """The sources that are asked for; the system without components. Raises MorphError."""
    if not components:
        return tuple(source for source in graph.sources if source.key == graph.root)
    wanted = set(components)
    known = {name for s in graph.sources for name in (s.name, s.component)}
    unknown = [name for name in components if name not in known]
    if unknown:
        system = next(s.name for s in graph.sources if s.key == graph.root)
        raise MorphError(
            f"Some of the requested components are not in {system}: {', '.join(unknown)}",
            reason=Reason.NOT_FOUND,
        )
    return tuple(s for s in graph.sources if wanted & {s.name, s.component})


def plan_work(graph: Graph, targets: Iterable[GraphSource], present: Collection[str]) -> Work:
    """What is missing for the targets. `present`: keys of what is in the shared cache, whole.

    What is there hides what it was made from.
    """
    chosen = tuple(targets)
    by_key = {source.key: source for source in graph.sources}
    reached = _reach(chosen, by_key, ())
    missing = _reach(chosen, by_key, present)
    tasks = tuple(
        Task(source.key, source.needs, source.cost, graph.arch)
        for source in graph.sources
        if source.key in missing
    )
    return Work(chosen, tasks, len(reached))


def _reach(
    targets: Iterable[GraphSource], by_key: dict[str, GraphSource], present: Collection[str]
) -> set[str]:
    found: set[str] = set()
    queue = [source.key for source in targets]
    while queue:
        key = queue.pop()
        if key not in found and key not in present:
            found.add(key)
            queue.extend(by_key[key].needs)
    return found
