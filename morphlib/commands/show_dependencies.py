"""Show the artifacts of a build and what each depends on.

Takes REPO REF MORPHOLOGY, once or several times. Every artifact of the build is shown, what is
built last first, with its direct dependencies below it.
"""

from __future__ import annotations

from collections.abc import Sequence

from morphlib.commands.resolving import Workshop
from morphlib.commands.session import Session
from morphlib.commands.triplets import triplets, with_repo
from morphlib.graph.model import BuildGraph, Source


def run(session: Session, arguments: Sequence[str]) -> None:
    shown = []
    for repo, ref, morphology in triplets(arguments):
        workshop = Workshop.of(with_repo(session, repo, ref))
        source, paths = workshop.open_definitions([morphology])
        (graph,) = workshop.resolve(source, paths)
        dependencies = describe(graph)
        if session.settings.json:
            shown.append({"repo": repo, "ref": ref, "morphology": paths[0], **_json(dependencies)})
            continue
        session.print(f"dependency graph for {repo}|{ref}|{paths[0]}:")
        for artifact, needed in dependencies:
            session.print(f"  {artifact}")
            for name in needed:
                session.print(f"    -> {name}")
    if session.settings.json:
        session.print_json(shown)


def _json(dependencies: Sequence[tuple[str, Sequence[str]]]) -> dict[str, object]:
    return {"artifacts": [{"artifact": a, "dependencies": n} for a, n in dependencies]}


def describe(graph: BuildGraph) -> list[tuple[str, list[str]]]:
    """Every artifact in reverse build order, with its direct dependencies sorted as text."""
    return [
        (
            artifact_text(source, ref.name),
            sorted(artifact_text(graph.source(d), d.name) for d in source.dependencies),
        )
        for source, ref in reversed(list(graph.needed()))
    ]


def artifact_text(source: Source, artifact: str) -> str:
    origin = source.origin
    return f"{origin.repo}|{origin.ref}|{source.path}|{source.name}|{artifact}"
