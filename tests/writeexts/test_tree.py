from __future__ import annotations

import os
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.writeexts.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    return Tree(root)


def test_links_stay_inside(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "passwd"
    outside.write_text("host\n")
    (tree.root / "etc/fstab").symlink_to(outside)
    (tree.root / "up").symlink_to("../../..")
    tree.write("etc/fstab", "inside\n")
    tree.write("up/passwd", "inside\n")
    assert outside.read_text() == "host\n"
    assert (tree.root / "passwd").read_text() == "inside\n"
    assert (tree.root / str(outside).lstrip("/")).read_text() == "inside\n"


def test_a_link_can_be_replaced(tree: Tree) -> None:
    (tree.root / "etc/target").write_text("old")
    (tree.root / "etc/link").symlink_to("target")
    tree.write("etc/link", "new", follow=False)
    assert not (tree.root / "etc/link").is_symlink()
    assert (tree.root / "etc/target").read_text() == "old"


def test_mode_of_what_is_replaced_is_kept(tree: Tree) -> None:
    path = tree.root / "etc/secret"
    path.write_text("old")
    path.chmod(0o640)
    tree.write("etc/secret", "new")
    assert path.stat().st_mode & 0o7777 == 0o640
    tree.write("etc/secret", "new", mode=0o4755)
    assert path.stat().st_mode & 0o7777 == 0o4755


def test_lines_are_appended(tree: Tree) -> None:
    tree.append_lines("etc/hosts", ["a"])
    (tree.root / "etc/hosts").write_bytes(b"\xff no newline")
    tree.append_lines("etc/hosts", ["b", "c"], mode=0o600)
    assert (tree.root / "etc/hosts").read_bytes() == b"\xff no newline\nb\nc\n"
    assert (tree.root / "etc/hosts").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused(tree: Tree, make: object) -> None:
    assert callable(make)
    make(tree.root / "etc/thing")
    with pytest.raises(MorphError, match="can't write /etc/thing in the system"):
        tree.write("etc/thing", "x")
    with pytest.raises(MorphError, match="has no file /etc/thing"):
        tree.read("etc/thing")


def test_parents_are_made(tree: Tree) -> None:
    (tree.root / "usr").symlink_to("/deep/down")
    tree.write("usr/share/x", "x")
    assert (tree.root / "deep/down/share/x").read_text() == "x"
    (tree.root / "file").write_text("")
    with pytest.raises(MorphError, match="can't write /file/x"):
        tree.write("file/x", "x")


def test_a_circle_is_told(tree: Tree) -> None:
    (tree.root / "a").symlink_to("b")
    (tree.root / "b").symlink_to("a")
    with pytest.raises(MorphError, match="too many symbolic links"):
        tree.write("a/x", "x")
