"""References between definitions: what they name must be there, and be of the right kind."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from morphlib.definitions.models import (
    Cluster,
    ClusterSystem,
    Definitions,
    Kind,
    Stratum,
    StratumSpec,
    System,
)
from morphlib.definitions.names import normalise, problem_with_reference, sanitise
from morphlib.errors import Location, MorphError, Reason

_PATHS = "Paths are relative to the root of the definitions repository, and end in .morph."


class Reference(NamedTuple):
    """That the definition at `location` refers to a file, which must be of a kind."""

    path: str
    kind: Kind
    location: Location
    spec: StratumSpec | None = None


def system_references(system: System) -> list[Reference]:
    """What a system refers to."""
    return [Reference(spec.morph, Kind.STRATUM, spec.location, spec) for spec in system.strata]


def stratum_references(stratum: Stratum) -> list[Reference]:
    """What a stratum refers to: the strata it needs, and chunk files."""
    strata = [
        Reference(path, Kind.STRATUM, Location(stratum.path, keys=("build-depends", index)))
        for index, path in enumerate(stratum.build_depends)
    ]
    chunks = [
        Reference(spec.morph, Kind.CHUNK, spec.location)
        for spec in stratum.chunks
        if spec.morph is not None
    ]
    return strata + chunks


def cluster_references(cluster: Cluster) -> list[Reference]:
    """The systems that a cluster refers to."""
    return [
        Reference(system.morph, Kind.SYSTEM, system.location)
        for system in _all_systems(cluster.systems)
    ]


def raw_references(document: object) -> list[str]:
    """What a morphology with mistakes refers to, as far as that can be told from its document.

    Lets the mistakes in those files be told along with its own.
    """
    if not isinstance(document, dict):
        return []
    strata = [*_morphs(document.get("strata")), *_morphs(document.get("build-depends"))]
    systems = _morphs(document.get("systems"))
    paths = [normalise(sanitise(path)) for path in [*strata, *systems]]
    paths += _morphs(document.get("chunks"))
    return [path for path in paths if problem_with_reference(path) is None]


def _morphs(entries: object) -> list[str]:
    if not isinstance(entries, list):
        return []
    found = [entry.get("morph") for entry in entries if isinstance(entry, dict)]
    return [path for path in found if isinstance(path, str)]


def _all_systems(systems: Iterable[ClusterSystem]) -> Iterable[ClusterSystem]:
    for system in systems:
        yield system
        yield from _all_systems(system.subsystems)


def reference_errors(
    definitions: Definitions, references: Iterable[Reference], broken: Collection[str] = ()
) -> list[MorphError]:
    """What is wrong with references. `broken` are files whose errors are known already."""
    homes = {
        Kind.CHUNK: definitions.chunks,
        Kind.STRATUM: definitions.strata,
        Kind.SYSTEM: definitions.systems,
        Kind.CLUSTER: definitions.clusters,
    }
    errors = []
    for reference in references:
        if reference.path in homes[reference.kind]:
            if reference.spec is not None:
                errors += _name_errors(reference, definitions.strata[reference.path])
        elif reference.path not in broken:
            actual = next((kind for kind, home in homes.items() if reference.path in home), None)
            errors.append(_reference_error(reference, actual))
    return errors


def _reference_error(reference: Reference, actual: Kind | None) -> MorphError:
    path, location = reference.path, reference.location
    if actual is not None:
        message = (
            f"{location.path} references {path} which is a {actual}, instead of a {reference.kind}"
        )
    elif reference.kind is Kind.CHUNK:
        message = f"Couldn't find morphology: {path} referenced in {location.path}"
    else:
        message = f"Couldn't find definition file to build: {path} referenced in {location.path}"
    hint = None if actual else _PATHS
    at = Location(location.path, keys=(*location.keys, "morph"))
    return MorphError(message, reason=Reason.DEFINITION, hint=hint, location=at)


def _name_errors(reference: Reference, stratum: Stratum) -> list[MorphError]:
    spec = reference.spec
    if spec is None or spec.name is None or spec.name == stratum.name:
        return []
    return [
        MorphError(
            f"Stratum name {spec.name!r} doesn't match the name {stratum.name!r} in {stratum.path}",
            reason=Reason.DEFINITION,
            hint=f"Write 'name: {stratum.name}', or leave the name out.",
            location=Location(reference.location.path, keys=(*reference.location.keys, "name")),
        )
    ]
