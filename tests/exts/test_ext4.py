"""Ext4 images, checked and mounted."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.exts.programs import fail, run_in_namespace, succeed
from tests.exts.trees import DEVICES, TIME, fill, seen
from tests.mounting import mounted, needs_root


def check(image: Path) -> None:
    done = subprocess.run(["/sbin/e2fsck", "-fn", image], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def superblock(image: Path) -> dict[str, str]:
    argv = ["/sbin/dumpe2fs", "-h", str(image)]
    said = subprocess.run(argv, capture_output=True, check=True, text=True).stdout
    pairs = (line.split(":", 1) for line in said.splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs}


def debugfs(image: Path, command: str) -> str:
    argv = ["/sbin/debugfs", "-R", command, str(image)]
    return subprocess.run(argv, capture_output=True, check=True, text=True).stdout


def without_lost_found(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {path: entry for path, entry in found.items() if path != "lost+found"}


@needs_root
@pytest.mark.parametrize("size", ["", "200m"])
def test_mounted_it_is_the_tree(tree: Path, tmp_path: Path, size: str) -> None:
    fill(tree, nodes=True, owners=True)
    os.setxattr(tree / "etc", "security.note", b"of a directory")
    os.setxattr(tree / "bin/tool", "user.long", b"x" * 2000)
    os.utime(tree, (TIME, TIME))
    image = tmp_path / "x.ext4"
    succeed("ext4.write", tree, image, env={"DISK_SIZE": size})
    check(image)
    with mounted(image, options="ro", kind="ext4") as place:
        assert (place / "lost+found").is_dir()
        assert without_lost_found(seen(place)) == seen(tree)
    if size:
        assert image.stat().st_size == 200 << 20
    assert image.stat().st_blocks * 512 < 30 << 20
    # It can be written to, in all the ways that need room.
    with mounted(image, kind="ext4") as place:
        (place / "new").mkdir()
        (place / "new/file").write_bytes(b"x" * 100_000)
        for number in range(200):
            (place / f"many/new-file-with-a-rather-long-name-{number}").touch()
    check(image)


def test_an_ordinary_user_gets_owners_and_devices(users_tree: Path) -> None:
    environment = fill(users_tree)
    if os.geteuid() == 0:
        for path in [users_tree, *users_tree.rglob("*")]:
            mode = path.lstat().st_mode
            os.chown(path, 65534, 65534, follow_symlinks=False)
            if not stat.S_ISLNK(mode):
                path.chmod(stat.S_IMODE(mode))
    image = users_tree.with_name("x.ext4")
    done = run_in_namespace("ext4.write", users_tree, image, env=environment)
    assert done.returncode == 0, done.stderr
    check(image)
    tool = debugfs(image, "stat /bin/tool")
    assert "Mode:  04755" in tool
    assert "User:     0   Group:     0" in tool
    null = debugfs(image, "stat /dev/null")
    assert "Type: character special    Mode:  0666" in null
    assert "User:     0   Group:     5" in null
    assert "Device major/minor number: 01:03" in null
    if os.geteuid() == 0:
        with mounted(image, options="ro", kind="ext4") as place:
            numbers = {path: (place / path).stat().st_rdev for path in DEVICES}
        assert numbers == {path: os.makedev(*device[3:]) for path, device in DEVICES.items()}


def test_equal_trees_give_equal_bytes(tree: Path, tmp_path: Path) -> None:
    """In whatever order directories are read, and whether or not files have holes."""
    environment = fill(tree) | {"SOURCE_DATE_EPOCH": str(TIME), "MORPH_SYSTEM_KEY": "k"}
    succeed("ext4.write", tree, tmp_path / "a", env=environment)
    twin = tmp_path / "twin"
    twin.mkdir()
    for path in sorted(tree.rglob("*"), reverse=True):
        copy = twin / path.relative_to(tree)
        if path.is_dir() and not path.is_symlink():
            copy.mkdir(parents=True, exist_ok=True)
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "fifo":
            os.mkfifo(copy, 0o600)
        else:
            shutil.copy(path, copy, follow_symlinks=False)
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            (twin / path.relative_to(tree)).chmod(path.stat().st_mode)
    (twin / "bin/same").unlink()
    os.link(twin / "bin/tool", twin / "bin/same")
    os.setxattr(twin / "big", "user.note", b"\xff\0note\n")
    succeed("ext4.write", twin, tmp_path / "b", env=environment)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    succeed("ext4.write", twin, tmp_path / "b", env={**environment, "MORPH_SYSTEM_KEY": "other"})
    one, other = superblock(tmp_path / "a"), superblock(tmp_path / "b")
    assert one["Filesystem UUID"] != other["Filesystem UUID"]
    assert one["Filesystem created"] == other["Filesystem created"]


def test_label_and_time(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "x"
    environment = {"EXT4_LABEL": "rööt", "SOURCE_DATE_EPOCH": "0", "TZ": "UTC"}
    succeed("ext4.write", tree, image, env=environment)
    found = superblock(image)
    assert found["Filesystem volume name"] == "rööt"
    assert found["Filesystem created"].endswith("1970")
    assert found["Last write time"].endswith("1970")
    first = image.read_bytes()
    succeed("ext4.write", tree, image, env=environment)
    assert image.read_bytes() == first


def test_a_tree_may_have_lost_and_found(tree: Path, tmp_path: Path) -> None:
    (tree / "lost+found").mkdir(mode=0o711)
    (tree / "lost+found/x").write_text("x")
    succeed("ext4.write", tree, tmp_path / "x")
    check(tmp_path / "x")
    assert "Mode:  0711" in debugfs(tmp_path / "x", "stat /lost+found")
    assert debugfs(tmp_path / "x", "cat /lost+found/x") == "x"


def test_what_does_not_fit_is_told(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.ext4"
    target.write_text("before")
    (tree / "etc/big").write_bytes(os.urandom(5 << 20))
    said = fail("ext4.write", tree, target, env={"DISK_SIZE": "4m"})
    assert "the system does not fit into the ext4 image" in said
    assert "DISK_SIZE" in said
    (tree / "etc/big").unlink()
    (tree / "etc/a\nb").touch()
    assert "has a newline in it" in fail("ext4.write", tree, target)
    assert target.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["tree", "x.ext4"]


def test_a_large_system_gets_the_room_it_needs(tree: Path, tmp_path: Path) -> None:
    (tree / "etc/big").write_bytes(os.urandom(1 << 20) * 150)
    for number in range(3000):
        (tree / f"etc/{number}").write_text("x")
    for number in range(500):
        (tree / f"etc/d{number}").mkdir()
    succeed("ext4.write", tree, tmp_path / "x")
    check(tmp_path / "x")
    assert 150 << 20 < (tmp_path / "x").stat().st_size < 300 << 20
    assert int(superblock(tmp_path / "x")["Free blocks"]) * 4096 > 25 << 20


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DISK_SIZE", "big", "Cannot parse DISK_SIZE value big"),
        ("DISK_SIZE", "100k", "DISK_SIZE 102400 is too small"),
        ("EXT4_LABEL", "12345678901234567", "is longer than 16 bytes"),
        ("UPGRADE", "yes", "Cannot upgrade an ext4 image"),
    ],
)
def test_what_makes_no_sense_is_refused_early(
    name: str, value: str, said: str, tmp_path: Path
) -> None:
    assert said in fail("ext4.check", tmp_path / "x", env={name: value})
