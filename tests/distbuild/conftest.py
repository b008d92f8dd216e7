from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.world import World
from tests.distbuild.network import Network
from tests.sources.repositories import Repository, git_environment


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Definitions in a clone of a repository that can be pushed to."""
    for name, value in git_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    world = World(tmp_path)
    origin = Repository(tmp_path / "gits" / "definitions", "--bare")
    world.definitions.git("remote", "add", "origin", str(origin.path))
    world.definitions.git("push", "-q", "origin", "HEAD:refs/heads/main")
    return world


@pytest.fixture
def networks(world: World) -> Iterator[Callable[..., Network]]:
    """Makes networks, and ends them."""
    made: list[Network] = []

    def make(workers: int = 1, **settings: str) -> Network:
        made.append(Network(world, workers, **settings))
        return made[-1]

    yield make
    for network in made:
        network.close()
