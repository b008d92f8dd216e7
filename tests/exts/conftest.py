from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exts.programs import NOBODY


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with nothing but /etc."""
    (tmp_path / "tree/etc").mkdir(parents=True)
    return tmp_path / "tree"


@pytest.fixture
def users_tree() -> Iterator[Path]:
    """The same, of an ordinary user, in a directory of that user."""
    directory = Path(tempfile.mkdtemp(prefix="morph-tests-"))
    root = directory / "tree"
    (root / "etc").mkdir(parents=True)
    if os.geteuid() == 0:
        for path in (directory, root, root / "etc"):
            os.chown(path, NOBODY, NOBODY)
    yield root
    shutil.rmtree(directory)
