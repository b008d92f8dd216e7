"""Building a stratum artifact: the list of the chunk artifacts that make it up."""

from __future__ import annotations

import json

from morphlib.build.metadata import stratum_metadata
from morphlib.build.model import BuildContext
from morphlib.build.recorder import Recorder
from morphlib.errors import MorphError, Reason
from morphlib.graph.keys import identity_of, plain
from morphlib.graph.model import Source


def build_stratum(context: BuildContext, source: Source, recorder: Recorder) -> None:
    """Make sure of the chunk artifacts of a stratum artifact and store the list of their names."""
    graph, store = context.graph, context.store
    with recorder.phase("check-chunks", quiet=True):
        names = []
        for ref in graph.content(source):
            chunk = graph.source(ref)
            name = chunk.filename(ref.name)
            if not store.check(chunk.key, [name]):
                raise MorphError(
                    f"chunk artifact {name} vanished while the build ran",
                    reason=Reason.CACHE,
                    hint="Build again: it will be made anew.",
                )
            names.append(name)
    with recorder.phase("create-chunk-list", quiet=True):
        name = source.filename(source.name)
        listing = store.temporary()
        listing.write_text(json.dumps(names))
        metadata = store.temporary()
        metadata.write_bytes(stratum_metadata(graph, source, context.options.version))
    store.publish(
        source.key,
        {name: listing, f"{name}.meta": metadata},
        {f"{source.key}.meta": recorder.to_json(**{"cache-id": plain(identity_of(graph, source))})},
        sign=context.sign,
    )
