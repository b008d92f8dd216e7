"""The build graph: one frozen value that prints and round-trips as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec

from morphlib.definitions.models import BuildMode, Command, Device, Kind


class Binary(msgspec.Struct, frozen=True, tag_field="type", tag="binary"):
    """A command that is bytes and not text. In JSON its bytes are in base64."""

    base64: bytes


#: A command as the graph keeps it; unlike `Command` it survives a trip through JSON.
Script = str | Binary


def script_of(command: Command) -> Script:
    return command if isinstance(command, str) else Binary(command)


def command_of(script: Script) -> Command:
    return script if isinstance(script, str) else script.base64


class ArtifactRef(msgspec.Struct, frozen=True):
    """One artifact of one source."""

    source: str  # the source's id
    name: str


class SplitRule(msgspec.Struct, frozen=True):
    """Files (or chunk artifacts) that match one of `include` first go into `artifact`."""

    artifact: str
    include: tuple[str, ...]


class DeviceNode(msgspec.Struct, frozen=True):
    type: str
    filename: str
    permissions: str
    major: int
    minor: int
    uid: int
    gid: int

    @classmethod
    def of(cls, device: Device) -> DeviceNode:
        return cls(
            type=device.type,
            filename=device.filename,
            permissions=device.permissions,
            major=device.major,
            minor=device.minor,
            uid=device.uid,
            gid=device.gid,
        )


class Integration(msgspec.Struct, frozen=True):
    """Scripts that run at system assembly: (prefix, bodies), sorted by prefix."""

    artifact: str
    scripts: tuple[tuple[str, tuple[Script, ...]], ...]


class Origin(msgspec.Struct, frozen=True):
    """Where a source comes from. Of these only `tree` counts for the key of a chunk."""

    repo: str  # as written
    url: str  # pull URL
    ref: str  # as written; for strata and systems that of the definitions
    commit: str
    tree: str


class ChunkRecipe(msgspec.Struct, frozen=True):
    """How one chunk is built."""

    build_mode: BuildMode
    prefix: str
    #: (step, scripts) for each of the fifteen steps, in the order in which they run
    steps: tuple[tuple[str, tuple[Script, ...]], ...]
    max_jobs: int | None
    devices: tuple[DeviceNode, ...]
    integration: tuple[Integration, ...]
    split_rules: tuple[SplitRule, ...]
    submodules: tuple[tuple[str, str], ...]  # URL overrides: (submodule name, url)
    #: bootstrap-mode artifacts among the dependencies that are staged: those of the same stratum
    bootstrap: tuple[ArtifactRef, ...]


class Source(msgspec.Struct, frozen=True):
    """Something that is built as one, under one key, and gives one or more artifacts."""

    id: str  # "KIND:NAME", unique in the graph
    kind: Kind
    name: str
    definition: str  # the name of the definition, where it differs from `name`: a stratum's own
    path: str  # of its definition
    description: str
    origin: Origin
    artifacts: tuple[str, ...]
    dependencies: tuple[ArtifactRef, ...]  # direct ones; their order counts
    key: str
    recipe: ChunkRecipe | None = None  # chunks only

    @property
    def is_bootstrap(self) -> bool:
        return self.recipe is not None and self.recipe.build_mode is BuildMode.BOOTSTRAP

    def filename(self, artifact: str) -> str:
        """The name under which an artifact is cached."""
        return f"{self.key}.{self.kind}.{artifact}"

    def filenames(self, artifacts: Iterable[str] | None = None) -> tuple[str, ...]:
        """The files of some artifacts; strata have metadata beside the list.

        Those of all of them, without `artifacts`, are what makes the source count as cached.
        """
        chosen = self.artifacts if artifacts is None else artifacts
        names = tuple(self.filename(artifact) for artifact in chosen)
        if self.kind is Kind.STRATUM:
            names += tuple(f"{name}.meta" for name in names)
        return names


@dataclass(frozen=True)
class BuildGraph:
    """Everything that a system needs, in build order: each source after all its dependencies.

    `root` is the id of the system's source. `environment` holds the variables of the build
    environment that count for every key.
    """

    root: str
    arch: str
    environment: Mapping[str, str]
    sources: tuple[Source, ...]

    @cached_property
    def by_id(self) -> Mapping[str, Source]:
        return {source.id: source for source in self.sources}

    def source(self, ref: ArtifactRef | str) -> Source:
        return self.by_id[ref if isinstance(ref, str) else ref.source]

    @property
    def system(self) -> Source:
        return self.by_id[self.root]

    def named(self, name: str) -> tuple[Source, ...]:
        """The sources that a user calls `name`: a chunk, the system, or a stratum's artifacts."""
        return tuple(s for s in self.sources if name in (s.name, s.definition))

    def reachable(self, roots: Iterable[str]) -> tuple[Source, ...]:
        """The sources that `roots` (ids) need, themselves included, in build order."""
        wanted: set[str] = set()
        queue = list(roots)
        while queue:
            current = queue.pop()
            if current not in wanted:
                wanted.add(current)
                queue.extend(ref.source for ref in self.by_id[current].dependencies)
        return tuple(source for source in self.sources if source.id in wanted)

    @cached_property
    def _closures(self) -> Mapping[str, Mapping[ArtifactRef, None]]:
        """Each source's recursive chunk artifacts, in the order of a depth-first walk *from it*.

        That order depends on nothing outside the source's own dependencies, as its key does: the
        same chunk sees the same files whatever system it is built for.
        """
        closures: dict[str, dict[ArtifactRef, None]] = {}
        bits = {ref: 1 << number for number, (_, ref) in enumerate(self.walk())}
        masks: dict[str, int] = {}
        for source in self.sources:
            closure: dict[ArtifactRef, None] = {}
            mask = 0
            for ref in source.dependencies:
                # Most artifacts of a stratum lead to the same chunks: skip what brings nothing.
                if masks[ref.source] & ~mask:
                    closure.update(closures[ref.source])
                    mask |= masks[ref.source]
                mask |= bits[ref]
                if self.by_id[ref.source].kind is Kind.CHUNK:
                    closure[ref] = None
            closures[source.id] = closure
            masks[source.id] = mask
        return closures

    @cached_property
    def _bootstrap_artifacts(self) -> frozenset[ArtifactRef]:
        return frozenset(ref for source, ref in self.walk() if source.is_bootstrap)

    def staged(self, source: Source) -> tuple[ArtifactRef, ...]:
        """The chunk artifacts that `source` is built with, in the order in which they are unpacked.

        These are all its recursive dependencies; of the bootstrap-mode ones only what the chunk may
        see, which are those of its own stratum.
        """
        found = self._staged.get(source.id)
        if found is None:
            found = tuple(self._closures[source.id])
            if not self._bootstrap_artifacts.isdisjoint(found):
                hidden = self._bootstrap_artifacts.difference(
                    source.recipe.bootstrap if source.recipe else ()
                )
                found = tuple(ref for ref in found if ref not in hidden)
            self._staged[source.id] = found
        return found

    @cached_property
    def _staged(self) -> dict[str, tuple[ArtifactRef, ...]]:
        return {}

    @cached_property
    def _of_strata(self) -> dict[tuple[str, ...], frozenset[ArtifactRef]]:
        return {}

    def staged_with_strata(self, source: Source) -> int:
        """How many of `staged(source)`, counted from the first, come with the strata that it is
        built with: the same ones for all chunks of a stratum."""
        strata = tuple(
            ref.source for ref in source.dependencies if self.by_id[ref.source].kind is Kind.STRATUM
        )
        if strata not in self._of_strata:
            closures = (self._closures[source_id] for source_id in strata)
            self._of_strata[strata] = frozenset().union(*closures)
        reached = self._of_strata[strata]
        count = 0
        for ref in self.staged(source):
            if ref not in reached:
                break
            count += 1
        return count

    def content(self, stratum: Source) -> tuple[ArtifactRef, ...]:
        """The chunk artifacts that make up a stratum artifact, bootstrap ones left out."""
        assert stratum.kind is Kind.STRATUM
        return tuple(
            ref
            for ref in stratum.dependencies
            if self.by_id[ref.source].kind is Kind.CHUNK and not self.by_id[ref.source].is_bootstrap
        )

    def walk(self) -> Iterator[tuple[Source, ArtifactRef]]:
        """Every artifact of every source, in build order."""
        for source in self.sources:
            for artifact in source.artifacts:
                yield source, ArtifactRef(source.id, artifact)

    def needed(self) -> Iterator[tuple[Source, ArtifactRef]]:
        """The artifacts that the system needs, its own included, in build order.

        Artifacts of needed sources are left out if nothing depends on them: they are built along
        with the others, but nothing is made of them.
        """
        used = {ref for source in self.sources for ref in source.dependencies}
        for source, ref in self.walk():
            if ref in used or source.id == self.root:
                yield source, ref
