"""From the words of a command line to build graphs: the way that most commands begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from morphlib.commands.common import aliases_of
from morphlib.commands.session import Session
from morphlib.definitions import check_system, load_systems, locate_errors, sanitise
from morphlib.definitions.models import Definitions
from morphlib.errors import MorphError, Reason, raise_all
from morphlib.graph.model import BuildGraph, Origin
from morphlib.graph.resolve import build_graph
from morphlib.sources.aliases import Aliases
from morphlib.sources.checkout import (
    DefinitionsSource,
    find_checkout,
    open_checkout,
    open_ref,
    path_in_checkout,
)
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.pool import resolve_refs
from morphlib.sources.refcache import RefCache


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
        """The graphs of some systems, in the order of `paths`. Raises all errors at once."""
        self.session.status("Deciding on task order")
        definitions = load_systems(source.reader, paths, warn=self.session.warn)
        errors = [error for path in paths for error in check_system(definitions, path)]
        try:
            raise_all(dict.fromkeys(errors))
            origins = self._origins(definitions)
            origin = definitions_origin(source, self.aliases)
            return [build_graph(definitions, path, origin, origins) for path in paths]
        except MorphError as error:
            raise locate_errors(source.reader, error) from None

    def _origins(self, definitions: Definitions) -> dict[tuple[str, str], Origin]:
        settings = self.session.settings
        wanted = list(
            dict.fromkeys(
                (spec.repo, spec.ref)
                for stratum in definitions.strata.values()
                for spec in stratum.chunks
            )
        )
        server = settings.git_resolve_cache_server
        if server is None:
            server = settings.cache_server
        remote = None
        if server:
            from morphlib.sources.remote import RemoteResolver

            remote = RemoteResolver(server, listener=self.session.listener)
        cache = RefCache(
            settings.cachedir / "gits" / "trees.cache.json", listener=self.session.listener
        )
        refs = resolve_refs(
            wanted, mirrors=self.mirrors, aliases=self.aliases, cache=cache, remote=remote
        )
        return {
            pair: Origin(repo=r.repo, url=r.url, ref=r.ref, commit=r.commit, tree=r.tree)
            for pair, r in refs.items()
        }


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
