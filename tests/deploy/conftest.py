"""A trove whose system is built once for each user, to be deployed by many tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.build.removal import remove_tree
from tests.build.e2e.conftest import base  # noqa: F401 - a fixture
from tests.build.e2e.trove import Trove
from tests.build.isolation import NOBODY
from tests.deploy.world import World, make_world

USERS = [0, NOBODY] if os.getuid() == 0 else [os.getuid()]


@pytest.fixture(scope="session")
def built(base: Path) -> Iterator[dict[int, World]]:  # noqa: F811
    """The worlds that were made, by user."""
    made: dict[int, World] = {}
    try:
        for user in USERS:
            directory = Path(tempfile.mkdtemp(prefix="morph-deploy-"))
            directory.chmod(0o755)
            made[user] = make_world(Trove(directory, base, user))
        yield made
    finally:
        for world in made.values():
            for place in (world.trove.cache, world.trove.temp, world.trove.root):
                remove_tree(place)
            shutil.rmtree(world.trove.root, ignore_errors=True)


@pytest.fixture(params=USERS, ids=lambda uid: f"{uid}")
def any_world(request: pytest.FixtureRequest, built: dict[int, World]) -> Iterator[World]:
    """A world of root and one of an ordinary user, if root runs the tests."""
    world = built[request.param]
    yield world
    world.reset()


@pytest.fixture
def world(built: dict[int, World]) -> Iterator[World]:
    """A world of an ordinary user."""
    world = built[USERS[-1]]
    yield world
    world.reset()
