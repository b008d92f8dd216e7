"""Work directories that somebody else may have put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from morphlib.cache.ownership import refuse_planted
from morphlib.errors import MorphError


@pytest.fixture
def other(tmp_path: Path) -> int:
    """Root gives what is below `tmp_path` away; another takes the place of a second user."""
    return 0 if os.getuid() == 0 else os.getuid() + 1


def _plant(path: Path) -> Path:
    path.mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)
    return path


@pytest.mark.parametrize("name", ["morph_tmp", "morph_tmp/chunks", "morph_tmp/staging"])
def test_planted_directory_is_refused(tmp_path: Path, other: int, name: str) -> None:
    _plant(tmp_path / name)
    for directory in (tmp_path, tmp_path / "morph_tmp"):
        directory.chmod(0o1777)
    with pytest.raises(MorphError, match="belongs to") as caught:
        refuse_planted(tmp_path / "morph_tmp", user=other)
    assert "--tempdir" in (caught.value.hint or "")


def test_planted_link_is_refused(tmp_path: Path, other: int) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "morph_tmp").symlink_to("mine")
    if os.getuid() == 0:
        os.chown(tmp_path / "morph_tmp", 65534, 65534, follow_symlinks=False)
    tmp_path.chmod(0o1777)
    with pytest.raises(MorphError, match="belongs to"):
        refuse_planted(tmp_path / "morph_tmp", user=other)


def test_own_directory_and_one_that_is_not_there_yet_are_fine(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    refuse_planted(tmp_path / "morph_tmp")
    (tmp_path / "morph_tmp/chunks").mkdir(parents=True)
    refuse_planted(tmp_path / "morph_tmp")


def test_directory_of_another_in_a_place_of_theirs_was_asked_for(
    tmp_path: Path, other: int
) -> None:
    _plant(tmp_path / "home/work")
    refuse_planted(tmp_path / "home/work", user=other)
