from __future__ import annotations

from pathlib import Path

import pytest

from morphlib.events import AnyEvent, Status
from morphlib.sources.mirrors import MirrorCache
from tests.sources.repositories import Repository, git_environment


class Told(list[AnyEvent]):
    """A listener that keeps what it is told."""

    def __call__(self, event: AnyEvent) -> None:
        self.append(event)

    def texts(self, level: str = "normal") -> list[str]:
        return [e.text for e in self if isinstance(e, Status) and e.level == level]


@pytest.fixture(autouse=True)
def git_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the configuration of whoever runs the tests counts."""
    for name, value in git_environment(tmp_path).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def mirrors(tmp_path: Path, told: Told) -> MirrorCache:
    return MirrorCache(tmp_path / "gits", listener=told)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with one commit."""
    made = Repository(tmp_path / "upstream")
    made.commit({"hello": "hello\n", "src/main.c": "int main;\n"})
    return made
