"""The JSON documents that travel with artifacts.

A chunk artifact holds only what its key determines, so that equal keys give equal bytes. Where it
came from, and which program made it, joins the metadata when a system is assembled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from morphlib.graph.keys import identity_of, plain
from morphlib.graph.model import BuildGraph, Source


def encode(document: Mapping[str, Any]) -> bytes:
    """JSON as people read it: indented by 4, names sorted, in UTF-8."""
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=4) + b"\n"


def artifact_metadata(
    source: Source, artifact: str, identity: Mapping[str, Any], contents: Sequence[str]
) -> dict[str, Any]:
    """What of an artifact follows from its key."""
    return {
        "artifact-name": artifact,
        "cache-id": plain(identity),
        "cache-key": source.key,
        "contents": list(contents),
        "kind": source.kind.value,
        "source-name": source.name,
    }


def provenance(source: Source, version: Mapping[str, str]) -> dict[str, Any]:
    """Where an artifact came from: not part of its key, the same for one definitions commit.

    A repository on the builder's own disk is named as written rather than by its place, which says
    nothing to others and differs between machines.
    """
    origin = source.origin
    return {
        "description": source.description,
        "morph-version": dict(version),
        "morphology": source.path,
        "original_ref": origin.ref,
        "repo": origin.repo if _is_local(origin.url) else origin.url,
        "repo-alias": origin.repo,
        "sha1": origin.commit,
    }


def _is_local(url: str) -> bool:
    return urlsplit(url).scheme in ("", "file")


def stratum_metadata(graph: BuildGraph, source: Source, version: Mapping[str, str]) -> bytes:
    contents = [ref.name for ref in graph.content(source)]
    document = artifact_metadata(source, source.name, identity_of(graph, source), contents)
    return encode(document | provenance(source, version))


def system_metadata(graph: BuildGraph, version: Mapping[str, str]) -> bytes:
    source = graph.system
    document = artifact_metadata(source, source.artifacts[0], identity_of(graph, source), [])
    return encode(document | provenance(source, version))
