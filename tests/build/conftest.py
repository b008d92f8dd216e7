"""Fixtures: who builds, and where."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphlib.build.removal import remove_tree
from tests.build.isolation import NOBODY, TOOLS, in_child, needed_files

_USERS = [0, NOBODY] if os.getuid() == 0 else [os.getuid()]


@pytest.fixture(params=_USERS, ids=lambda uid: "root" if uid == 0 else "user")
def user(request: pytest.FixtureRequest) -> int:
    """The user that builds: root and another if root runs the tests, else who runs them."""
    uid: int = request.param
    return uid


@pytest.fixture
def place(user: int) -> Iterator[Path]:
    """A directory of that user, which all may enter."""
    directory = Path(tempfile.mkdtemp(prefix="morph-test-"))
    directory.chmod(0o755)
    if os.getuid() == 0:
        os.chown(directory, user, user)
    yield directory
    in_child(lambda: _empty(directory), user=user)
    shutil.rmtree(directory)


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """Look for programs and libraries once, not in each forked child."""
    for tool in TOOLS:
        needed_files(tool)


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        remove_tree(entry)
