"""Partial deployment: some strata or chunks of a system, with what they are built on."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from morphlib.definitions.models import Kind
from morphlib.definitions.names import normalise, sanitise
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import ArtifactRef, BuildGraph, Source


@dataclass(frozen=True, slots=True)
class PartialContent:
    """`chunks`: the chunk artifacts to unpack, in this order. `strata`: the stratum artifacts whose
    metadata goes in."""

    chunks: tuple[ArtifactRef, ...]
    strata: tuple[Source, ...]


def components_of(value: object) -> tuple[str, ...] | None:
    """The paths that `partial-deploy-components` lists: a list, or text with commas.

    None if it is neither.
    """
    match value:
        case None:
            return ()
        case str():
            return tuple(word.strip() for word in value.split(",") if word.strip())
        case list() if all(isinstance(item, str) and item for item in value):
            return tuple(value)
        case _:
            return None


def partial_problems(components: tuple[str, ...] | None, name: str) -> Iterator[str]:
    if components is None:
        yield f"partial-deploy-components of {name} is not a list of paths"
    elif not components:
        yield (
            "Deployment failed as no components were specified for deployment and --partial was "
            f"set. (Deployment {name} needs partial-deploy-components.)"
        )


def select_components(
    graph: BuildGraph, components: Sequence[str], below: str = ""
) -> PartialContent:
    """What the components, and all that they are built on, come to.

    They are paths relative to the root of the definitions or, else, to `below` it. Raises
    MorphError for those that no source of the graph comes from.
    """
    sources: dict[str, Source] = {}
    missing = []
    for component in components:
        found = _find(graph, component, below)
        if not found:
            missing.append(component)
        sources.update((source.id, source) for source in found)
    if missing:
        raise MorphError(
            f"Components {', '.join(missing)} not found in system {graph.system.name}.",
            reason=Reason.NOT_FOUND,
            hint="Components are files of strata and chunks, relative to the definitions' root.",
        )
    wanted = _closure(
        graph,
        [ArtifactRef(source.id, name) for source in sources.values() for name in source.artifacts],
    )
    return PartialContent(
        tuple(ref for ref in wanted if _is_unpacked(graph.source(ref))),
        tuple(
            dict.fromkeys(
                graph.source(ref) for ref in wanted if graph.source(ref).kind is Kind.STRATUM
            )
        ),
    )


def _find(graph: BuildGraph, component: str, below: str) -> list[Source]:
    name = sanitise(component)
    for path in dict.fromkeys((normalise(name), posixpath.normpath(posixpath.join(below, name)))):
        found = [
            source
            for source in graph.sources
            if source.path == path and source.kind in (Kind.CHUNK, Kind.STRATUM)
        ]
        if found:
            return found
    return []


def _closure(graph: BuildGraph, refs: list[ArtifactRef]) -> list[ArtifactRef]:
    """Artifacts and all that they are built on, in build order."""
    wanted: set[ArtifactRef] = set()
    queue = list(refs)
    while queue:
        ref = queue.pop()
        if ref not in wanted:
            wanted.add(ref)
            queue.extend(graph.source(ref).dependencies)
    return [ref for _, ref in graph.walk() if ref in wanted]


def _is_unpacked(source: Source) -> bool:
    return source.kind is Kind.CHUNK and not source.is_bootstrap
