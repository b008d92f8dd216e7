from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from tests.commands.world import World
from tests.distbuild.network import Network
from tests.sources.repositories import Repository, git_environment


def make_world(root: Path) -> World:
    """Definitions in a clone of a repository that can be pushed to."""
    world = World(root)
    origin = Repository(root / "gits" / "definitions", "--bare")
    world.definitions.git("remote", "add", "origin", str(origin.path))
    world.definitions.git("push", "-q", "origin", "HEAD:refs/heads/main")
    return world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in git_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return make_world(tmp_path)


@pytest.fixture
def networks(world: World) -> Iterator[Callable[..., Network]]:
    """Makes networks of their own for a test, and ends them."""
    made: list[Network] = []

    def make(workers: int = 1, **settings: str) -> Network:
        made.append(Network(world, workers, **settings))
        return made[-1]

    yield make
    for network in made:
        network.close()


@pytest.fixture(scope="module")
def lasting_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    root = tmp_path_factory.mktemp("network")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in git_environment(root).items():
            patch.setenv(name, value)
        network = Network(make_world(root))
        yield network
        network.close()


@pytest.fixture
def network(lasting_network: Network) -> Iterator[Network]:
    """A network that the tests of a module share, with definitions as they were at first."""
    documents = deepcopy(lasting_network.world.documents)
    lasting_network.forget()
    yield lasting_network
    lasting_network.world.documents = documents
    lasting_network.world.definitions.git("clean", "-fdq")
    lasting_network.world.commit()
