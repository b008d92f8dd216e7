from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.cache.store import ArtifactStore
from morphlib.events import AnyEvent, Status


class Told(list[AnyEvent]):
    """A listener that keeps what it is told."""

    def __call__(self, event: AnyEvent) -> None:
        self.append(event)

    def warnings(self) -> list[str]:
        return [event.text for event in self if isinstance(event, Status)]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def store(tmp_path: Path, told: Told) -> Iterator[ArtifactStore]:
    with ArtifactStore(tmp_path / "artifacts", told) as made:
        yield made


def key_for(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def publish(store: ArtifactStore, key: str, **contents: bytes) -> list[str]:
    """Store the artifacts KEY.chunk.NAME with these contents; returns their file names."""
    files = {}
    for name, data in contents.items():
        path = store.temporary()
        path.write_bytes(data)
        files[f"{key}.chunk.{name}"] = path
    store.publish(key, files, {f"{key}.meta": b"{}"})
    return list(files)
