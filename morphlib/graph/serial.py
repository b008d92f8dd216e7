"""The build graph as JSON, and back."""

from __future__ import annotations

import msgspec

from morphlib.graph.model import BuildGraph, Source


class _Document(msgspec.Struct, frozen=True):
    root: str
    arch: str
    environment: dict[str, str]
    sources: tuple[Source, ...]


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(_Document)


def graph_to_json(graph: BuildGraph) -> bytes:
    """The same text for equal graphs."""
    return _encoder.encode(
        _Document(graph.root, graph.arch, dict(graph.environment), graph.sources)
    )


def graph_from_json(text: bytes) -> BuildGraph:
    """What `graph_to_json` wrote. Raises msgspec.DecodeError where it is something else."""
    document = _decoder.decode(text)
    return BuildGraph(document.root, document.arch, document.environment, document.sources)
