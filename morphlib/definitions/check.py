"""What must hold between the definitions of one system before it can be built."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from morphlib.definitions.cycles import cycle_errors, origin_of
from morphlib.definitions.locate import PlacesError
from morphlib.definitions.models import (
    BuildMode,
    ChunkSpec,
    Definitions,
    SplitRule,
    Stratum,
    System,
)
from morphlib.definitions.references import (
    reference_errors,
    stratum_references,
    system_references,
)
from morphlib.errors import Location, MorphError, Reason


def check_system(definitions: Definitions, system_path: str) -> list[MorphError]:
    """Everything that keeps a system from being built, apart from its sources.

    Covers references between its definitions, dependencies of chunks, two chunks of one name, two
    strata that produce the same artifact, dependencies in circles, and systems that would hold
    bootstrap chunks only. Places have keys, not lines; `locate_errors` fills these in.
    """
    system = definitions.systems[system_path]
    strata = reached_strata(definitions, [spec.morph for spec in system.strata])
    errors = reference_errors(definitions, system_references(system))
    for stratum in strata:
        errors += reference_errors(definitions, stratum_references(stratum))
        errors += check_stratum(stratum)
    if not errors:
        errors += check_composition(definitions, system, strata)
        errors += cycle_errors(strata)
    return errors


def check_loaded(definitions: Definitions) -> list[MorphError]:
    """What is wrong between definitions some of which may be missing; circles are left out."""
    errors = [error for stratum in definitions.strata.values() for error in check_stratum(stratum)]
    for system in definitions.systems.values():
        reached = reached_strata(definitions, [spec.morph for spec in system.strata])
        errors += check_composition(definitions, system, reached)
    return errors


def reached_strata(definitions: Definitions, paths: Iterable[str]) -> list[Stratum]:
    """Strata and all that they are built with, in the order in which they are met.

    Those that are not there are left out.
    """
    queue = list(dict.fromkeys(paths))
    seen = set(queue)
    reached = []
    for path in queue:  # grows while it is walked
        stratum = definitions.strata.get(path)
        if stratum is None:
            continue
        reached.append(stratum)
        for needed in stratum.build_depends:
            if needed not in seen:
                seen.add(needed)
                queue.append(needed)
    return reached


def check_stratum(stratum: Stratum) -> list[MorphError]:
    """What is wrong among the chunks of a stratum: dependencies that are no chunks of it."""
    names = {spec.name for spec in stratum.chunks}
    errors = []
    for spec in stratum.chunks:
        for index, name in enumerate(spec.build_depends):
            if name not in names:
                keys = (*spec.location.keys, "build-depends", index)
                errors.append(_undefined_dependency(stratum, spec, name, keys))
    return errors


def _undefined_dependency(
    stratum: Stratum, spec: ChunkSpec, name: str, keys: tuple[str | int, ...]
) -> MorphError:
    return MorphError(
        f"Chunk {spec.name} references a dependency {name} that is not defined in stratum "
        f"{stratum.name} ({stratum.path})",
        reason=Reason.GRAPH,
        hint="Chunks depend on chunks of their own stratum; what other strata hold is named in "
        "the stratum's build-depends.",
        location=Location(stratum.path, keys=keys),
    )


def check_composition(
    definitions: Definitions, system: System, strata: Sequence[Stratum]
) -> list[MorphError]:
    """What is wrong with the set of strata that one system is built from.

    Nothing is said of a set that isn't complete.
    """
    paths = {stratum.path for stratum in strata}
    needed = [spec.morph for spec in system.strata]
    needed += [path for stratum in strata for path in stratum.build_depends]
    if not paths.issuperset(needed):
        return []
    errors = _chunk_conflicts(definitions, system, strata)
    errors += _stratum_conflicts(definitions, system, strata)
    specs = [spec for stratum in strata for spec in stratum.chunks]
    if specs and all(spec.build_mode is BuildMode.BOOTSTRAP for spec in specs):
        errors.append(
            MorphError(
                f"No non-bootstrap chunks found in system {system.name}",
                reason=Reason.GRAPH,
                hint="Bootstrap chunks never become part of a system, so it would be empty.",
                location=system.location,
            )
        )
    return errors


def _chunk_conflicts(
    definitions: Definitions, system: System, strata: Sequence[Stratum]
) -> list[MorphError]:
    """Two different chunks of one name: one error for each further one, with both places."""
    known: dict[str, ChunkSpec] = {}
    errors: list[MorphError] = []
    for stratum in strata:
        for spec in stratum.chunks:
            chunk = definitions.chunks.get(spec.morph) if spec.morph else None
            name = chunk.name if chunk else spec.name
            first = known.setdefault(name, spec)
            if first is not spec and origin_of(first) != origin_of(spec):
                errors.append(_chunk_conflict(system, name, first, spec))
    return errors


def _chunk_conflict(system: System, name: str, one: ChunkSpec, other: ChunkSpec) -> MorphError:
    fields = ("repo", "ref", "morph", "build-system")
    differing = [
        field
        for field, ours, theirs in zip(fields, origin_of(one), origin_of(other), strict=True)
        if ours != theirs
    ]

    def describe(places: Sequence[Location]) -> str:
        return (
            f"Multiple {name!r} chunks detected in system {system.name}: {places[0]} and "
            f"{places[1]} differ in {' and '.join(differing)}"
        )

    return PlacesError(
        describe,
        (one.location, other.location),
        reason=Reason.GRAPH,
        hint="A build can hold one chunk of a name. Rename one of them, or make them alike.",
        location=_listing(system, other.location.path, one.location.path),
    )


def _listing(system: System, *stratum_paths: str) -> Location:
    """Where a system lists the first that it does of some strata; else the system itself."""
    listed = {spec.morph: spec.location for spec in system.strata}
    return next((listed[path] for path in stratum_paths if path in listed), system.location)


def _stratum_conflicts(
    definitions: Definitions, system: System, strata: Sequence[Stratum]
) -> list[MorphError]:
    """Two strata that produce an artifact of the same name."""
    producers: dict[str, Stratum] = {}
    errors: list[MorphError] = []
    for stratum in strata:
        for artifact in stratum_artifacts(definitions, stratum):
            first = producers.setdefault(artifact, stratum)
            if first is not stratum:
                errors.append(_stratum_conflict(system, artifact, first, stratum))
    return errors


def _stratum_conflict(system: System, artifact: str, one: Stratum, other: Stratum) -> MorphError:
    def describe(places: Sequence[Location]) -> str:
        return (
            f"Multiple strata produce a {artifact!r} artifact in system {system.name}: "
            f"{places[0]} and {places[1]}"
        )

    return PlacesError(
        describe,
        [Location(stratum.path, keys=("name",)) for stratum in (one, other)],
        reason=Reason.GRAPH,
        hint="Give the strata different names, or the artifacts in their products.",
        location=_listing(system, other.path, one.path),
    )


def _rule_names(name: str, own: Iterable[SplitRule], defaults: Iterable[SplitRule]) -> set[str]:
    return {rule.artifact for rule in own} | {name + rule.artifact for rule in defaults}


def stratum_artifacts(definitions: Definitions, stratum: Stratum) -> set[str]:
    """The names of all artifacts that rules and assignments give a stratum."""
    names = _rule_names(stratum.name, stratum.products, definitions.defaults.stratum_rules)
    return names.union(target for spec in stratum.chunks for _, target in spec.artifacts)


def chunk_artifacts(definitions: Definitions, spec: ChunkSpec) -> set[str]:
    """The names of all artifacts that rules give a chunk."""
    chunk = definitions.chunk_of(spec)
    return _rule_names(chunk.name, chunk.products, definitions.defaults.chunk_rules)


def unknown_artifacts(
    definitions: Definitions, systems: Iterable[System], strata: Iterable[Stratum]
) -> list[MorphError]:
    """`artifacts` entries that name what no rule produces. They are without effect in a build.

    Entries of definitions that lack what they refer to are passed over.
    """
    errors: list[MorphError] = []
    for system in systems:
        for spec in system.strata:
            stratum = definitions.strata.get(spec.morph)
            if stratum is None or spec.artifacts is None:
                continue
            produced = stratum_artifacts(definitions, stratum)
            what = f"stratum {stratum.name}"
            for index, name in enumerate(spec.artifacts):
                if name not in produced:
                    keys = (*spec.location.keys, "artifacts", index)
                    errors.append(_unknown_artifact(system.path, keys, name, what, produced))
    for stratum in strata:
        for chunk in stratum.chunks:
            if chunk.artifacts and (not chunk.morph or chunk.morph in definitions.chunks):
                produced = chunk_artifacts(definitions, chunk)
                for name, _ in chunk.artifacts:
                    if name not in produced:
                        keys = (*chunk.location.keys, "artifacts", name)
                        what = f"chunk {chunk.name}"
                        errors.append(_unknown_artifact(stratum.path, keys, name, what, produced))
    return errors


def _unknown_artifact(
    path: str, keys: tuple[str | int, ...], name: str, what: str, produced: Collection[str]
) -> MorphError:
    return MorphError(
        f"No rule of {what} produces the artifact {name!r}",
        reason=Reason.DEFINITION,
        hint=f"It has {', '.join(sorted(produced))}.",
        location=Location(path, keys=keys),
    )
