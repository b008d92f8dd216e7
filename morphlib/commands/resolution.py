"""Working out build graphs from definitions, where none was kept from an earlier run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from morphlib.definitions import check_system, load_systems, locate_errors
from morphlib.definitions.models import Definitions
from morphlib.errors import MorphError, raise_all
from morphlib.events import Listener
from morphlib.graph.model import BuildGraph, Origin
from morphlib.graph.resolve import build_graph
from morphlib.sources.aliases import Aliases
from morphlib.sources.checkout import DefinitionsSource
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.pool import resolve_refs
from morphlib.sources.refcache import RefCache

_SHA1 = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Means:
    """What refs are resolved with. `server` is the URL of a cache server, "" for none."""

    mirrors: MirrorCache
    aliases: Aliases
    cache: RefCache
    server: str
    listener: Listener


@dataclass(frozen=True, slots=True)
class Resolved:
    """Graphs of systems. They are lasting if no ref in them can come to mean something else."""

    graphs: tuple[BuildGraph, ...]
    is_lasting: bool


def resolve_graphs(
    means: Means,
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
        origins = _resolve_origins(means, definitions)
        graphs = tuple(build_graph(definitions, path, origin, origins) for path in paths)
    except MorphError as error:
        raise locate_errors(source.reader, error) from None
    return Resolved(graphs, all(_SHA1.fullmatch(ref) for _, ref in origins))


def _resolve_origins(means: Means, definitions: Definitions) -> dict[tuple[str, str], Origin]:
    wanted = dict.fromkeys(
        (spec.repo, spec.ref) for stratum in definitions.strata.values() for spec in stratum.chunks
    )
    remote = None
    if means.server:
        from morphlib.sources.remote import RemoteResolver

        remote = RemoteResolver(means.server, listener=means.listener)
    refs = resolve_refs(
        list(wanted),
        mirrors=means.mirrors,
        aliases=means.aliases,
        cache=means.cache,
        remote=remote,
    )
    return {
        pair: Origin(repo=r.repo, url=r.url, ref=r.ref, commit=r.commit, tree=r.tree)
        for pair, r in refs.items()
    }
