from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from morphlib.cache.trees import delete_tree, remove_tree, tree_size


def test_files_linked_from_elsewhere_free_nothing(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    empty = tree_size(tree)
    (tree / "a").write_bytes(b"x" * 100000)
    alone = tree_size(tree)
    assert alone >= empty + 100000
    os.link(tree / "a", tree / "b")
    assert tree_size(tree) == alone
    os.link(tree / "a", tmp_path / "outside")
    assert tree_size(tree) == empty
    assert tree_size(tmp_path / "none") == 0


def test_directories_without_permissions_are_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch(mode=0o400)
    (tree / "a" / "b").chmod(0o500)
    (tree / "a").chmod(0)
    tree.chmod(0o100)
    remove_tree(tree)
    assert list(tmp_path.iterdir()) == []


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o500)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(precious)
    (tree / "dangling").symlink_to("/nowhere")
    remove_tree(tree)
    assert precious.stat().st_mode & 0o777 == 0o500
    (tmp_path / "top").symlink_to(precious)
    remove_tree(tmp_path / "top")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_removing_what_is_not_there_or_a_file(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")
    (tmp_path / "file").touch()
    remove_tree(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_mounted_trees_are_left_alone() -> None:
    with pytest.raises(OSError, match="mounted"):
        remove_tree(Path("/proc"))


def test_what_others_remove_meanwhile_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    for name in ("a/b", "c"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").touch()
    unlink = os.unlink
    helped: list[str] = []

    def unlink_all(path: str) -> None:
        """Somebody else removes the rest in the same moment."""
        if not helped:
            helped.append(path)
            with monkeypatch.context() as undone:
                undone.setattr(os, "unlink", unlink)
                shutil.rmtree(tree)
        unlink(path)

    monkeypatch.setattr(os, "unlink", unlink_all)
    delete_tree(tree)
    assert len(helped) == 1
    assert list(tmp_path.iterdir()) == []


def test_trees_deeper_than_paths_can_tell(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    step = Path("x" * 200)
    with contextlib.chdir(tree):
        for _ in range(60):
            step.mkdir()
            os.chdir(step)
        Path("file").touch()
    delete_tree(tree)
    assert list(tmp_path.iterdir()) == []
