"""Show what a cache key is made of, or why two differ ("why does this rebuild?").

  explain-key SYSTEM [COMPONENT]            the inputs of a component, or of the system
  explain-key KEY                           the inputs of what was built under that key
  explain-key KEY KEY                       what differs between two of them
  explain-key OLD..NEW SYSTEM [COMPONENT]   what differs between two refs of the definitions;
                                            without NEW: between OLD and the checkout as it is

A key may be shortened. Differences are followed through the dependencies down to where they begin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from morphlib.cache.store import ArtifactStore
from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session, format_json
from morphlib.commands.triplets import with_repo
from morphlib.errors import MorphError, Reason
from morphlib.graph.keys import (
    Difference,
    explain_difference,
    identities_of,
    identity_of,
    plain,
)
from morphlib.graph.model import BuildGraph, Source

_KEY = re.compile(r"[0-9a-f]{8,64}")
_USAGE = "usage: morph explain-key [OLD..NEW] SYSTEM [COMPONENT], or KEY [KEY]"


@dataclass(frozen=True, slots=True)
class Explained:
    """A key, the document that it is the digest of, and those of its dependencies."""

    key: str
    document: Mapping[str, Any]
    others: Mapping[str, Mapping[str, Any]]


def run(session: Session, arguments: Sequence[str]) -> None:
    match list(arguments):
        case [key] if _KEY.fullmatch(key):
            _show_documents(session, [_stored(session, key)])
        case [old, new] if _KEY.fullmatch(old) and _KEY.fullmatch(new):
            _show_differences(session, [(_stored(session, old), _stored(session, new))])
        case [refs, system, *component] if is_range(refs) and len(component) <= 1:
            old, _, new = refs.partition("..")
            before = _graph_at(session, old, system)
            after = _graph_at(session, new, system) if new else _graph(session, system)
            pairs = _pairs(before, after, component[0] if component else None)
            _show_differences(session, pairs)
        case [system, *component] if len(component) <= 1 and not is_range(system):
            graph = _graph(session, system)
            found = _find(graph, component[0] if component else None)
            _show_documents(session, [_explain(graph, source) for source in found])
        case _:
            raise MorphError(_USAGE, reason=Reason.USAGE)


def is_range(text: str) -> bool:
    """Is this OLD..NEW, and not the path of a system that leads through `..`?"""
    return ".." in text and not text.startswith((".", "/")) and "/.." not in text


def _graph(session: Session, system: str) -> BuildGraph:
    workshop = Workshop.of(session)
    source, paths = workshop.open_definitions([system])
    return workshop.resolve(source, paths)[0]


def _graph_at(session: Session, ref: str, system: str) -> BuildGraph:
    """The graph at a ref of the checkout around the working directory, or of --repo."""
    from morphlib.sources.checkout import find_checkout, path_in_checkout

    if session.settings.repo is not None:
        return _graph(with_repo(session, session.settings.repo, ref), system)
    root = find_checkout(Path.cwd())
    path = path_in_checkout(root, system, Path.cwd())
    return _graph(with_repo(session, f"file://{root}", ref), path)


def _find(graph: BuildGraph, component: str | None) -> Sequence[Source]:
    found = graph.named(component) if component is not None else (graph.system,)
    if not found:
        raise MorphError(
            f"Components {component} are not in {graph.system.path}", reason=Reason.NOT_FOUND
        )
    return found


def _explain(graph: BuildGraph, source: Source) -> Explained:
    return Explained(source.key, identity_of(graph, source), identities_of(graph))


def _pairs(
    before: BuildGraph, after: BuildGraph, component: str | None
) -> list[tuple[Explained, Explained]]:
    pairs = []
    for source in _find(after, component):
        old = before.by_id.get(source.id)
        if old is None:
            raise MorphError(
                f"{source.kind} {source.name} is new: the older definitions do not have it",
                reason=Reason.NOT_FOUND,
            )
        pairs.append((_explain(before, old), _explain(after, source)))
    return pairs


def _stored(session: Session, prefix: str) -> Explained:
    """What the cache keeps of a key; its dependencies' documents are read when looked up."""
    store = ArtifactStore(session.settings.cachedir / "artifacts", session.listener)
    stored = store.keys()
    keys = [key for key in stored if key.startswith(prefix)]
    if len(keys) != 1:
        what = "no source is" if not keys else f"{len(keys)} sources are"
        raise MorphError(f"{what} cached under key {prefix}", reason=Reason.NOT_FOUND)
    documents = _StoredDocuments(store)
    return Explained(keys[0], documents[keys[0]], documents)


class _StoredDocuments(dict[str, Mapping[str, Any]]):
    def __init__(self, store: ArtifactStore) -> None:
        super().__init__()
        self._store = store

    def __contains__(self, key: object) -> bool:
        try:
            return self[str(key)] is not None
        except MorphError:
            return False

    def __missing__(self, key: str) -> Mapping[str, Any]:
        try:
            meta = msgspec.json.decode(self._store.path(f"{key}.meta").read_bytes())
            document: Mapping[str, Any] = meta["cache-id"]
        except (OSError, msgspec.DecodeError, KeyError, TypeError):
            raise MorphError(
                f"the inputs behind {key} are not in {self._store.directory}",
                reason=Reason.NOT_FOUND,
            ) from None
        self[key] = document
        return document


def _show_documents(session: Session, explained: Sequence[Explained]) -> None:
    documents = [{"key": one.key, "inputs": plain(one.document)} for one in explained]
    if session.settings.json:
        session.print_json(documents)
        return
    for document in documents:
        session.print(f"{document['key']} is the SHA-256 of:")
        session.print(format_json(document["inputs"]))


def _show_differences(session: Session, pairs: Sequence[tuple[Explained, Explained]]) -> None:
    results = []
    for old, new in pairs:
        known = _Both(old.others, new.others)
        found = () if old.key == new.key else explain_difference(old.document, new.document, known)
        results.append((old, new, found))
    if session.settings.json:
        session.print_json(
            [{"old": o.key, "new": n.key, "differences": list(found)} for o, n, found in results]
        )
        return
    for old, new, found in results:
        title = new.document.get("artifact", new.document.get("name"))
        if old.key == new.key:
            session.print(f"{title}: the same key, {new.key}")
            continue
        session.print(f"{title}: {old.key} became {new.key} because")
        for difference in found:
            session.print(_describe(difference))


class _Both(Mapping[str, Mapping[str, Any]]):
    """Two mappings seen as one."""

    def __init__(
        self, one: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._one = one
        self._other = other

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        return self._one[key] if key in self._one else self._other[key]

    def __contains__(self, key: object) -> bool:
        return key in self._one or key in self._other

    def __iter__(self) -> Any:
        return iter({**self._one, **self._other})

    def __len__(self) -> int:
        return len({**self._one, **self._other})


def _describe(difference: Difference) -> str:
    lines = [f"  {difference.source}: {difference.field} differs"]
    if difference.old is not None or difference.new is not None:
        for sign, value in (("-", difference.old), ("+", difference.new)):
            text = "(absent)" if value is None else _compact(value)
            lines += [f"    {sign} {line}" for line in text.splitlines()]
    return "\n".join(lines)


def _compact(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value) or "(none)"
    return format_json(value)
