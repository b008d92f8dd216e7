"""Which stratum each layer of a system comes from: MORPH_LAYERS, for who writes them one by one.

The layers, stacked in this order, come to what the strata of the system were before the system was
integrated and configured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from morphlib.build.layers import Layer
from morphlib.build.slots import BusySlots
from morphlib.build.staging import prepare_layers
from morphlib.build.workbench import Workbench
from morphlib.deploy.model import Prepared
from morphlib.deploy.tree import describe_devices
from morphlib.events import AnyEvent
from morphlib.graph.model import ArtifactRef, BuildGraph, Source


@dataclass(frozen=True, slots=True)
class StratumLayers:
    """A stratum, by the name of its definition, and the layers of its chunks."""

    name: str
    layers: tuple[Layer, ...]


def chosen_by_stratum(graph: BuildGraph) -> dict[str, list[ArtifactRef]]:
    """Stratum -> the chunk artifacts that the system has of it, in the order of unpacking.

    A chunk is in one layer, that of the stratum which has it first.
    """
    owner: dict[str, str] = {}
    chosen: dict[str, dict[ArtifactRef, None]] = {}
    for dependency in graph.system.dependencies:
        stratum = graph.source(dependency)
        for ref in graph.content(stratum):
            name = owner.setdefault(ref.source, _name(stratum))
            chosen.setdefault(name, {})[ref] = None
    return {name: list(refs) for name, refs in chosen.items()}


def _name(stratum: Source) -> str:
    return stratum.definition or stratum.name


def stratum_layers(
    prepared: Prepared, tell: Callable[[AnyEvent], None]
) -> tuple[StratumLayers, ...] | None:
    """The layers of a deployment's system. None if the cache lacks chunks of it, or if there are
    so many that some have to be made one. Raises MorphError."""
    build = prepared.build
    chosen = chosen_by_stratum(build.graph)
    if not _are_cached(prepared, [ref for refs in chosen.values() for ref in refs]):
        return None
    bench = Workbench(build, 0, BusySlots(1), tell)
    found = {name: bench.layers_of(refs) for name, refs in chosen.items()}
    flat = [layer for layers in found.values() for layer in layers]
    fit = prepare_layers(flat)
    if len(fit) != len(flat):
        return None
    rest = iter(fit)
    return tuple(
        StratumLayers(name, tuple(next(rest) for _ in layers)) for name, layers in found.items()
    )


def _are_cached(prepared: Prepared, refs: Sequence[ArtifactRef]) -> bool:
    wanted: dict[str, list[str]] = {}
    for ref in refs:
        source = prepared.build.graph.source(ref)
        wanted.setdefault(source.key, []).append(source.filename(ref.name))
    return wanted.keys() <= prepared.build.store.check_many(wanted)


def layers_table(strata: Sequence[StratumLayers]) -> bytes:
    """The JSON that MORPH_LAYERS names."""
    document = [
        {
            "stratum": stratum.name,
            "trees": [
                {
                    "root": str(layer.root),
                    "has-top": layer.index.has_top,
                    "devices": describe_devices(layer.index.devices.values()),
                }
                for layer in stratum.layers
            ],
        }
        for stratum in strata
    ]
    return json.dumps(document, indent=2).encode()
