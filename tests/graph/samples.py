"""A small set of definitions, typed by hand, for tests of the pure stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from morphlib.definitions.models import (
    STEPS,
    BuildMode,
    BuildSystem,
    Chunk,
    ChunkSpec,
    Defaults,
    Definitions,
    SplitRule,
    Stratum,
    StratumSpec,
    System,
)
from morphlib.errors import Location
from morphlib.graph.model import BuildGraph, Origin
from morphlib.graph.resolve import build_graph

DEFAULTS = Defaults(
    build_systems={
        "manual": BuildSystem("manual", {}),
        "autotools": BuildSystem(
            "autotools",
            {
                "configure": ("./configure",),
                "build": ("make",),
                "install": ("make install",),
            },
        ),
    },
    chunk_rules=(
        SplitRule("-devel", (r"(usr/)?include/.*", r"(usr/)?lib/.*\.a")),
        SplitRule("-runtime", (r".*",)),
    ),
    stratum_rules=(
        SplitRule("-devel", (r".*-devel",)),
        SplitRule("-runtime", (r".*-runtime",)),
    ),
)
SYSTEM = "systems/demo.morph"


def chunk(name: str, **fields: Any) -> Chunk:
    commands = fields.pop("commands", {})
    base = Chunk(
        path=f"chunks/{name}.morph",
        name=name,
        description="",
        build_system="manual",
        commands={step: commands.get(step, ()) for step in STEPS},
        max_jobs=None,
        devices=(),
        products=(),
        system_integration=(),
    )
    return replace(base, **fields)


def spec(name: str, *depends: str, **fields: Any) -> ChunkSpec:
    base = ChunkSpec(
        name=name,
        repo=f"up:{name}",
        ref="master",
        morph=f"chunks/{name}.morph",
        build_system=None,
        build_mode=BuildMode.STAGING,
        prefix="/usr",
        build_depends=depends,
        artifacts=(),
        submodules=(),
        unpetrify_ref=None,
        location=Location("strata/some.morph", keys=("chunks", 0)),
    )
    return replace(base, **fields)


def stratum(name: str, *chunks: ChunkSpec, depends: tuple[str, ...] = (), **fields: Any) -> Stratum:
    base = Stratum(
        path=f"strata/{name}.morph",
        name=name,
        description="",
        build_depends=tuple(f"strata/{other}.morph" for other in depends),
        products=(),
        chunks=chunks,
        location=Location(f"strata/{name}.morph"),
    )
    return replace(base, **fields)


def system(*strata: str, **fields: Any) -> System:
    base = System(
        path=SYSTEM,
        name="demo",
        description="",
        arch="x86_64",
        strata=tuple(
            StratumSpec(f"strata/{name}.morph", name, None, Location(SYSTEM)) for name in strata
        ),
        configuration_extensions=(),
        location=Location(SYSTEM),
    )
    return replace(base, **fields)


def definitions(
    system: System, *strata: Stratum, chunks: Mapping[str, Chunk] | None = None
) -> Definitions:
    """Definitions of these; chunks that are not given are empty ones."""
    named = dict(chunks or {})
    for one in strata:
        for entry in one.chunks:
            if entry.morph is not None:
                named.setdefault(entry.name, chunk(entry.name))
    return Definitions(
        version=8,
        defaults=DEFAULTS,
        systems={system.path: system},
        strata={one.path: one for one in strata},
        chunks={one.path: one for one in named.values()},
    )


def origins(defs: Definitions, trees: Mapping[str, str] | None = None) -> dict[Any, Origin]:
    """Made-up origins; `trees` overrides the tree of a chunk spec's name."""
    found = {}
    for one in defs.strata.values():
        for entry in one.chunks:
            tree = (trees or {}).get(entry.name, f"{len(entry.name):02d}".rjust(40, "e"))
            found[entry.repo, entry.ref] = Origin(
                entry.repo, f"git://host/{entry.name}", entry.ref, "c" * 40, tree
            )
    return found


ORIGIN = Origin("base:definitions", "git://host/definitions", "master", "d" * 40, "f" * 40)


def graph_of(defs: Definitions, trees: Mapping[str, str] | None = None) -> BuildGraph:
    return build_graph(defs, SYSTEM, ORIGIN, origins(defs, trees))


def demo() -> Definitions:
    """A bootstrap stratum and one on top of it."""
    return definitions(
        system("base", "core"),
        stratum(
            "base",
            spec("stage1", build_mode=BuildMode.BOOTSTRAP),
            spec("stage2", "stage1"),
        ),
        stratum("core", spec("zlib"), spec("tool", "zlib"), depends=("base",)),
    )
