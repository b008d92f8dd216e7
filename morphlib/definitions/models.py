"""The typed form of every definition. Frozen; defaults filled in; nothing here reads a file.

Paths are relative to the root of the definitions repository, with forward slashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from morphlib.errors import Location

#: One shell script. Bytes where the definition has a `!!binary` item that must pass unchanged.
Command = str | bytes

#: The fifteen steps, in the order in which they run (spec 6.6). The field of a definition is the
#: step's name followed by "-commands".
STEPS: tuple[str, ...] = tuple(
    prefix + group
    for group in ("configure", "build", "test", "install", "strip")
    for prefix in ("pre-", "", "post-")
)

#: Steps in which make runs in parallel.
PARALLEL_STEPS = frozenset({"pre-build", "build", "post-build"})

#: The values of a system's `arch` (spec 6.4): architecture -> (CPU of the triplet, ABI suffix).
ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "x86_32": ("i686", ""),
    "x86_64": ("x86_64", ""),
    "ppc64": ("ppc64", ""),
    "testarch": ("testarch", ""),
    "armv5l": ("armv5l", "eabi"),
    "armv7l": ("armv7l", "eabi"),
    "armv7lhf": ("armv7lhf", "eabi"),
    "armv7b": ("armv7b", "eabi"),
    "armv8l64": ("aarch64", ""),
    "armv8b64": ("aarch64_be", ""),
    "mips32l": ("mipsel", ""),
    "mips32b": ("mips", ""),
    "mips64l": ("mips64el", "abi64"),
    "mips64b": ("mips64", "abi64"),
}


class Kind(StrEnum):
    CHUNK = "chunk"
    STRATUM = "stratum"
    SYSTEM = "system"
    CLUSTER = "cluster"


class BuildMode(StrEnum):
    STAGING = "staging"  # in a root that holds the dependencies only
    BOOTSTRAP = "bootstrap"  # with the host's tools; never part of a stratum artifact
    TEST = "test"  # with the host's tools, but part of stratum artifacts


@dataclass(frozen=True, slots=True)
class SplitRule:
    """What matches one of `include` (regular expressions, anchored at the start only) goes into
    `artifact`: a full artifact name in a definition, a suffix in DEFAULTS."""

    artifact: str
    include: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Device:
    type: str  # "c" or "b"
    filename: str
    permissions: str  # octal digits
    major: int
    minor: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Integration:
    """Scripts of one chunk artifact that run when a system is assembled."""

    artifact: str
    #: (prefix, script bodies), sorted by prefix
    scripts: tuple[tuple[str, tuple[Command, ...]], ...]


@dataclass(frozen=True, slots=True)
class BuildSystem:
    """A predefined build system: its lists per step; steps that are not named have no commands."""

    name: str
    commands: Mapping[str, tuple[Command, ...]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk's build instructions, with the lists of its build system filled in."""

    path: str  # of its file, or the pretend name CHUNK.morph where it has none
    name: str
    description: str
    build_system: str
    #: one entry for each of STEPS
    commands: Mapping[str, tuple[Command, ...]]
    max_jobs: int | None
    devices: tuple[Device, ...]
    products: tuple[SplitRule, ...]
    system_integration: tuple[Integration, ...]  # sorted by artifact


@dataclass(frozen=True, slots=True)
class ChunkSpec:
    """An entry of a stratum's `chunks`. Exactly one of `morph` and `build_system` is set."""

    name: str
    repo: str
    ref: str
    morph: str | None
    build_system: str | None
    build_mode: BuildMode
    prefix: str
    build_depends: tuple[str, ...]
    artifacts: tuple[tuple[str, str], ...]  # (chunk artifact, stratum artifact), sorted
    submodules: tuple[tuple[str, str], ...]  # (submodule name, url), sorted; empty under version 7
    unpetrify_ref: str | None
    location: Location


@dataclass(frozen=True, slots=True)
class Stratum:
    path: str
    name: str
    description: str
    build_depends: tuple[str, ...]  # paths of strata, sanitised
    products: tuple[SplitRule, ...]
    chunks: tuple[ChunkSpec, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class StratumSpec:
    """An entry of a system's `strata`. `artifacts` None selects every artifact of the stratum."""

    morph: str  # sanitised path
    name: str | None
    artifacts: tuple[str, ...] | None
    location: Location


@dataclass(frozen=True, slots=True)
class System:
    path: str
    name: str
    description: str
    arch: str
    strata: tuple[StratumSpec, ...]
    configuration_extensions: tuple[str, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class ClusterSystem:
    """An entry of a cluster's `systems`, or of the `subsystems` of another entry."""

    morph: str
    deploy: Mapping[str, Mapping[str, Any]]
    deploy_defaults: Mapping[str, Any]
    subsystems: tuple[ClusterSystem, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class Cluster:
    path: str
    name: str
    description: str
    systems: tuple[ClusterSystem, ...]
    location: Location


Morphology = Chunk | Stratum | System | Cluster


@dataclass(frozen=True, slots=True)
class Defaults:
    """What DEFAULTS says. The rules always hold at least one (a catch-all where there are none)."""

    build_systems: Mapping[str, BuildSystem]
    chunk_rules: tuple[SplitRule, ...]
    stratum_rules: tuple[SplitRule, ...]


@dataclass(frozen=True, slots=True)
class Definitions:
    """Definitions of one commit (or of a checkout with its local changes), checked.

    Holds everything (`load_all`), or what some systems reach (`load_systems`).
    """

    version: int
    defaults: Defaults
    systems: Mapping[str, System] = field(default_factory=dict)  # by path
    strata: Mapping[str, Stratum] = field(default_factory=dict)
    chunks: Mapping[str, Chunk] = field(default_factory=dict)  # chunk files only
    clusters: Mapping[str, Cluster] = field(default_factory=dict)

    def chunk_of(self, spec: ChunkSpec) -> Chunk:
        """The build instructions of a chunk spec: its file's, or its build system's alone."""
        if spec.morph is not None:
            return self.chunks[spec.morph]
        assert spec.build_system is not None
        system = self.defaults.build_systems[spec.build_system]
        return Chunk(
            path=f"{spec.name}.morph",
            name=spec.name,
            description="",
            build_system=system.name,
            commands={step: system.commands.get(step, ()) for step in STEPS},
            max_jobs=None,
            devices=(),
            products=(),
            system_integration=(),
        )
