"""From a source of the graph to the value that brings its files."""

from __future__ import annotations

from morphlib.graph.model import Source
from morphlib.sources.pool import GitSource, SourceRef


def git_source(source: Source) -> GitSource:
    """Where the files of a chunk come from."""
    assert source.recipe is not None
    origin = source.origin
    return GitSource(
        ref=SourceRef(
            repo=origin.repo,
            url=origin.url,
            ref=origin.ref,
            commit=origin.commit,
            tree=origin.tree,
        ),
        submodule_urls=source.recipe.submodules,
    )
