from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.tiny import make_system
from tests.exts.disks import BOOT
from tests.exts.programs import NOBODY, succeed


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with nothing but /etc."""
    (tmp_path / "tree/etc").mkdir(parents=True)
    return tmp_path / "tree"


@pytest.fixture
def bootable_tree(tmp_path: Path) -> Path:
    """A tree with a kernel, as far as disk images have a look at it, for a machine called web."""
    tree = tmp_path / "tree"
    for name in ("boot", "etc", "home", "opt", "root", "srv", "var"):
        (tree / name).mkdir(parents=True)
    (tree / "boot/vmlinuz").write_text("kernel\n")
    (tree / "etc/hostname").write_text("web\n")
    return tree


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


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions of a system."""
    directory = tmp_path_factory.mktemp("systems")
    return {name: make_system(directory / name, name) for name in ("one", "two")}


@pytest.fixture
def image(systems: dict[str, Path], tmp_path: Path) -> Path:
    """An image of the first version."""
    succeed("rawdisk.write", systems["one"], tmp_path / "disk.img", env=BOOT)
    return tmp_path / "disk.img"
