"""From documents that have the right shape to typed models, checking what shapes can't say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from morphlib.definitions.documents import BUILD_SYSTEM_STEPS
from morphlib.definitions.models import (
    STEPS,
    BuildMode,
    BuildSystem,
    Chunk,
    ChunkSpec,
    Cluster,
    ClusterSystem,
    Command,
    Defaults,
    Device,
    Integration,
    SplitRule,
    Stratum,
    StratumSpec,
    System,
)
from morphlib.definitions.names import normalise, sanitise
from morphlib.definitions.problems import Keys, Problem, Problems
from morphlib.errors import Location
from morphlib.text import has_control_characters

#: Where a kind has no default split rules, everything goes into one artifact without a suffix.
CATCH_ALL = (SplitRule("", (".*",)),)

_FIELDS = tuple((step, f"{step}-commands") for step in STEPS)
_NO_COMMANDS: tuple[Command, ...] = ()
_BUILD_MODES = {mode.value: mode for mode in BuildMode}


def _commands(items: Sequence[str | bytes | bool] | None) -> tuple[Command, ...]:
    """Commands as they run: YAML's booleans are the words true and false."""
    if not items:
        return _NO_COMMANDS
    return tuple(
        item if not isinstance(item, bool) else ("true" if item else "false") for item in items
    )


def _rules(items: Iterable[Mapping[str, Any]] | None) -> tuple[SplitRule, ...]:
    return tuple(SplitRule(item["artifact"], tuple(item["include"])) for item in items or ())


def make_defaults(document: Mapping[str, Any]) -> Defaults:
    """What DEFAULTS says. A build system `manual` without commands exists in any case."""
    systems = {"manual": BuildSystem("manual", {})}
    for name, lists in (document.get("build-systems") or {}).items():
        commands = {
            step: _commands(lists[f"{step}-commands"])
            for step in BUILD_SYSTEM_STEPS
            if f"{step}-commands" in lists
        }
        systems[name] = BuildSystem(name, commands)
    rules = document.get("split-rules") or {}
    return Defaults(
        build_systems=systems,
        chunk_rules=_rules(rules.get("chunk")) or CATCH_ALL,
        stratum_rules=_rules(rules.get("stratum")) or CATCH_ALL,
    )


def make_chunk(
    path: str, document: Mapping[str, Any], defaults: Defaults, problems: Problems
) -> Chunk | None:
    """A chunk with the lists of its build system filled in; None where that doesn't exist."""
    build_system = document.get("build-system", "manual")
    predefined = defaults.build_systems.get(build_system)
    if predefined is None:
        problems.add(
            ("build-system",),
            f"Undefined build system {build_system} in {problems.what}",
            _known_build_systems(defaults),
        )
        return None
    inherited = predefined.commands
    max_jobs = document.get("max-jobs")
    return Chunk(
        path=path,
        name=document["name"],
        description=document.get("description") or "",
        build_system=build_system,
        commands={
            step: (
                _commands(document[name]) if name in document else inherited.get(step, _NO_COMMANDS)
            )
            for step, name in _FIELDS
        },
        max_jobs=None if max_jobs is None else int(max_jobs),
        devices=tuple(_device(item) for item in document.get("devices") or ()),
        products=_rules(document.get("products")),
        system_integration=_integration(document.get("system-integration") or {}),
    )


def _device(item: Mapping[str, Any]) -> Device:
    return Device(
        type=item["type"],
        filename=item["filename"],
        permissions=item["permissions"],
        major=item["major"],
        minor=item["minor"],
        uid=item["uid"],
        gid=item["gid"],
    )


def _integration(document: Mapping[str, Mapping[str, Any]]) -> tuple[Integration, ...]:
    return tuple(
        Integration(
            artifact,
            tuple((prefix, _commands(scripts)) for prefix, scripts in sorted(by_prefix.items())),
        )
        for artifact, by_prefix in sorted(document.items())
    )


def make_stratum(
    path: str,
    document: Mapping[str, Any],
    defaults: Defaults,
    problems: Problems,
    *,
    version: int,
) -> Stratum:
    """A stratum; what is wrong between its fields goes to `problems`."""
    name = document["name"]
    specs = tuple(
        _chunk_spec(path, index, item, defaults, problems, version)
        for index, item in enumerate(document["chunks"])
    )
    needed = [normalise(sanitise(item["morph"])) for item in document.get("build-depends", ())]
    for index, other in enumerate(needed):
        if other == path:
            problems.add(
                ("build-depends", index),
                f"Stratum {name} build-depends on itself in {problems.what}",
            )
    if "build-depends" not in document and all(
        spec.build_mode is BuildMode.STAGING for spec in specs
    ):
        problems.add(
            (),
            f"Stratum {name} has no build dependencies in {problems.what}",
            "Name the strata that it is built with under build-depends, or write "
            "'build-depends: []' where it needs none.",
        )
    _check_unique_chunks(name, specs, problems)
    return Stratum(
        path=path,
        name=name,
        description=document.get("description") or "",
        build_depends=tuple(needed),
        products=_rules(document.get("products")),
        chunks=specs,
        location=Location(path),
    )


def _check_unique_chunks(name: str, specs: Sequence[ChunkSpec], problems: Problems) -> None:
    seen: set[str] = set()
    for index, spec in enumerate(specs):
        if spec.name in seen:
            problems.add(
                ("chunks", index, "name"), f"Duplicate chunk {spec.name} in stratum {name}"
            )
        seen.add(spec.name)


def _chunk_spec(
    path: str,
    index: int,
    item: Mapping[str, Any],
    defaults: Defaults,
    problems: Problems,
    version: int,
) -> ChunkSpec:
    keys: Keys = ("chunks", index)
    morph, build_system = item.get("morph"), item.get("build-system")
    name = item["name"]
    if morph is not None and build_system is not None:
        problems.add(
            (*keys, "build-system"),
            f"Conflicting fields 'morph' and 'build-system' for {name} in {problems.what}",
            "Keep one of them: a chunk file says its build system itself.",
        )
    elif morph is None and build_system is None:
        problems.add(
            keys,
            f"Chunk {name} has no build-system defined in {problems.what}",
            "Give it a 'build-system', or a chunk file with 'morph'.",
        )
    elif build_system is not None and build_system not in defaults.build_systems:
        problems.add(
            (*keys, "build-system"),
            f"Unknown build system for {name}.morph: {build_system}",
            _known_build_systems(defaults),
        )
    submodules = item.get("submodules") or {} if version >= 8 else {}
    return ChunkSpec(
        name=name,
        repo=item["repo"],
        ref=item["ref"],
        morph=None if morph is None else normalise(morph),
        build_system=build_system,
        build_mode=_build_mode(item.get("build-mode"), name, keys, problems),
        prefix=item.get("prefix") or "/usr",
        build_depends=tuple(item.get("build-depends", ())),
        artifacts=tuple(sorted((item.get("artifacts") or {}).items())),
        submodules=tuple(sorted((key, value["url"]) for key, value in submodules.items())),
        unpetrify_ref=_text_or_none(item.get("unpetrify-ref")),
        location=Location(path, keys=keys),
    )


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _build_mode(value: str | None, name: str, keys: Keys, problems: Problems) -> BuildMode:
    if value is None:
        return BuildMode.STAGING
    mode = _BUILD_MODES.get(value)
    if mode is None:
        text = f"Unknown build mode {value} of chunk {name} in {problems.what}: taken as staging"
        hint = f"Build modes are {', '.join(BuildMode)}."
        problems.warnings.append(Problem((*keys, "build-mode"), text, hint))
        return BuildMode.STAGING
    return mode


def _known_build_systems(defaults: Defaults) -> str:
    return f"DEFAULTS has {', '.join(sorted(defaults.build_systems))}."


def make_system(path: str, document: Mapping[str, Any], problems: Problems) -> System:
    """A system; what is wrong between its fields goes to `problems`."""
    name = document["name"]
    specs = []
    seen: set[str] = set()
    for index, item in enumerate(document["strata"]):
        morph = normalise(sanitise(item["morph"]))
        if morph in seen:
            problems.add(
                ("strata", index, "morph"),
                f"Duplicate stratum {item['morph']} in system {name} in {problems.what}",
            )
        seen.add(morph)
        artifacts = item.get("artifacts")
        specs.append(
            StratumSpec(
                morph=morph,
                name=item.get("name"),
                artifacts=None if artifacts is None else tuple(artifacts),
                location=Location(path, keys=("strata", index)),
            )
        )
    return System(
        path=path,
        name=name,
        description=document.get("description") or "",
        arch=document["arch"],
        strata=tuple(specs),
        configuration_extensions=tuple(document.get("configuration-extensions") or ()),
        location=Location(path),
    )


def make_cluster(path: str, document: Mapping[str, Any], problems: Problems) -> Cluster:
    """A cluster; what is wrong between its fields goes to `problems`."""
    systems = _cluster_systems(path, document["systems"], ("systems",))
    names = Counter(_deployment_names(systems))
    for name in names:
        if has_control_characters(name):
            problems.add(
                ("systems",), f"{name!r} can't name a deployment: it has control characters"
            )
    doubled = sorted(name for name, count in names.items() if count > 1)
    if doubled:
        listing = "".join(f"\n    {name}" for name in doubled)
        problems.add(
            ("systems",),
            f"Cluster {document['name']} has duplicate deployment names in {problems.what}:"
            f"{listing}",
        )
    return Cluster(
        path=path,
        name=document["name"],
        description=document.get("description") or "",
        systems=systems,
        location=Location(path),
    )


def _cluster_systems(
    path: str, items: Sequence[Mapping[str, Any]], keys: Keys
) -> tuple[ClusterSystem, ...]:
    return tuple(
        ClusterSystem(
            morph=normalise(sanitise(item["morph"])),
            deploy={name: value or {} for name, value in item["deploy"].items()},
            deploy_defaults=item.get("deploy-defaults") or {},
            subsystems=_cluster_systems(
                path, item.get("subsystems") or (), (*keys, index, "subsystems")
            ),
            location=Location(path, keys=(*keys, index)),
        )
        for index, item in enumerate(items)
    )


def _deployment_names(systems: Iterable[ClusterSystem]) -> Iterable[str]:
    for system in systems:
        yield from system.deploy
        yield from _deployment_names(system.subsystems)
