"""What builds leave is removed in the end, whatever comes between."""

from __future__ import annotations

from pathlib import Path

import pytest

from morphlib.build.leavings import QUICK, Leavings
from morphlib.errors import MorphError, Reason


def make_tree(path: Path, files: int = 1) -> Path:
    path.mkdir()
    for number in range(files):
        (path / str(number)).write_text("")
    return path


def test_quick_builds_leave_it_for_later(tmp_path: Path) -> None:
    leavings = Leavings()
    quick, slow = make_tree(tmp_path / "quick"), make_tree(tmp_path / "slow")
    leavings.discard(quick, QUICK / 2)
    leavings.discard(slow, QUICK * 2)
    assert quick.exists()
    assert not slow.exists()
    assert leavings.remove_one()
    assert not quick.exists()
    assert not leavings.remove_one()


@pytest.mark.parametrize("duration", [0.0, QUICK * 2])
def test_an_interrupted_removal_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, duration: float
) -> None:
    def be_interrupted(path: Path) -> None:
        (path / "0").unlink()
        raise SystemExit  # as when a builder is told to end

    leavings = Leavings()
    tree = make_tree(tmp_path / "tree", 2)
    with monkeypatch.context() as patch:
        patch.setattr("morphlib.build.leavings.remove_tree", be_interrupted)
        with pytest.raises(SystemExit):
            leavings.discard(tree, duration)
            leavings.remove_one()
    assert list(tree.iterdir()) == [tree / "1"]
    assert leavings.remove_one()
    assert not tree.exists()


def test_what_cannot_be_removed_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise MorphError("can't", reason=Reason.CACHE)

    leavings = Leavings()
    leavings.discard(make_tree(tmp_path / "tree"), 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("morphlib.build.leavings.remove_tree", fail)
        with pytest.raises(MorphError):
            leavings.remove_one()
    assert not leavings.remove_one()
