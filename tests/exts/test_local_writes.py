"""What writes a tree to this machine: tar, sysroot and initramfs."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.exts.programs import NOBODY, fail, succeed
from tests.mounting import needs_root


@pytest.fixture
def full(tree: Path) -> Path:
    """A tree with something of everything."""
    (tree / ".hidden").write_text("hidden")
    (tree / "bin").mkdir()
    (tree / "bin/tool").write_text("#!/bin/sh\n")
    (tree / "bin/tool").chmod(0o4755)
    os.link(tree / "bin/tool", tree / "bin/same")
    (tree / "lib").symlink_to("usr/lib")
    (tree / "out").symlink_to("/etc/passwd")
    os.mkfifo(tree / "fifo")
    (tree / "dev").mkdir()
    (tree / "dev/null").write_text("")
    (tree / "big").write_bytes(b"x" * 70_000)
    (tree / "sp ace").write_text("x")
    for path in tree.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    return tree


@pytest.fixture
def table(tmp_path: Path) -> dict[str, str]:
    """The environment that says which device an empty file stands for."""
    node = {"mode": stat.S_IFCHR | 0o666, "uid": 0, "gid": 0, "major": 1, "minor": 3}
    (tmp_path / "devices").write_text(json.dumps({"dev/null": node}))
    return {"MORPH_DEVICE_TABLE": str(tmp_path / "devices")}


def test_tar_holds_everything(full: Path, table: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    target.write_text("old")
    succeed("tar.write", full, target, env=table)
    with tarfile.open(target) as archive:
        members = {member.name: member for member in archive}
        assert members["./.hidden"].size == len("hidden")
        assert members["./bin/same"].mode == members["./bin/tool"].mode == 0o4755
        assert {members["./bin/same"].islnk(), members["./bin/tool"].islnk()} == {True, False}
        assert members["./lib"].linkname == "usr/lib"
        assert members["./fifo"].isfifo()
        null = members["./dev/null"]
        assert null.ischr()
        assert (null.devmajor, null.devminor, null.mode) == (1, 3, 0o666)
        big = archive.extractfile("./big")
        assert big is not None
        assert big.read() == b"x" * 70_000
    assert target.stat().st_mode & 0o777 == 0o644


def test_equal_trees_give_equal_tars(full: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        succeed("tar.write", full, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_location_like_a_remote_host_is_a_file(full: Path, tmp_path: Path) -> None:
    succeed("tar.write", full, "-host:x.tar", cwd=tmp_path)
    assert tarfile.is_tarfile(tmp_path / "-host:x.tar")


def test_a_failed_write_leaves_what_was_there(full: Path, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    fail("tar.write", full, tmp_path / "directory")
    assert not list((tmp_path / "directory").iterdir())


LOCAL = ["tar", "sysroot", "initramfs", "squashfs", "ext4", "oci"]


@pytest.mark.parametrize("name", LOCAL)
def test_locations_are_checked(name: str, full: Path, tmp_path: Path) -> None:
    """Before anything is unpacked; directories on the way are made."""
    (tmp_path / "file").write_text("x")
    succeed(f"{name}.check", tmp_path / "a" / "b" / "out")
    assert not (tmp_path / "a").exists()
    shutil.rmtree(full / "dev")
    succeed(f"{name}.write", full, tmp_path / "a" / "b" / "out", env={"MORPH_ARCH": "x86_64"})
    assert (tmp_path / "a" / "b" / "out").exists()
    said = f"{tmp_path}/file is not a directory"
    assert said in fail(f"{name}.check", tmp_path / "file" / "b" / "out")
    (tmp_path / "circle").symlink_to("circle")
    assert f"can't write {tmp_path}/circle" in fail(f"{name}.check", tmp_path / "circle" / "out")
    user = NOBODY if os.geteuid() == 0 else None
    assert "can't write /: Permission denied" in fail(
        f"{name}.check", "/none/out", user=user, cwd=Path("/")
    )


def test_a_sysroot_is_not_the_machine_itself() -> None:
    for place in ("/", "/..", "/tmp/.."):
        assert "not written over" in fail("sysroot.check", place)


def test_tar_writes_to_what_is_no_file(full: Path, table: dict[str, str], tmp_path: Path) -> None:
    succeed("tar.write", full, tmp_path / "file", env=table)
    succeed("tar.write", full, "/dev/null", env=table)
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        succeed("tar.write", full, tmp_path / "pipe", env=table)
        assert reader.stdout is not None
        assert reader.stdout.read() == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("name", ["tar", "sysroot", "initramfs"])
def test_upgrades_are_refused(name: str, tmp_path: Path) -> None:
    said = fail(f"{name}.check", tmp_path / "x", env={"UPGRADE": "yes"})
    assert "Cannot upgrade" in said


def listing(root: Path) -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        key = str(path.relative_to(root))
        found[key] = (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink)
    return found


def test_sysroot_is_the_tree(full: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "root"
    succeed("sysroot.write", full, target)
    assert listing(target) == listing(full)
    assert target.stat().st_mode == full.stat().st_mode
    assert (target / ".hidden").read_text() == "hidden"


def test_sysroot_merges(full: Path, tmp_path: Path) -> None:
    target = tmp_path / "root"
    (target / "bin").mkdir(parents=True)
    (target / "bin/mine").write_text("mine")
    outside = tmp_path / "outside"
    outside.write_text("outside")
    (target / "bin/tool").symlink_to(outside)
    succeed("sysroot.write", full, target)
    assert (target / "bin/mine").read_text() == "mine"
    assert (target / "bin/tool").read_text() == "#!/bin/sh\n"
    assert outside.read_text() == "outside"


def test_sysroot_refuses_a_file(full: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "no directory" in fail("sysroot.check", tmp_path / "file")
    assert "no directory" in fail("sysroot.write", full, tmp_path / "file")


def test_initramfs_unpacks_to_the_tree(full: Path, table: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "boot" / "initramfs.gz"
    succeed("initramfs.write", full, target, env=table)
    archive = gzip.decompress(target.read_bytes())
    listed = subprocess.run(
        ["cpio", "--list", "--verbose", "--numeric-uid-gid"],
        input=archive,
        capture_output=True,
        check=True,
    ).stdout.decode()
    (null,) = [line for line in listed.splitlines() if line.endswith("dev/null")]
    assert null.startswith("crw-rw-rw-")
    assert "1,   3" in null
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(
        ["cpio", "--extract", "--make-directories", "--nonmatching", "dev/null"],
        cwd=unpacked,
        input=archive,
        capture_output=True,
        check=True,
    )
    assert (unpacked / "bin/tool").samefile(unpacked / "bin/same")
    assert (unpacked / "bin/same").read_text() == "#!/bin/sh\n"
    assert (unpacked / "big").read_bytes() == b"x" * 70_000
    assert (unpacked / "lib").readlink() == Path("usr/lib")
    assert stat.S_ISFIFO((unpacked / "fifo").stat().st_mode)
    again = tmp_path / "again.gz"
    succeed("initramfs.write", full, again, env=table)
    assert again.read_bytes() == target.read_bytes()


def test_what_an_initramfs_has_no_room_for(tree: Path, tmp_path: Path) -> None:
    """It must not end early, or hold garbage, without a word."""
    target = tmp_path / "initramfs.gz"
    for name, times in (("old", -5), ("young", 2**33)):
        (tree / name).write_text(name)
        os.utime(tree / name, (times, times))
    (tree / "etc/TRAILER!!!").write_text("the end")
    (tree / "zzz").write_text("the last one")
    succeed("initramfs.write", tree, target)
    listed = subprocess.run(
        ["cpio", "--list", "--quiet"],
        input=gzip.decompress(target.read_bytes()),
        capture_output=True,
        check=True,
    )
    assert not listed.stderr
    names = ["etc", "etc/TRAILER!!!", "old", "young", "zzz"]
    assert sorted(listed.stdout.decode().split()) == [".", *names]
    before = target.read_bytes()
    with (tree / "large").open("wb") as file:
        file.truncate(1 << 32)
    assert "/large can't be in an initramfs" in fail("initramfs.write", tree, target)
    (tree / "large").unlink()
    (tree / "TRAILER!!!").write_text("the end")
    assert "/TRAILER!!! can't be in an initramfs" in fail("initramfs.write", tree, target)
    assert target.read_bytes() == before


@needs_root
@pytest.mark.parametrize("name", LOCAL)
def test_a_full_disk(name: str, tree: Path, tmp_path: Path) -> None:
    """Nothing is left, and the error says where there was no room."""
    (tree / "big").write_bytes(os.urandom(1 << 20))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", small], check=True)
    try:
        said = fail(f"{name}.write", tree, small / "out", env={"MORPH_ARCH": "x86_64"})
        assert "No space left on device" in said
        assert str(small) in said
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("value", ["5", "null", '{"a": 1}', "[[1]]", "[" * 50_000, "x"])
def test_somebody_elses_variable_for_parameters(tree: Path, tmp_path: Path, value: str) -> None:
    """By hand, extensions are run with whatever there is."""
    succeed("tar.write", tree, tmp_path / "out.tar", env={"MORPH_PARAMETERS": value})
    assert tarfile.is_tarfile(tmp_path / "out.tar")
