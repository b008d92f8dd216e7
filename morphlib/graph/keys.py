"""Cache keys: the SHA-256 of one canonical JSON document that holds every input.

The document is UTF-8 JSON with sorted names and no blanks. It can be printed and compared, so that
"why does this rebuild?" has an answer (`explain_difference`).

What is in it and what is not:

* A chunk's source counts by its git tree alone. Rebasing, rewording a message or moving the
  repository builds nothing again.
* Dependencies count by artifact name *and* key: two artifacts of one source share the key.
* The number of make jobs, compiler caches and places on disk don't count: they must not change
  what is built. Descriptions don't count either, so they are not in chunk artifacts.
* The name of a chunk counts, since it is in the paths that the build sees (/NAME.build).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from morphlib.definitions.models import ARCHITECTURES, Kind
from morphlib.graph.model import BuildGraph, Source

#: Raised when the meaning of the documents changes. 1 was the format of the original program, which
#: hashed bare texts without framing.
FORMAT_VERSION = 2
#: Raised when equal chunk documents would be built into something else than before.
CHUNK_VERSION = 2
STRATUM_VERSION = 2
SYSTEM_VERSION = 3

_encoder = msgspec.json.Encoder(order="sorted")


def environment_of(arch: str) -> dict[str, str]:
    """The variables of the build environment that count for every key."""
    cpu, abi = ARCHITECTURES[arch]
    return {
        "LOGNAME": "tomjon",
        "MORPH_ARCH": arch,
        "TARGET": f"{cpu}-baserock-linux-gnu{abi}",
        "TARGET_STAGE1": f"{cpu}-bootstrap-linux-gnu{abi}",
        "USER": "tomjon",
        "USERNAME": "tomjon",
    }


def canonical_json(document: Mapping[str, Any]) -> bytes:
    return _encoder.encode(document)


def digest(document: Mapping[str, Any]) -> str:
    """The key (64 hex digits) of a key document."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def key_document(
    source: Source, arch: str, environment: Mapping[str, str], by_id: Mapping[str, Source]
) -> dict[str, Any]:
    """Every input of `source`. The keys of its dependencies must have been computed."""
    document: dict[str, Any] = {
        "metadata-version": FORMAT_VERSION,
        "kind": source.kind.value,
        "name": source.definition,
        "env": environment,
        "kids": [
            {"artifact": ref.name, "cache-key": by_id[ref.source].key}
            for ref in source.dependencies
        ],
    }
    match source.kind:
        case Kind.CHUNK:
            document.update(_chunk_inputs(source))
        case Kind.STRATUM:
            document["stratum-format-version"] = STRATUM_VERSION
            # Two artifacts of one stratum with equal contents must not share a key: they are
            # sources of their own, with metadata of their own.
            document["artifact"] = source.name
        case Kind.SYSTEM:
            document["arch"] = arch
            document["system-compatibility-version"] = SYSTEM_VERSION
        case Kind.CLUSTER:
            raise AssertionError("a cluster is not built")
    return document


def identity_of(graph: BuildGraph, source: Source) -> dict[str, Any]:
    """The document that the key of a source is the digest of."""
    return key_document(source, graph.arch, graph.environment, graph.by_id)


def identities_of(graph: BuildGraph) -> dict[str, Mapping[str, Any]]:
    """The key documents of all sources, by key."""
    return {source.key: identity_of(graph, source) for source in graph.sources}


def _chunk_inputs(source: Source) -> dict[str, Any]:
    recipe = source.recipe
    assert recipe is not None
    inputs: dict[str, Any] = {
        "chunk-compatibility-version": CHUNK_VERSION,
        "source": {"kind": "git", "tree": source.origin.tree},
        "build-mode": recipe.build_mode.value,
        "prefix": recipe.prefix,
        "max-jobs": recipe.max_jobs,
        "split-rules": recipe.split_rules,
        "devices": recipe.devices,
        "system-integration": recipe.integration,
        "bootstrap": [ref.name for ref in recipe.bootstrap],
    }
    for step, scripts in recipe.steps:
        inputs[f"{step}-commands"] = scripts
    return inputs


@dataclass(frozen=True, slots=True)
class Difference:
    """One input in which two key documents differ. `old` or `new` is None where it is absent."""

    source: str  # name of the source whose own input it is
    field: str
    old: Any
    new: Any


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """A key document as plain dictionaries, lists, text and numbers."""
    decoded: dict[str, Any] = msgspec.json.decode(canonical_json(document))
    return decoded


def explain_difference(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    identities: Mapping[str, Mapping[str, Any]],
) -> tuple[Difference, ...]:
    """The inputs in which two sources differ, followed down to where the difference begins.

    `old` and `new` are key documents; `identities` holds those of their dependencies by key, as far
    as they are known. A dependency that differs is not itself reported where its own document is
    known on both sides: what differs inside it is.
    """
    found: list[Difference] = []
    seen: set[tuple[str, str]] = set()
    queue = [(plain(old), plain(new))]
    for before, after in queue:  # grows while it is walked
        name = _title(after)
        for field in sorted((before.keys() | after.keys()) - {"kids"}):
            if before.get(field) != after.get(field):
                found.append(Difference(name, field, before.get(field), after.get(field)))
        ours, theirs = _kids(before), _kids(after)
        for artifact in [*theirs, *(artifact for artifact in ours if artifact not in theirs)]:
            one, other = ours.get(artifact), theirs.get(artifact)
            if one == other or (one and other and (one, other) in seen):
                continue
            if one and other and one in identities and other in identities:
                seen.add((one, other))
                queue.append((plain(identities[one]), plain(identities[other])))
            else:
                found.append(Difference(name, f"{DEPENDENCY}{artifact}", one, other))
        common = [artifact for artifact in ours if artifact in theirs]
        if common != [artifact for artifact in theirs if artifact in ours]:
            found.append(Difference(name, "order of dependencies", list(ours), list(theirs)))
    return tuple(found)


#: What the `field` of a difference begins with that is about one dependency; its name follows.
DEPENDENCY = "dependency "


def _title(document: Mapping[str, Any]) -> str:
    return str(document.get("artifact", document.get("name", "?")))


def _kids(document: Mapping[str, Any]) -> dict[str, str]:
    """artifact -> key of its source, for every dependency in order."""
    return {kid["artifact"]: kid["cache-key"] for kid in document.get("kids", ())}
