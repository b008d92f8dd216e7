"""The key documents that the cache keeps of what was built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from morphlib.cache.store import ArtifactStore
from morphlib.errors import MorphError, Reason
from morphlib.graph.keys import digest

#: A key, shortened perhaps, or the name of a file that is stored under it.
_KEY = re.compile(r"([0-9a-f]{8,64})|([0-9a-f]{64})\.[^/]+")


class _Kid(msgspec.Struct):
    artifact: str
    key: str = msgspec.field(name="cache-key")


class _Inputs(msgspec.Struct):
    """What everything else relies on in a document."""

    kids: list[_Kid]


class _Metadata(msgspec.Struct):
    inputs: dict[str, Any] = msgspec.field(name="cache-id")


def key_in(text: str) -> str | None:
    """The key, or the beginning of one, that an argument is; None if it is something else."""
    match = _KEY.fullmatch(text)
    return (match[1] or match[2]) if match else None


def find_key(store: ArtifactStore, prefix: str) -> str:
    """The one key in the store that begins with `prefix`. Raises MorphError (NOT_FOUND)."""
    stored = store.keys()
    keys = [key for key in stored if key.startswith(prefix)]
    if len(keys) > 1:
        raise MorphError(
            f"{len(keys)} sources are cached under key {prefix}",
            reason=Reason.NOT_FOUND,
            hint=f"Give more of the key: {', '.join(keys)}.",
        )
    if not keys:
        raise MorphError(
            f"no source is cached under key {prefix}",
            reason=Reason.NOT_FOUND,
            hint=f"Keys begin the names of the files in {store.directory}.",
        )
    return keys[0]


class StoredDocuments(dict[str, Mapping[str, Any]]):
    """key -> document, read when it is looked up. Only what really hashes to its key is there."""

    def __init__(self, store: ArtifactStore) -> None:
        super().__init__()
        self._store = store

    def __contains__(self, key: object) -> bool:
        try:
            self[str(key)]
        except MorphError:
            return False
        return True

    def __missing__(self, key: str) -> Mapping[str, Any]:
        """Raises MorphError (NOT_FOUND)."""
        document = self._read(key)
        if document is None:
            raise MorphError(
                f"the inputs behind {key} are not in {self._store.directory}",
                reason=Reason.NOT_FOUND,
                hint=f"{key}.meta is damaged or gone. It comes back when the key is built again.",
            )
        self[key] = document
        return document

    def _read(self, key: str) -> Mapping[str, Any] | None:
        try:
            text = self._store.path(f"{key}.meta").read_bytes()
            document = msgspec.json.decode(text, type=_Metadata).inputs
            msgspec.convert(document, _Inputs)
        except (OSError, ValueError, msgspec.DecodeError, MorphError):
            return None
        return document if digest(document) == key else None
