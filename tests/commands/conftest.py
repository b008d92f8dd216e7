from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.world import World
from tests.sources.repositories import git_environment


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in git_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return World(tmp_path)
