"""Trees as values: read, laid one over the other, and compared."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from morphlib.writeexts.difference import Difference, difference
from morphlib.writeexts.entries import Entry, read_entries, stack


def tree(root: Path, *names: str, **contents: str) -> dict[str, Entry]:
    """A tree of directories (`names`) and files."""
    root.mkdir()
    for name in names:
        (root / name).mkdir(parents=True)
    for name, content in contents.items():
        (root / name.replace("__", "/")).write_text(content)
    return read_entries(root, {}, newest=1000)


def changed(found: Difference) -> tuple[list[str], list[str]]:
    return [*found.entries], [*found.removed]


def test_directories_come_before_what_is_in_them(tmp_path: Path) -> None:
    found = tree(tmp_path / "t", "a", "a/z", "a-b", "a.d")
    assert [*found] == [".", "a", "a/z", "a-b", "a.d"]


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)
        listening.bind("t/socket")
    os.mkfifo(tmp_path / "t/fifo")
    assert [*read_entries(tmp_path / "t", {}, newest=1)] == [".", "fifo"]


def test_no_time_is_later_than_the_newest(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for name, time in (("old", 5), ("new", 5000)):
        (tmp_path / "t" / name).touch()
        os.utime(tmp_path / "t" / name, (time, time))
    found = read_entries(tmp_path / "t", {}, newest=1000)
    assert (found["old"].mtime, found["new"].mtime) == (5, 1000)


def test_the_last_tree_is_on_top(tmp_path: Path) -> None:
    one = tree(tmp_path / "1", "d", "d/e", "k", d__x="x", d__e__y="y", k__z="z", f="f")
    two = tree(tmp_path / "2", "f", "k", d="no directory", f__g="g", k__w="w")
    found = stack([one, two])
    assert set(found) == {".", "d", "f", "f/g", "k", "k/z", "k/w"}
    assert found["d"].source == tmp_path / "2/d"


def test_equal_trees_differ_in_nothing(tmp_path: Path) -> None:
    one = tree(tmp_path / "1", "d", d__x="x")
    two = tree(tmp_path / "2", "d", d__x="x")
    os.utime(tmp_path / "2/d/x", (1, 1))
    assert difference(read_entries(tmp_path / "2", {}, newest=1000), one).is_nothing
    assert difference(two, one).is_nothing


def test_what_changed_comes_with_its_directories(tmp_path: Path) -> None:
    one = tree(tmp_path / "1", "a/b", "c", a__b__x="old", c__y="same", a__z="gone")
    two = tree(tmp_path / "2", "a/b", "c", a__b__x="new", c__y="same")
    found = difference(two, one)
    assert changed(found) == (["a", "a/b", "a/b/x"], ["a/z"])
    assert not found.is_nothing


@pytest.mark.parametrize("change", ["mode", "target", "size", "attribute", "link"])
def test_what_counts_as_a_change(tmp_path: Path, change: str) -> None:
    for name in ("1", "2"):
        tree(tmp_path / name, x="text", y="text")
        (tmp_path / name / "link").symlink_to("x")
    two = tmp_path / "2"
    expected = ["x"]
    match change:
        case "mode":
            (two / "x").chmod(0o700)
        case "target":
            (two / "link").unlink()
            (two / "link").symlink_to("y")
            expected = ["link"]
        case "size":
            (two / "x").write_text("longer text")
        case "attribute":
            os.setxattr(two / "x", "user.note", b"note")
        case "link":
            (two / "y").unlink()
            os.link(two / "x", two / "y")
            expected = ["x", "y"]
    found = [read_entries(tmp_path / name, {}, newest=1000) for name in ("1", "2")]
    assert changed(difference(found[1], found[0])) == (expected, [])


def test_a_directory_that_is_gone_takes_what_was_in_it(tmp_path: Path) -> None:
    one = tree(tmp_path / "1", "d/e", "k", d__e__x="x", k__y="y")
    two = tree(tmp_path / "2", k="a file now")
    assert changed(difference(two, one)) == (["k"], ["d"])
