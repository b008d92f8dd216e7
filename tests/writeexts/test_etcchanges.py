"""What of a machine's changes to /etc goes into the next version of its system."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.model import Change, Directory, File, Removal, Symlink
from morphlib.writeexts.etcchanges import Item, read_etc_of_tree, take_over


def file(text: str, mode: int = 0o644) -> Item:
    return Item(stat.S_IFREG | mode, 0, 0, text.encode())


def link(target: str) -> Item:
    return Item(stat.S_IFLNK, 0, 0, target.encode())


def only(item: Item | None) -> dict[str, Item]:
    return {} if item is None else {"x": item}


FOLDER = Item(stat.S_IFDIR | 0o755, 0, 0)
PIPE = Item(stat.S_IFIFO | 0o644, 0, 0, left=True)
A, B, C = file("a"), file("b"), file("c")


@pytest.mark.parametrize(
    ("old", "machine", "new", "changes"),
    [
        (A, A, B, []),  # the machine changed nothing
        (A, A, None, []),
        (A, B, A, [File("at/x", b"b")]),
        (A, B, B, []),  # both changed it alike
        (A, file("a", 0o600), A, [File("at/x", b"a", 0o600)]),
        (None, B, None, [File("at/x", b"b")]),
        (None, B, B, []),
        (A, None, A, [Removal("at/x")]),
        (A, None, None, []),
        (A, link("y"), A, [Symlink("at/x", "y")]),
        (link("y"), A, link("y"), [File("at/x", b"a")]),
        (None, FOLDER, None, [Directory("at/x")]),
        (None, FOLDER, FOLDER, []),
        (FOLDER, Item(stat.S_IFDIR | 0o700, 0, 0), FOLDER, []),
        (FOLDER, None, FOLDER, []),
    ],
)
def test_taken_over(
    old: Item | None, machine: Item | None, new: Item | None, changes: Sequence[Change]
) -> None:
    taken = take_over(only(old), only(machine), only(new), "at")
    assert list(taken.changes) == list(changes)
    assert taken.kept == ()


@pytest.mark.parametrize(
    ("old", "machine", "new"),
    [
        (A, B, C),
        (A, B, None),
        (None, B, C),
        (A, None, C),
        (A, PIPE, B),
        (A, B, FOLDER),
        (A, FOLDER, A),
        (None, FOLDER, A),
        (None, B, FOLDER),
    ],
)
def test_kept(old: Item | None, machine: Item | None, new: Item | None) -> None:
    taken = take_over(only(old), only(machine), only(new), "at")
    assert taken.changes == ()
    assert (taken.kept, taken.left) == (("x",), ())


@pytest.mark.parametrize("old", [None, A, FOLDER])
def test_left(old: Item | None) -> None:
    """What nobody needs as configuration is told of."""
    below = {"x/y": A} if old is FOLDER else {}
    taken = take_over(only(old) | below, only(PIPE), only(old) | below, "at")
    assert taken.changes == ()
    assert (taken.kept, taken.left) == ((), ("x",))


@pytest.mark.parametrize("instead", [A, link("/home/d")])
def test_something_instead_of_a_directory(instead: Item) -> None:
    """Is taken over if the new version has nothing else in it; else that has all of its own."""
    old = {"d": FOLDER, "d-x": A, "d/e": FOLDER, "d/e/f": A, "d/g": B}
    machine = {"d": instead, "d-x": A}
    taken = take_over(old, machine, old, "at")
    *removals, made = taken.changes
    assert removals == [Removal(f"at/{path}") for path in ("d/g", "d/e/f", "d/e", "d")]
    assert made in (File("at/d", b"a"), Symlink("at/d", "/home/d"))
    assert taken.kept == ()
    for new in ({**old, "d/g": C}, {**old, "d/h": A}):
        taken = take_over(old, machine, new, "at")
        assert (taken.changes, taken.kept) == ((), ("d",))


def test_a_change_that_can_not_be_read() -> None:
    error = MorphError("it is odd", reason=Reason.DEPLOY, hint="Make it even.")
    odd = Item(stat.S_IFREG | 0o644, 0, 0, b"1 2", left=True, error=error)
    with pytest.raises(MorphError, match="can't take over /etc/x, which was changed: it is odd"):
        take_over(only(A), only(odd), only(A), "at")
    assert take_over(only(odd), only(odd), only(B), "at").changes == ()


def test_extended_attributes_are_a_change_and_come_along() -> None:
    noted = replace(A, xattrs=((b"user.note", b"x"),))
    folder = replace(FOLDER, xattrs=((b"user.note", b"x"),))
    taken = take_over(only(A), {"x": noted, "d": folder}, only(A), "at")
    assert taken.changes == (
        Directory("at/d", xattrs=folder.xattrs),
        File("at/x", b"a", xattrs=noted.xattrs),
    )


def test_directories_that_the_new_version_lacks_are_made_once() -> None:
    old = {"d": FOLDER, "d/e": FOLDER, "d/e/f": A}
    machine = {**old, "d/e/f": A, "d/e/g": B, "d/e/h": C}
    taken = take_over(old, machine, {}, "at")
    assert taken.changes == (
        *(Directory("at/d"), Directory("at/d/e")),
        *(File("at/d/e/g", b"b"), File("at/d/e/h", b"c")),
    )
    assert taken.kept == ()


@pytest.mark.parametrize("instead", [A, link("elsewhere"), PIPE])
def test_nothing_goes_through_what_is_no_directory(instead: Item) -> None:
    """A symlink would lead out of /etc."""
    taken = take_over({"d": FOLDER}, {"d": FOLDER, "d/x": B}, {"d": instead}, "at")
    assert taken.changes == ()
    assert taken.kept == ("d/x",)


def test_a_directory_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o750)
    (tmp_path / "d/x").write_text("x\n")
    (tmp_path / "d/x").chmod(0o600)
    os.setxattr(tmp_path / "d/x", "user.note", b"y")
    (tmp_path / "l").symlink_to("d")
    (tmp_path / "huge").touch()
    with (tmp_path / "huge").open("r+b") as huge:
        huge.truncate(1 << 30)
    uid, gid = tmp_path.stat().st_uid, tmp_path.stat().st_gid
    found = read_etc_of_tree(tmp_path)
    assert found.pop("huge").left
    assert found == {
        "d": Item(stat.S_IFDIR | 0o750, uid, gid),
        "d/x": Item(stat.S_IFREG | 0o600, uid, gid, b"x\n", xattrs=((b"user.note", b"y"),)),
        "l": Item(stat.S_IFLNK, uid, gid, b"d"),
    }
