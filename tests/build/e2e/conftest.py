"""Fixtures: troves to build in, and who builds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from morphlib.build.removal import remove_tree
from tests.build.e2e.trove import Trove, make_base
from tests.build.isolation import NOBODY


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """The repository that every trove's base comes from."""
    directory = Path(tempfile.mkdtemp(prefix="morph-e2e-base-"))
    directory.chmod(0o755)
    make_base(directory / "base")
    yield directory / "base"
    shutil.rmtree(directory)


MakeTrove = Callable[..., Trove]


@pytest.fixture
def make_trove(base: Path) -> Iterator[MakeTrove]:
    """Makes troves; `user` says whose they are."""
    made: list[Trove] = []

    def make(user: int | None = None) -> Trove:
        directory = Path(tempfile.mkdtemp(prefix="morph-e2e-"))
        directory.chmod(0o755)
        made.append(Trove(directory, base, os.getuid() if user is None else user))
        return made[-1]

    yield make
    for trove in made:
        for place in (trove.cache, trove.temp, trove.root):
            remove_tree(place)


@pytest.fixture
def trove(make_trove: MakeTrove) -> Trove:
    return make_trove()


@pytest.fixture(params=[0, NOBODY] if os.getuid() == 0 else [os.getuid()], ids=lambda uid: f"{uid}")
def any_trove(request: pytest.FixtureRequest, make_trove: MakeTrove) -> Trove:
    """A trove of root and one of an ordinary user, if root runs the tests."""
    return make_trove(request.param)
