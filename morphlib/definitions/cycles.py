"""Circles in dependencies, found without recursion, however deep the graph is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from morphlib.definitions.locate import PlacesError
from morphlib.definitions.models import BuildMode, ChunkSpec, Stratum
from morphlib.errors import Location, MorphError, Reason

Node = TypeVar("Node", bound=Hashable)


def find_cycles(
    nodes: Iterable[Node], needs: Callable[[Node], Iterable[Node]]
) -> Iterator[list[Node]]:
    """Yield circles among what nodes need: at least one for each group that is in a circle.

    Each circle is listed from the node where it was entered, along what needs what; the last one
    listed needs the first. Every edge is followed once.
    """
    finished: set[Node] = set()
    for start in nodes:
        if start in finished:
            continue
        way: dict[Node, int] = {start: 0}  # the nodes being walked, in order, with their depth
        stack = [iter(needs(start))]
        while stack:
            node = next(stack[-1], None)
            if node is None:
                stack.pop()
                done, _ = way.popitem()
                finished.add(done)
            elif node in way:
                yield list(way)[way[node] :]
            elif node not in finished:
                way[node] = len(way)
                stack.append(iter(needs(node)))


def origin_of(spec: ChunkSpec) -> tuple[str | None, ...]:
    """What makes two chunk specs of one name the same chunk: repo, ref, morph, build-system."""
    return (spec.repo, spec.ref, spec.morph, spec.build_system)


def cycle_errors(strata: Sequence[Stratum]) -> list[MorphError]:
    """Dependencies that go in circles, between strata, between chunks, or through both.

    A chunk needs all that the build-depends of its stratum hold, so a chunk that a stratum shares
    with one it is built with needs itself. Such circles are told where there are no plainer ones.
    """
    return plain_cycle_errors(strata) or mixed_cycle_errors(strata)


def plain_cycle_errors(strata: Sequence[Stratum]) -> list[MorphError]:
    """Circles between strata, and between the chunks of one stratum."""
    nodes = {s.path: _Node(f"stratum {s.name}", s.location) for s in strata}
    errors = _circles(
        {nodes[s.path]: [nodes[p] for p in s.build_depends if p in nodes] for s in strata}
    )
    for stratum in strata:
        own = {spec.name: _Node(f"chunk {spec.name}", spec.location) for spec in stratum.chunks}
        errors += _circles(
            {
                own[spec.name]: [own[name] for name in spec.build_depends if name in own]
                for spec in stratum.chunks
            }
        )
    return errors


def mixed_cycle_errors(strata: Sequence[Stratum]) -> list[MorphError]:
    """Circles of any kind among strata that are all part of one build."""
    return _circles(_dependency_graph(strata))


def _circles(graph: Mapping[_Node, Sequence[_Node]]) -> list[MorphError]:
    return [_cycle_error(circle) for circle in find_cycles(graph, lambda node: graph[node])]


class _Node:
    """A stratum, or a chunk wherever it is listed."""

    __slots__ = ("location", "name")

    def __init__(self, name: str, location: Location) -> None:
        self.name = name
        self.location = location


def _dependency_graph(strata: Sequence[Stratum]) -> Mapping[_Node, Sequence[_Node]]:
    by_path = {
        stratum.path: _Node(f"stratum {stratum.name}", stratum.location) for stratum in strata
    }
    chunks: dict[Hashable, _Node] = {}
    graph: dict[_Node, list[_Node]] = {node: [] for node in by_path.values()}
    for stratum in strata:
        needed = [by_path[path] for path in stratum.build_depends if path in by_path]
        node = by_path[stratum.path]
        graph[node] += needed
        own: dict[str, _Node] = {}
        for spec in stratum.chunks:
            chunk = chunks.setdefault(
                (spec.name, *origin_of(spec)), _Node(f"chunk {spec.name}", spec.location)
            )
            own[spec.name] = chunk
            graph.setdefault(chunk, []).extend(needed)
            if spec.build_mode is not BuildMode.BOOTSTRAP:
                graph[node].append(chunk)
        for spec in stratum.chunks:
            graph[own[spec.name]] += [own[name] for name in spec.build_depends if name in own]
    return graph


def _cycle_error(circle: Sequence[_Node]) -> MorphError:
    # A circle has no start, so begin where the order of names begins: the same at every run.
    start = min(range(len(circle)), key=lambda index: circle[index].name)
    nodes = [*circle[start:], *circle[:start]]

    ends = " and ".join(dict.fromkeys((nodes[0].name, nodes[-1].name)))

    def describe(places: Sequence[Location]) -> str:
        lines = [
            f"\n    {node.name} ({place}) needs" for node, place in zip(nodes, places, strict=True)
        ]
        return f"Cyclic dependency between {ends}:{''.join(lines)}\n    {nodes[0].name}"

    return PlacesError(
        describe,
        [node.location for node in nodes],
        reason=Reason.GRAPH,
        hint="Take one of these dependencies away.",
    )
