"""From the words of a command line to build graphs: the way that most commands begin with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from morphlib.cache.graphs import GraphCache, graph_name
from morphlib.commands.common import aliases_of
from morphlib.commands.session import Session
from morphlib.definitions.names import sanitise
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import BuildGraph, Origin
from morphlib.graph.serial import graph_from_json, graph_to_json
from morphlib.sources.aliases import Aliases
from morphlib.sources.checkout import (
    DefinitionsSource,
    find_checkout,
    open_checkout,
    open_ref,
    path_in_checkout,
)
from morphlib.sources.mirrors import MirrorCache


@dataclass(frozen=True, slots=True)
class Workshop:
    """The stage objects that one run of the program works with."""

    session: Session
    aliases: Aliases
    mirrors: MirrorCache

    @classmethod
    def of(cls, session: Session) -> Workshop:
        settings = session.settings
        mirrors = MirrorCache(
            settings.cachedir / "gits",
            tarball_server=settings.tarball_server or "",
            no_git_update=settings.no_git_update,
            listener=session.listener,
        )
        return cls(session, aliases_of(settings), mirrors)

    def open_definitions(
        self, arguments: Sequence[str], *, root_relative: bool = False
    ) -> tuple[DefinitionsSource, tuple[str, ...]]:
        """Where the definitions come from, and the paths of the systems that are meant.

        They are those of the checkout around the working directory, or of --repo at --ref.
        """
        settings = self.session.settings
        if (settings.repo is None) != (settings.ref is None):
            raise MorphError(
                "--repo and --ref work together: both or neither must be given",
                reason=Reason.USAGE,
            )
        if settings.repo is not None and settings.ref is not None:
            source = open_ref(
                settings.repo, settings.ref, mirrors=self.mirrors, aliases=self.aliases
            )
            return source, tuple(sanitise(argument) for argument in arguments)
        root = find_checkout(Path.cwd())
        names = [sanitise(argument) for argument in arguments]
        if not root_relative:
            names = [path_in_checkout(root, name, Path.cwd()) for name in names]
        choice = settings.local_changes
        source = open_checkout(
            root, local_changes=choice, mirrors=self.mirrors, listener=self.session.listener
        )
        return source, tuple(names)

    def resolve(self, source: DefinitionsSource, paths: Sequence[str]) -> list[BuildGraph]:
        """The graphs of some systems, in the order of `paths`. Raises all errors at once.

        What a commit gives is kept: resolving it again reads one file.
        """
        self.session.status("Deciding on task order")
        origin = definitions_origin(source, self.aliases)
        cache = GraphCache(self.session.settings.cachedir / "graphs")
        names = [self._graph_name(source, origin, path) for path in paths]
        kept = [_read_graph(cache.get(name)) if name else None for name in names]
        graphs = [found.graph for found in kept if found is not None]
        if len(graphs) < len(kept):
            return self._resolve_anew(source, paths, origin, cache, names)
        for warning in dict.fromkeys(w for found in kept if found for w in found.warnings):
            self.session.warn(warning)
        return graphs

    def _graph_name(self, source: DefinitionsSource, origin: Origin, path: str) -> str | None:
        """What the graph of a system is kept under; None with local changes, which are not."""
        if source.changed:
            return None
        inputs = (origin.repo, origin.url, origin.ref, origin.commit, origin.tree, path)
        return graph_name([program_stamp(), *inputs, *self.aliases.as_settings()])

    def _resolve_anew(
        self,
        source: DefinitionsSource,
        paths: Sequence[str],
        origin: Origin,
        cache: GraphCache,
        names: Sequence[str | None],
    ) -> list[BuildGraph]:
        from morphlib.commands.resolution import Means, resolve_graphs
        from morphlib.sources.refcache import RefCache

        settings, listener = self.session.settings, self.session.listener
        server = settings.git_resolve_cache_server
        means = Means(
            mirrors=self.mirrors,
            aliases=self.aliases,
            cache=RefCache(settings.cachedir / "gits" / "trees.cache.json", listener=listener),
            server=settings.cache_server or "" if server is None else server,
            listener=listener,
        )
        warnings: list[str] = []

        def warn(text: str) -> None:
            warnings.append(text)
            self.session.warn(text)

        resolved = resolve_graphs(means, source, paths, origin, warn)
        # Of several systems nobody knows which of them a warning was about.
        if resolved.is_lasting and (len(paths) == 1 or not warnings):
            for graph, name in zip(resolved.graphs, names, strict=True):
                if name is not None:
                    cache.put(name, _write_graph(warnings, graph))
        return list(resolved.graphs)


@dataclass(frozen=True, slots=True)
class _Kept:
    warnings: tuple[str, ...]
    graph: BuildGraph


class _KeptForm(msgspec.Struct, frozen=True):
    """What is kept, as it is written."""

    warnings: tuple[str, ...]
    graph: msgspec.Raw


def _write_graph(warnings: Sequence[str], graph: BuildGraph) -> bytes:
    return msgspec.json.encode(_KeptForm(tuple(warnings), msgspec.Raw(graph_to_json(graph))))


def _read_graph(text: bytes | None) -> _Kept | None:
    """None for what is not there, or was not written by this program."""
    if text is None:
        return None
    try:
        form = msgspec.json.decode(text, type=_KeptForm)
        return _Kept(form.warnings, graph_from_json(form.graph))
    except (ValueError, msgspec.DecodeError):
        return None


def program_stamp() -> str:
    """A text that changes with the code that turns definitions into graphs."""
    here = Path(__file__).resolve().parent.parent
    stamps = []
    for folder in ("definitions", "graph", "sources", "commands"):
        with os.scandir(here / folder) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    stamps.append(f"{entry.name} {status.st_mtime_ns} {status.st_size}")
    return "\n".join(sorted(stamps))


def definitions_origin(source: DefinitionsSource, aliases: Aliases) -> Origin:
    """Where strata and systems come from, as their metadata says it.

    Of a checkout only what its commit determines: not its place on this disk, nor which branch
    happened to be checked out, so that a commit gives the same image everywhere.
    """
    if source.root is None:
        url = aliases.pull_url(source.repo)
        return Origin(source.repo, url, source.ref, source.commit, source.tree)
    is_local = urlsplit(source.repo).scheme in ("", "file")
    repo = "" if is_local else source.repo
    ref = f"{source.commit}+local-changes" if source.changed else source.commit
    return Origin(repo, repo, ref, source.commit, source.tree)
