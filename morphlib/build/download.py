"""Bringing a source's artifacts from a cache server into the store, checked before they count."""

from __future__ import annotations

import json
from pathlib import Path

from morphlib.build.unpack import check_tar
from morphlib.cache.failures import explain_failure
from morphlib.cache.remote import RemoteArtifacts
from morphlib.cache.store import ArtifactStore
from morphlib.cache.trust import fetch_signatures
from morphlib.definitions.models import Kind
from morphlib.errors import MorphError, Reason
from morphlib.graph.model import Source


def download_source(store: ArtifactStore, remote: RemoteArtifacts, source: Source) -> None:
    """Fetch all files of a source and store them together. Raises MorphError.

    With trusted keys nothing is taken that none of them has signed (UntrustedError), and nothing of
    it is fetched if there is no signature at all. A file that has the digest which the server
    promises, but is not what an artifact has to be, is not taken either: building it is better than
    failing over it later.
    """
    with store.temporaries() as fresh:
        files: dict[str, Path] = {}
        digests: dict[str, str] = {}
        vouched = fetch_signatures(remote, source.key, fresh())
        vouched.check_signed(source.filenames())
        for name in source.filenames():
            path = files[name] = fresh()
            digests[name] = vouched.fetch(name, path)
            _check(source, name, path)
        store.publish(source.key, files, digests=digests, sign=lambda _: vouched.signatures)


def _check(source: Source, name: str, path: Path) -> None:
    with explain_failure(f"read {name}", path):
        if source.kind is not Kind.STRATUM:
            is_chunk = source.kind is Kind.CHUNK
            artifact = name.split(".", 2)[2]
            check_tar(path, f"baserock/{artifact}.meta" if is_chunk else "")
            return
        wanted: type = dict if name.endswith(".meta") else list
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, wanted):
            raise MorphError(f"{name} from the server is no artifact", reason=Reason.CACHE)
