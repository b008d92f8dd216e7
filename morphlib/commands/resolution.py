"""Working out build graphs from definitions, where none was kept from an earlier run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morphlib.definitions import check_system, load_systems, locate_errors
from morphlib.definitions.models import Definitions
from morphlib.errors import MorphError, raise_all
from morphlib.graph.model import BuildGraph, Origin
from morphlib.graph.resolve import build_graph
from morphlib.sources.checkout import DefinitionsSource
from morphlib.sources.pool import resolve_refs
from morphlib.sources.refcache import RefCache

if TYPE_CHECKING:
    from morphlib.commands.resolving import Workshop

_SHA1 = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Resolved:
    """Graphs of systems. They are lasting if no ref in them can come to mean something else."""

    graphs: tuple[BuildGraph, ...]
    is_lasting: bool


def resolve_graphs(
    workshop: Workshop,
    source: DefinitionsSource,
    paths: Sequence[str],
    origin: Origin,
    warn: Callable[[str], None],
) -> Resolved:
    """The graphs of some systems, in the order of `paths`. Raises all errors at once."""
    definitions = load_systems(source.reader, paths, warn=warn)
    errors = [error for path in paths for error in check_system(definitions, path)]
    try:
        raise_all(dict.fromkeys(errors))
        origins = _resolve_origins(workshop, definitions)
        graphs = tuple(build_graph(definitions, path, origin, origins) for path in paths)
    except MorphError as error:
        raise locate_errors(source.reader, error) from None
    return Resolved(graphs, all(_SHA1.fullmatch(ref) for _, ref in origins))


def _resolve_origins(workshop: Workshop, definitions: Definitions) -> dict[tuple[str, str], Origin]:
    settings, listener = workshop.session.settings, workshop.session.listener
    wanted = dict.fromkeys(
        (spec.repo, spec.ref) for stratum in definitions.strata.values() for spec in stratum.chunks
    )
    server = settings.git_resolve_cache_server
    if server is None:
        server = settings.cache_server
    remote = None
    if server:
        from morphlib.sources.remote import RemoteResolver

        remote = RemoteResolver(server, listener=listener)
    cache = RefCache(settings.cachedir / "gits" / "trees.cache.json", listener=listener)
    refs = resolve_refs(
        list(wanted),
        mirrors=workshop.mirrors,
        aliases=workshop.aliases,
        cache=cache,
        remote=remote,
    )
    return {
        pair: Origin(repo=r.repo, url=r.url, ref=r.ref, commit=r.commit, tree=r.tree)
        for pair, r in refs.items()
    }
