"""From (repository, ref) as written in definitions to exact commits and trees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from morphlib.errors import MorphError, raise_all
from morphlib.sources.aliases import Aliases
from morphlib.sources.mirrors import MirrorCache
from morphlib.sources.model import SourceRef
from morphlib.sources.names import check_ref, check_url
from morphlib.sources.refcache import RefCache

if TYPE_CHECKING:
    from morphlib.sources.remote import RemoteResolver

Wanted = tuple[str, str]  # (repository, ref), both as written


def resolve_refs(
    wanted: Sequence[Wanted],
    *,
    mirrors: MirrorCache,
    aliases: Aliases,
    cache: RefCache,
    remote: RemoteResolver | None,
) -> dict[Wanted, SourceRef]:
    """Commit and tree of each (repository, ref).

    Asked in this order, each for what is still unknown: the cache of resolved refs (full commit
    ids only), mirrors that are there, the cache server in one request, and mirrors that have to be
    cloned for it. What is found is remembered in `cache`. Raises all failures at once.
    """
    cache.load()
    pairs = dict.fromkeys(wanted)
    known = ((pair, _look_up(pair, aliases, cache)) for pair in pairs)
    found = {pair: source for pair, source in known if source is not None}
    unknown = [pair for pair in pairs if pair not in found]
    if not unknown:
        return found
    errors: dict[Wanted, MorphError] = {}
    urls: dict[Wanted, str] = {}
    for repo, ref in unknown:
        try:
            urls[repo, ref] = check_url(aliases.pull_url(repo))
            check_ref(ref)
        except MorphError as error:
            errors[repo, ref] = error
    _resolve_present(urls, errors, found, mirrors)
    if remote is not None:
        rest = _remaining(urls, errors, found)
        answers = remote.resolve([(urls[pair], pair[1]) for pair in rest]) if rest else {}
        for pair in rest:
            answer = answers.get((urls[pair], pair[1]))
            if answer is not None:
                found[pair] = SourceRef(
                    pair[0], urls[pair], pair[1], commit=answer.commit, tree=answer.tree
                )
    _resolve_in_mirrors(_remaining(urls, errors, found), urls, errors, found, mirrors)
    for pair in unknown:
        if pair in found:
            cache.put(found[pair].repo, found[pair].commit, found[pair].tree)
    cache.save()
    raise_all(dict.fromkeys(errors[pair] for pair in unknown if pair in errors))
    return {pair: found[pair] for pair in pairs}


def _look_up(pair: Wanted, aliases: Aliases, cache: RefCache) -> SourceRef | None:
    repo, ref = pair
    tree = cache.get(repo, ref)
    if tree is None:
        return None
    return SourceRef(repo, aliases.pull_url(repo), ref, ref, tree)


def _remaining(
    urls: dict[Wanted, str], errors: dict[Wanted, MorphError], found: dict[Wanted, SourceRef]
) -> list[Wanted]:
    return [pair for pair in urls if pair not in found and pair not in errors]


def _resolve_present(
    urls: dict[Wanted, str],
    errors: dict[Wanted, MorphError],
    found: dict[Wanted, SourceRef],
    mirrors: MirrorCache,
) -> None:
    present: list[Wanted] = []
    for pair in _remaining(urls, errors, found):
        try:
            if mirrors.has(urls[pair]):
                present.append(pair)
        except MorphError as error:
            errors[pair] = error
    _resolve_in_mirrors(present, urls, errors, found, mirrors)


def _resolve_in_mirrors(
    pairs: Iterable[Wanted],
    urls: dict[Wanted, str],
    errors: dict[Wanted, MorphError],
    found: dict[Wanted, SourceRef],
    mirrors: MirrorCache,
) -> None:
    """Resolve in mirrors, cloned or updated where needed."""
    pairs = list(pairs)
    refs: dict[str, list[str]] = {}
    for pair in pairs:
        refs.setdefault(urls[pair], []).append(pair[1])
    obtained, failed = mirrors.try_obtain_many(refs)
    for pair in pairs:
        url = urls[pair]
        if url in failed:
            errors[pair] = failed[url]
            continue
        try:
            resolved = obtained[url].resolve(pair[1])
        except MorphError as error:
            errors[pair] = error
        else:
            found[pair] = SourceRef(pair[0], url, pair[1], resolved.commit, resolved.tree)
