"""baserock-system-config-sync of the example, run by the shell and with the tools of its system."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = (
    Path(__file__).resolve().parents[2]
    / "examples/files/system-version-manager/usr/bin/baserock-system-config-sync"
)
BUSYBOX = Path("/bin/busybox")
LINES = "first\nsecond\nthird\nfourth\nfifth\nsixth\nseventh\neighth\n"


@dataclass(frozen=True, slots=True)
class Trees:
    """The old version as it was made, the old one as it is now, and the new one."""

    directory: Path

    def make(self, name: str, files: Mapping[str, str]) -> Path:
        tree = self.directory / name
        (tree / "etc").mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            (tree / "etc" / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / "etc" / path).write_text(text)
        return tree

    def sync(self) -> str:
        """Run the program. Returns what it said."""
        tools = self.directory / "tools"
        tools.mkdir()
        names = subprocess.run(
            [BUSYBOX, "--list"], check=True, capture_output=True, text=True
        ).stdout.split()
        for name in names:
            (tools / name).symlink_to(BUSYBOX)
        done = subprocess.run(
            [tools / "sh", PROGRAM, *(self.directory / name for name in ("orig", "run", "new"))],
            env={"PATH": str(tools), "TMPDIR": str(self.directory)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout

    @property
    def new(self) -> Path:
        return self.directory / "new" / "etc"


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path)


def test_changes_of_either_side_are_taken(trees: Trees) -> None:
    old = {"same": "a", "theirs": "a", "ours": "a", "gone": "a", "dropped": "a"}
    trees.make("orig", old)
    run = trees.make("run", {**old, "ours": "mine", "added": "mine", "deep/er": "mine"})
    (run / "etc/gone").unlink()
    trees.make("new", {"same": "a", "theirs": "b", "ours": "a", "gone": "a", "fresh": "b"})
    trees.sync()
    found = {
        str(path.relative_to(trees.new)): path.read_text()
        for path in trees.new.rglob("*")
        if path.is_file()
    }
    assert found == {
        "same": "a",
        "theirs": "b",
        "ours": "mine",
        "added": "mine",
        "deep/er": "mine",
        "fresh": "b",
    }


def test_changes_of_both_sides_in_one_file_go_together(trees: Trees) -> None:
    trees.make("orig", {"hosts": LINES})
    trees.make("run", {"hosts": LINES.replace("first", "mine")})
    trees.make("new", {"hosts": LINES + "new\n"})
    said = trees.sync()
    assert (trees.new / "hosts").read_text() == LINES.replace("first", "mine") + "new\n"
    assert "/etc/hosts" in said


def test_where_changes_collide_the_own_one_stays_and_the_new_one_is_beside(trees: Trees) -> None:
    trees.make("orig", {"hosts": LINES})
    trees.make("run", {"hosts": LINES.replace("first", "mine")})
    trees.make("new", {"hosts": LINES.replace("first", "theirs")})
    said = trees.sync()
    assert (trees.new / "hosts").read_text() == LINES.replace("first", "mine")
    assert (trees.new / "hosts.new").read_text() == LINES.replace("first", "theirs")
    assert "/etc/hosts: changed here and in the new version" in said


def test_what_cannot_be_compared_by_lines_stays_too(trees: Trees) -> None:
    trees.make("orig", {"key": "\0old"})
    trees.make("run", {"key": "\0mine"})
    trees.make("new", {"key": "\0theirs"})
    trees.sync()
    assert (trees.new / "key").read_text() == "\0mine"
    assert (trees.new / "key.new").read_text() == "\0theirs"


def test_permissions_and_links_count(trees: Trees) -> None:
    for name in ("orig", "run", "new"):
        tree = trees.make(name, {"secret": "x", "directory/file": "x"})
        (tree / "etc/link").symlink_to("mine" if name == "run" else "theirs")
    (trees.directory / "run/etc/secret").chmod(0o600)
    (trees.directory / "run/etc/directory").chmod(0o700)
    trees.sync()
    assert (trees.new / "secret").stat().st_mode & 0o777 == 0o600
    assert (trees.new / "directory").stat().st_mode & 0o777 == 0o700
    assert (trees.new / "link").readlink() == Path("mine")


def test_a_directory_goes_only_if_the_new_version_has_nothing_new_in_it(trees: Trees) -> None:
    trees.make("orig", {"one/file": "x", "two/file": "x"})
    trees.make("run", {})
    trees.make("new", {"one/file": "x", "two/file": "x", "two/fresh": "x"})
    trees.sync()
    assert not (trees.new / "one").exists()
    assert [path.name for path in (trees.new / "two").iterdir()] == ["fresh"]


def test_no_link_of_the_new_version_leads_anywhere_else(trees: Trees) -> None:
    trees.make("orig", {"conf/file": "x"})
    trees.make("run", {"conf/file": "mine", "conf/added": "mine"})
    outside = trees.directory / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    trees.make("new", {})
    (trees.new / "conf").symlink_to(outside)
    said = trees.sync()
    assert (outside / "file").read_text() == "x"
    assert not (outside / "added").exists()
    assert "/etc/conf/file: changed here" in said


def test_names_with_blanks_and_patterns_are_names(trees: Trees) -> None:
    trees.make("orig", {"a b": "x", "*": "x"})
    trees.make("run", {"a b": "mine", "*": "mine", "-n": "mine"})
    trees.make("new", {"a b": "x", "*": "x"})
    trees.sync()
    assert {path.name: path.read_text() for path in trees.new.iterdir()} == dict.fromkeys(
        ("a b", "*", "-n"), "mine"
    )
