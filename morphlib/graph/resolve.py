"""From checked definitions and resolved refs to the build graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from morphlib.definitions.models import (
    STEPS,
    Chunk,
    ChunkSpec,
    Definitions,
    Kind,
    Stratum,
)
from morphlib.errors import MorphError, Reason, raise_all
from morphlib.graph.keys import digest, environment_of, key_document
from morphlib.graph.model import (
    ArtifactRef,
    BuildGraph,
    ChunkRecipe,
    DeviceNode,
    Integration,
    Origin,
    Source,
    script_of,
)
from morphlib.graph.rules import StratumSplit, artifact_names, chunk_rules, selected

#: (repository as written, ref as written) -> where that is
Origins = Mapping[tuple[str, str], Origin]


@dataclass(slots=True)
class _ChunkDraft:
    """A chunk while the graph is being made: what its strata say of it comes together here."""

    spec: ChunkSpec
    chunk: Chunk
    strata: list[str] = field(default_factory=list)  # paths of the strata that list it
    depends: dict[str, None] = field(default_factory=dict)  # ids of chunk sources, in order


def build_graph(
    definitions: Definitions, system_path: str, origin: Origin, chunk_origins: Origins
) -> BuildGraph:
    """The graph of one system.

    `definitions` must be checked (`check_system`). `origin` says where the definitions come from;
    `chunk_origins` holds every (repo, ref) of a chunk spec. Sources that the system does not need
    are left out. Raises MorphError for dependencies that go in a circle, and for chunks that two
    strata want built in different ways.
    """
    return _Resolver(definitions, system_path, origin, chunk_origins).graph()


class _Resolver:
    def __init__(
        self, definitions: Definitions, system_path: str, origin: Origin, origins: Origins
    ) -> None:
        self.definitions = definitions
        self.system = definitions.systems[system_path]
        self.origin = origin
        self.origins = origins
        self.environment = environment_of(self.system.arch)
        self.splits: dict[str, StratumSplit] = {}
        self.drafts: dict[str, _ChunkDraft] = {}  # by chunk source id
        self.ids: dict[tuple[str, str], str] = {}  # (stratum path, spec name) -> chunk source id
        self.drafted: dict[str, Source] = {}

    def graph(self) -> BuildGraph:
        paths = self._reached_strata()
        for path in paths:
            stratum = self.definitions.strata[path]
            self.splits[path] = StratumSplit(stratum, self.definitions.defaults.stratum_rules)
            self._draft_chunks(path, stratum)
        self._draft_dependencies(paths)
        for chunk_id, draft in self.drafts.items():
            self.drafted[chunk_id] = self._chunk_source(chunk_id, draft)
        for path in paths:
            self._add_strata(path)
        root = self._system_source()
        self.drafted[root.id] = root
        return self._finish(root)

    def _reached_strata(self) -> list[str]:
        """Paths of the strata that the system needs, in the order in which they are met."""
        paths = dict.fromkeys(spec.morph for spec in self.system.strata)
        queue = list(paths)
        for path in queue:  # grows while it is walked
            for needed in self.definitions.strata[path].build_depends:
                if needed not in paths:
                    paths[needed] = None
                    queue.append(needed)
        return list(paths)

    def _draft_chunks(self, path: str, stratum: Stratum) -> None:
        errors = []
        for spec in stratum.chunks:
            chunk = self.definitions.chunk_of(spec)
            chunk_id = f"{Kind.CHUNK}:{chunk.name}"
            self.ids[path, spec.name] = chunk_id
            draft = self.drafts.setdefault(chunk_id, _ChunkDraft(spec, chunk))
            draft.strata.append(path)
            if _identity(draft.spec) != _identity(spec):
                errors.append(_conflict(chunk.name, draft.spec, spec))
        raise_all(errors)

    def _draft_dependencies(self, paths: Sequence[str]) -> None:
        for path in paths:
            for spec in self.definitions.strata[path].chunks:
                draft = self.drafts[self.ids[path, spec.name]]
                for name in spec.build_depends:
                    draft.depends.setdefault(self.ids[path, name])

    def _chunk_source(self, chunk_id: str, draft: _ChunkDraft) -> Source:
        spec, chunk = draft.spec, draft.chunk
        rules = chunk_rules(chunk, self.definitions.defaults.chunk_rules)
        return Source(
            id=chunk_id,
            kind=Kind.CHUNK,
            name=chunk.name,
            definition=chunk.name,
            path=chunk.path,
            description=chunk.description,
            origin=self.origins[spec.repo, spec.ref],
            artifacts=artifact_names(rules),
            dependencies=(),
            key="",
            recipe=ChunkRecipe(
                build_mode=spec.build_mode,
                prefix=spec.prefix,
                steps=tuple(
                    (step, tuple(script_of(c) for c in chunk.commands.get(step, ())))
                    for step in STEPS
                ),
                max_jobs=chunk.max_jobs,
                devices=tuple(DeviceNode.of(device) for device in chunk.devices),
                integration=tuple(
                    Integration(
                        entry.artifact,
                        tuple((p, tuple(script_of(b) for b in bs)) for p, bs in entry.scripts),
                    )
                    for entry in chunk.system_integration
                ),
                split_rules=rules,
                submodules=spec.submodules,
                bootstrap=(),
            ),
        )

    def _stratum_refs(self, path: str) -> list[ArtifactRef]:
        return [ArtifactRef(f"{Kind.STRATUM}:{a}", a) for a in self.splits[path].artifacts]

    def _needed_strata(self, path: str) -> list[ArtifactRef]:
        """Every artifact of every stratum that a stratum is built with."""
        needed = self.definitions.strata[path].build_depends
        return [ref for other in needed for ref in self._stratum_refs(other)]

    def _chunk_refs(self, chunk_id: str) -> list[ArtifactRef]:
        return [ArtifactRef(chunk_id, name) for name in self.drafted[chunk_id].artifacts]

    def _chunk_dependencies(self, draft: _ChunkDraft) -> tuple[ArtifactRef, ...]:
        refs: dict[ArtifactRef, None] = {}
        for path in draft.strata:
            refs.update(dict.fromkeys(self._needed_strata(path)))
        for chunk_id in draft.depends:
            refs.update(dict.fromkeys(self._chunk_refs(chunk_id)))
        return tuple(refs)

    def _add_strata(self, path: str) -> None:
        stratum = self.definitions.strata[path]
        split = self.splits[path]
        contents: dict[str, dict[ArtifactRef, None]] = {name: {} for name in split.artifacts}
        for spec in stratum.chunks:
            for ref in self._chunk_refs(self.ids[path, spec.name]):
                target = split.artifact_for(spec, ref.name)
                if target is not None:
                    contents[target][ref] = None
        needed = self._needed_strata(path)
        for name, content in contents.items():
            source_id = f"{Kind.STRATUM}:{name}"
            self.drafted[source_id] = Source(
                id=source_id,
                kind=Kind.STRATUM,
                name=name,
                definition=stratum.name,
                path=path,
                description=stratum.description,
                origin=self.origin,
                artifacts=(name,),
                dependencies=tuple(dict.fromkeys([*needed, *content])),
                key="",
            )

    def _system_source(self) -> Source:
        refs: dict[ArtifactRef, None] = {}
        for spec in self.system.strata:
            for name in selected(spec, self.splits[spec.morph].artifacts):
                refs[ArtifactRef(f"{Kind.STRATUM}:{name}", name)] = None
        return Source(
            id=f"{Kind.SYSTEM}:{self.system.name}",
            kind=Kind.SYSTEM,
            name=self.system.name,
            definition=self.system.name,
            path=self.system.path,
            description=self.system.description,
            origin=self.origin,
            artifacts=(f"{self.system.name}-rootfs",),
            dependencies=tuple(refs),
            key="",
        )

    def _finish(self, root: Source) -> BuildGraph:
        """Put what the root needs in order and compute the keys on the way."""
        done: dict[str, Source] = {}
        edges: dict[str, tuple[ArtifactRef, ...]] = {}
        # the bootstrap-mode chunks that a source reaches, and the strata that list them
        reached: dict[str, dict[str, None]] = {}
        for source_id in self._build_order(root.id, edges):
            source = self.drafted[source_id]
            dependencies = edges[source_id]
            bootstrap: dict[str, None] = {}
            for ref in dependencies:
                bootstrap.update(reached[ref.source])
                if self.drafted[ref.source].is_bootstrap:
                    bootstrap[ref.source] = None
            reached[source_id] = bootstrap
            recipe = source.recipe
            if recipe is not None and bootstrap:
                mine = set(self.drafts[source_id].strata)
                visible = [b for b in bootstrap if mine & set(self.drafts[b].strata)]
                recipe = msgspec.structs.replace(
                    recipe, bootstrap=self._reached_artifacts(source_id, visible, edges)
                )
            source = msgspec.structs.replace(source, dependencies=dependencies, recipe=recipe)
            document = key_document(source, self.system.arch, self.environment, done)
            done[source_id] = msgspec.structs.replace(source, key=digest(document))
        return BuildGraph(
            root=root.id,
            arch=self.system.arch,
            environment=self.environment,
            sources=tuple(done.values()),
        )

    def _reached_artifacts(
        self, start: str, chunk_ids: Sequence[str], edges: Mapping[str, tuple[ArtifactRef, ...]]
    ) -> tuple[ArtifactRef, ...]:
        """The artifacts of some chunks that `start` depends on, directly or not."""
        wanted = set(chunk_ids)
        found: set[ArtifactRef] = set()
        seen = {start}
        queue = [start]
        while queue and wanted:
            for ref in edges[queue.pop()]:
                if ref.source in wanted:
                    found.add(ref)
                if ref.source not in seen:
                    seen.add(ref.source)
                    queue.append(ref.source)
        return tuple(ref for c in chunk_ids for ref in self._chunk_refs(c) if ref in found)

    def _build_order(self, root: str, edges: dict[str, tuple[ArtifactRef, ...]]) -> list[str]:
        """Ids in depth-first order, dependencies first. Fills `edges`; says which chunks circle."""
        order: list[str] = []
        state: dict[str, bool] = {}  # False: on the way, True: placed
        path: list[str] = []
        stack: list[tuple[str, int]] = [(root, 0)]
        while stack:
            source_id, position = stack.pop()
            if position == 0:
                if source_id in state:
                    if not state[source_id]:
                        raise self._cycle([*path[path.index(source_id) :], source_id])
                    continue
                state[source_id] = False
                path.append(source_id)
                draft = self.drafts.get(source_id)
                edges[source_id] = (
                    self._chunk_dependencies(draft)
                    if draft
                    else self.drafted[source_id].dependencies
                )
            refs = edges[source_id]
            while position < len(refs) and state.get(refs[position].source):
                position += 1
            if position < len(refs):
                stack.append((source_id, position + 1))
                stack.append((refs[position].source, 0))
            else:
                state[source_id] = True
                path.pop()
                order.append(source_id)
        return order

    def _cycle(self, ids: Sequence[str]) -> MorphError:
        names = [source_id.partition(":")[2] for source_id in ids]
        first = self.drafts.get(ids[0])
        return MorphError(
            f"Cyclic dependency between {' -> '.join(names)}",
            reason=Reason.GRAPH,
            hint="Take one of these build-depends out, or split a chunk in two.",
            location=first.spec.location if first else None,
        )


def _identity(spec: ChunkSpec) -> tuple[object, ...]:
    return (
        spec.name,
        spec.repo,
        spec.ref,
        spec.morph,
        spec.build_system,
        spec.build_mode,
        spec.prefix,
        spec.submodules,
    )


def _conflict(name: str, one: ChunkSpec, other: ChunkSpec) -> MorphError:
    fields = ("name", "repo", "ref", "morph", "build-system", "build-mode", "prefix", "submodules")
    differing = [
        field
        for field, a, b in zip(fields, _identity(one), _identity(other), strict=True)
        if a != b
    ]
    return MorphError(
        f"Multiple '{name}' chunks detected: {one.location} and {other.location} "
        f"differ in {', '.join(differing)}",
        reason=Reason.GRAPH,
        hint="A build can hold one chunk of a name. Rename one of them, or make them alike.",
        location=other.location,
    )
