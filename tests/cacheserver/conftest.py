from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cacheserver.server import CacheServer, running


@pytest.fixture(scope="module")
def writable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheServer]:
    """A server that this machine may write to; the tests of a module share it."""
    home = tmp_path_factory.mktemp("writable")
    with running(home, "--enable-writes", "--direct-mode") as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path
