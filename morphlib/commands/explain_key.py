"""Show what a cache key is made of, or why two differ ("why does this rebuild?").

  explain-key SYSTEM [COMPONENT]            the inputs of a component, or of the system
  explain-key KEY                           the inputs of what was built under that key
  explain-key KEY KEY                       what differs between two of them
  explain-key OLD..NEW SYSTEM [COMPONENT]   what differs between two refs of the definitions;
                                            without NEW: between OLD and the checkout as it is

A key may be shortened, or be the name of a file in the cache. Differences are followed through
the dependencies down to where they begin.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphlib.cache.store import ArtifactStore
from morphlib.commands.differences import describe_difference
from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session, format_json
from morphlib.commands.stored import StoredDocuments, find_key, key_in
from morphlib.commands.triplets import with_repo
from morphlib.errors import MorphError, Reason
from morphlib.graph.keys import explain_difference, identities_of, identity_of, plain
from morphlib.graph.model import BuildGraph, Source

Documents = MutableMapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Explained:
    """A key, the document that it is the digest of, and those of its dependencies."""

    key: str
    document: Mapping[str, Any]
    others: Documents


@dataclass(frozen=True, slots=True)
class Pair:
    """What is compared; None on the side where there is no such thing."""

    title: str
    old: Explained | None
    new: Explained | None


def run(session: Session, arguments: Sequence[str]) -> None:
    keys = [key_in(argument) for argument in arguments]
    match list(arguments):
        case [_] | [_, _] if all(keys):
            _explain_stored(session, [key for key in keys if key])
        case [refs, system, *component] if is_range(refs) and len(component) <= 1:
            old, _, new = refs.partition("..")
            if not old or not system:
                raise _usage()
            before = _graph_at(session, old, system)
            after = _graph_at(session, new, system) if new else _graph(session, system)
            _show_differences(session, _pairs(before, after, component))
        case [system, *component] if system and not is_range(system) and len(component) <= 1:
            graph = _graph(session, system)
            found = _find(graph, component)
            if not found:
                raise _unknown(component, graph)
            _show_documents(session, [(s.key, identity_of(graph, s)) for s in found])
        case _:
            raise _usage()


def _usage() -> MorphError:
    return MorphError(
        "usage: morph explain-key [OLD..NEW] SYSTEM [COMPONENT], or KEY [KEY]", reason=Reason.USAGE
    )


def is_range(text: str) -> bool:
    """Is this OLD..NEW, and not the path of a system that leads through `..`?"""
    is_path = text.startswith(("./", "../", "/")) or "/.." in text or text.endswith(".morph")
    return ".." in text and not is_path


# What is explained


def _graph(session: Session, system: str) -> BuildGraph:
    workshop = Workshop.of(session)
    source, paths = workshop.open_definitions([system])
    return workshop.resolve(source, paths)[0]


def _graph_at(session: Session, ref: str, system: str) -> BuildGraph:
    """The graph at a ref of the checkout around the working directory, or of --repo."""
    from morphlib.definitions.names import sanitise
    from morphlib.sources.checkout import find_checkout, path_in_checkout

    if session.settings.repo is not None:
        return _graph(with_repo(session, session.settings.repo, ref), system)
    root = find_checkout(Path.cwd())
    path = path_in_checkout(root, sanitise(system), Path.cwd())
    return _graph(with_repo(session, f"file://{root}", ref), path)


def _find(graph: BuildGraph, component: Sequence[str]) -> Sequence[Source]:
    return graph.named(component[0]) if component else (graph.system,)


def _unknown(component: Sequence[str], graph: BuildGraph) -> MorphError:
    return MorphError(
        f"Components {', '.join(component)} are not in {graph.system.path}",
        reason=Reason.NOT_FOUND,
        hint="Components are given by the names of strata and chunks, not by their files.",
    )


def _pairs(before: BuildGraph, after: BuildGraph, component: Sequence[str]) -> list[Pair]:
    """The component in both graphs, or the systems, which may have different names."""
    if component:
        old = {source.id: source for source in _find(before, component)}
        new = {source.id: source for source in _find(after, component)}
        sides = [(old.get(name), new.get(name)) for name in {**old, **new}]
    else:
        sides = [(before.system, after.system)]
    if not sides:
        raise _unknown(component, after)
    known = identities_of(before), identities_of(after)
    return [
        Pair((two or one or after.system).name, _explain(one, known[0]), _explain(two, known[1]))
        for one, two in sides
    ]


def _explain(source: Source | None, documents: Documents) -> Explained | None:
    return Explained(source.key, documents[source.key], documents) if source else None


def _explain_stored(session: Session, prefixes: Sequence[str]) -> None:
    store = ArtifactStore(session.settings.cachedir / "artifacts", session.listener)
    documents = StoredDocuments(store)
    keys = [find_key(store, prefix) for prefix in prefixes]
    explained = [Explained(key, documents[key], documents) for key in keys]
    if len(explained) == 1:
        _show_documents(session, [(explained[0].key, explained[0].document)])
    else:
        old, new = explained
        title = str(new.document.get("artifact", new.document.get("name")))
        _show_differences(session, [Pair(title, old, new)])


# How it is shown


def _show_documents(session: Session, found: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    documents = [(key, plain(document)) for key, document in found]
    if session.settings.json:
        session.print_json([{"key": key, "inputs": inputs} for key, inputs in documents])
        return
    for key, inputs in documents:
        session.print(f"{key} is the SHA-256 of this, written without blanks:")
        session.print(format_json(inputs))


def _show_differences(session: Session, pairs: Sequence[Pair]) -> None:
    shown = []
    for pair in pairs:
        old, new = pair.old, pair.new
        found = []
        if old and new and old.key != new.key:
            known = ChainMap(old.others, new.others)
            found = list(explain_difference(old.document, new.document, known))
        shown.append(
            {
                "name": pair.title,
                "old": old.key if old else None,
                "new": new.key if new else None,
                "differences": found,
            }
        )
        if not session.settings.json:
            session.print(_title(pair))
            for difference in found:
                session.print(describe_difference(difference))
    if session.settings.json:
        session.print_json(shown)


def _title(pair: Pair) -> str:
    match pair.old, pair.new:
        case None, Explained(key=key):
            return f"{pair.title}: is new, {key}"
        case Explained(key=key), None:
            return f"{pair.title}: is gone, {key}"
        case Explained(key=old), Explained(key=new) if old == new:
            return f"{pair.title}: the same key, {new}"
        case Explained(key=old), Explained(key=new):
            return f"{pair.title}: {old} became {new} because"
        case _:
            raise AssertionError("a pair of nothing")
