"""What a builder process has at hand while it builds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from morphlib import events
from morphlib.build.area import Area, read_tail
from morphlib.build.layers import Layer, discard_layer, layer_from_tar, load_layer
from morphlib.build.leavings import Leavings
from morphlib.build.model import BuildContext, BuildOptions
from morphlib.build.slots import BusySlots
from morphlib.build.staging import fold_layers
from morphlib.cache.store import ArtifactStore
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import ArtifactRef, BuildGraph, Source

#: So many layers are folded into one: each costs a little with every file that is looked for.
_FOLDED = 32


@dataclass(slots=True)
class Workbench:
    """One builder's means. `tell` reaches whoever shows the build."""

    context: BuildContext
    slot: int
    busy: BusySlots
    tell: Callable[[events.AnyEvent], None]
    #: weaker ways that had to be taken, told once each and recorded with the artifact
    fallbacks: set[str] = field(default_factory=set)
    leavings: Leavings = field(default_factory=Leavings)
    #: layers that were looked at before; the running build keeps them from being collected
    _layers: dict[tuple[str, ...], Layer] = field(default_factory=dict)
    #: what chunks of a stratum are built on, by what comes with the strata below
    _below: dict[tuple[ArtifactRef, ...], list[Layer]] = field(default_factory=dict)

    @property
    def graph(self) -> BuildGraph:
        return self.context.graph

    @property
    def store(self) -> ArtifactStore:
        return self.context.store

    @property
    def options(self) -> BuildOptions:
        return self.context.options

    def say(self, source: Source, text: str) -> None:
        """Tell a line about a source."""
        self.tell(events.Status(text=text, source=source.name))

    def warn(self, text: str) -> None:
        self.tell(events.Status(text=text, level="warning"))

    def keep_failed(self, source: Source, area: Area, step: str, status: int, log: Path) -> str:
        """Keep the staging area of a failed build and tell of it.

        Returns the command that steps into its sandbox.
        """
        shell = area.keep_for_debugging(log, self.options.program)
        self.tell(
            events.SourceFailed(
                name=source.name,
                key=source.key,
                step=step,
                exit_code=status,
                log=str(area.log),
                tail=tuple(read_tail(log)),
                staging=str(area.path),
                shell=shell,
            )
        )
        return shell

    def note_fallback(self, why: str | None) -> None:
        """A weaker way is taken: loud the first time, and recorded with what is built."""
        if why is not None and why not in self.fallbacks:
            self.fallbacks.add(why)
            self.warn(f"{why}: staging areas are made file by file, which is slow")

    def layers_of(self, refs: Iterable[ArtifactRef]) -> list[Layer]:
        """The layers that hold some chunk artifacts: one a chunk, in the order in which the chunks
        first occur."""
        chosen: dict[str, list[str]] = {}
        for ref in refs:
            chosen.setdefault(ref.source, []).append(ref.name)
        return [self._layer(self.graph.source(i), names) for i, names in chosen.items()]

    def layers_for(self, source: Source) -> list[Layer]:
        """The layers that a chunk is built on.

        What comes with strata is the same for all chunks of a stratum, so it is folded: a chunk's
        cost hardly grows with what is below it.
        """
        staged = self.graph.staged(source)
        count = self.graph.staged_with_strata(source)
        shared = staged[:count]
        below = self._below.get(shared)
        if below is None:
            below = self._below[shared] = self.fold(self.layers_of(shared))
        return [*below, *self.layers_of(staged[count:])]

    def fold(self, layers: list[Layer]) -> list[Layer]:
        """The same layers, each full run of `_FOLDED` made into one.

        Runs begin at the front, where chunks have the same layers: most runs are made once.
        """
        full = len(layers) - len(layers) % _FOLDED
        runs = (tuple(layers[start : start + _FOLDED]) for start in range(0, full, _FOLDED))
        return [*(self._folded(run) for run in runs), *layers[full:]]

    def _folded(self, layers: tuple[Layer, ...]) -> Layer:
        names = tuple(layer.directory.name for layer in layers)
        folded = self._layers.get(names)
        if folded is None:
            # Named by a key that is in use as long as this is.
            digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:24]
            key = names[-1].partition(".")[0]
            folded = fold_layers(layers, self.options.layers / f"{key}.folded-{digest}.d")
            self._layers[names] = folded
        return folded

    def _layer(self, source: Source, artifacts: Sequence[str]) -> Layer:
        wanted = (source.id, *artifacts)
        layer = self._layers.get(wanted)
        if layer is None:
            directory = self.options.layers / layer_name(source, artifacts)
            layer = load_layer(directory) or self._unpack(source, artifacts, directory)
            self._layers[wanted] = layer
        return layer

    def _unpack(self, source: Source, artifacts: Sequence[str], directory: Path) -> Layer:
        """Make a layer of stored artifacts: it came from elsewhere, was cleared away or altered."""
        if directory.exists():
            self.warn(f"{directory} was altered; it is unpacked again")
            discard_layer(directory)
        names = [source.filename(artifact) for artifact in artifacts]
        if not self.store.check(source.key, names):
            raise MorphError(
                f"{source.kind} artifacts of {source.name} vanished or were damaged while they "
                "were needed",
                reason=Reason.CACHE,
                hint="Build again: they will be made anew.",
            )
        self.options.layers.mkdir(parents=True, exist_ok=True)
        if len(names) == 1:
            return layer_from_tar(self.store.path(names[0]), directory)
        parts = [directory.with_name(f"{name}.part{os.getpid()}") for name in names]
        try:
            layers = [
                layer_from_tar(self.store.path(name), part)
                for name, part in zip(names, parts, strict=True)
            ]
            return fold_layers(layers, directory)
        finally:
            for part in parts:
                discard_layer(part)


def layer_name(source: Source, artifacts: Sequence[str]) -> str:
    """The name of the directory that holds some artifacts of a chunk, unpacked."""
    if set(artifacts) == set(source.artifacts):
        return f"{source.key}.chunk.d"
    chosen = hashlib.sha256("\0".join(sorted(artifacts)).encode()).hexdigest()
    return f"{source.key}.chunk+{chosen[:16]}.d"
