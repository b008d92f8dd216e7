"""Squashfs images, mounted and unpacked."""

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


def listed(image: Path) -> dict[str, list[str]]:
    """Path -> mode, owner and what else unsquashfs tells."""
    argv = ["unsquashfs", "-lln", "-dest", "", str(image)]
    said = subprocess.run(argv, capture_output=True, check=True).stdout
    lines = said.decode("utf-8", "surrogateescape").splitlines()
    return {line.partition("/")[2].partition("/")[2]: line.split() for line in lines if line}


@needs_root
@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd", "lz4", "lzo"])
def test_mounted_it_is_the_tree(tree: Path, tmp_path: Path, compression: str) -> None:
    fill(tree, nodes=True, owners=True)
    image = tmp_path / "x.sq"
    environment = {"SQUASHFS_COMPRESSION": compression, "SQUASHFS_BLOCK_SIZE": "64k"}
    succeed("squashfs.write", tree, image, env=environment)
    superblock = image.read_bytes()[:96]
    assert int.from_bytes(superblock[12:16], "little") == 64 << 10
    assert int.from_bytes(superblock[20:22], "little") == {
        "gzip": 1, "lzo": 3, "xz": 4, "lz4": 5, "zstd": 6
    }[compression]  # fmt: skip
    assert stat.S_IMODE(image.stat().st_mode) == 0o644
    argv = ["unsquashfs", "-dest", str(tmp_path / "unpacked"), str(image)]
    subprocess.run(argv, capture_output=True, check=True)
    assert seen(tmp_path / "unpacked") == seen(tree)


@needs_root
def test_the_kernel_sees_the_tree(tree: Path, tmp_path: Path) -> None:
    fill(tree, nodes=True, owners=True)
    succeed("squashfs.write", tree, tmp_path / "x.sq")
    with mounted(tmp_path / "x.sq", options="ro", kind="squashfs") as place:
        assert seen(place) == seen(tree)


def test_an_ordinary_user_gets_owners_and_devices(users_tree: Path) -> None:
    environment = fill(users_tree)
    if os.geteuid() == 0:
        for path in [users_tree, *users_tree.rglob("*")]:
            mode = path.lstat().st_mode
            os.chown(path, 65534, 65534, follow_symlinks=False)
            if not stat.S_ISLNK(mode):
                path.chmod(stat.S_IMODE(mode))
    image = users_tree.with_name("x.sq")
    done = run_in_namespace("squashfs.write", users_tree, image, env=environment)
    assert done.returncode == 0, done.stderr
    found = listed(image)
    assert found["bin/tool"][:2] == ["-rwsr-xr-x", "0/0"]
    assert found["dev/null"][:4] == ["crw-rw-rw-", "0/5", "1,", "3"]
    assert found['dev/sp ace "x"\\'][:2] == ["brw-r-----", "0/6"]
    if os.geteuid() == 0:
        # What the kernel sees, for unsquashfs shows such numbers wrong.
        with mounted(image, options="ro", kind="squashfs") as place:
            numbers = {path: (place / path).stat().st_rdev for path in DEVICES}
        assert numbers == {path: os.makedev(*device[3:]) for path, device in DEVICES.items()}


def test_equal_trees_give_equal_bytes(tree: Path, tmp_path: Path) -> None:
    environment = fill(tree)
    succeed("squashfs.write", tree, tmp_path / "a", env=environment)
    twin = tmp_path / "twin"
    shutil.copytree(tree, twin, symlinks=True, copy_function=shutil.copy, ignore=_special)
    os.mkfifo(twin / "fifo", 0o600)
    (twin / "bin/same").unlink()
    os.link(twin / "bin/tool", twin / "bin/same")
    os.setxattr(twin / "big", "user.note", b"\xff\0note\n")
    (twin / "dev").touch()
    # Whatever is later than the time that is given has that time.
    environment["SOURCE_DATE_EPOCH"] = str(TIME)
    succeed("squashfs.write", tree, tmp_path / "a", env=environment)
    succeed("squashfs.write", twin, tmp_path / "b", env=environment)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def _special(directory: str, names: list[str]) -> set[str]:
    return {"fifo"} & set(names)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SQUASHFS_COMPRESSION", "rar", "Invalid SQUASHFS_COMPRESSION rar"),
        ("SQUASHFS_BLOCK_SIZE", "100k", "a power of 2 from 4k to 1m, not 102400 bytes"),
        ("SQUASHFS_BLOCK_SIZE", "2m", "a power of 2 from 4k to 1m"),
        ("SQUASHFS_BLOCK_SIZE", "x", "Cannot parse SQUASHFS_BLOCK_SIZE"),
        ("UPGRADE", "yes", "Cannot upgrade a squashfs image"),
    ],
)
def test_what_makes_no_sense_is_refused_early(
    name: str, value: str, said: str, tmp_path: Path
) -> None:
    assert said in fail("squashfs.check", tmp_path / "x", env={name: value})


def test_a_failed_write_leaves_what_was_there(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.sq"
    target.write_text("before")
    (tree / "dev").mkdir()
    (tree / "dev/a\nb").touch()
    (tmp_path / "devices").write_text(
        '{"dev/a\\nb": {"mode": 8192, "uid": 0, "gid": 0, "major": 1, "minor": 3}}'
    )
    environment = {"MORPH_DEVICE_TABLE": str(tmp_path / "devices")}
    assert "newline" in fail("squashfs.write", tree, target, env=environment)
    assert target.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["devices", "tree", "x.sq"]
