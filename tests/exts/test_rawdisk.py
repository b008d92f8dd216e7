"""rawdisk: what is on the disk, and what is refused before anything is touched."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from morphlib.images.btrfs.reader import Image
from morphlib.images.gpt import read_table
from tests.exts.disks import BOOT, SIZE, used_disk
from tests.exts.programs import EXTS, NOBODY, fail, succeed
from tests.mounting import needs_root

# ---- New images --------------------------------------------------------------------------------


def test_layout(image: Path) -> None:
    with Image(image) as disk:
        assert {each.path for each in disk.subvolumes()} == {
            *("systems/factory/orig", "systems/factory/run"),
            *(f"state/{name}" for name in ("home", "opt", "root", "srv", "var")),
        }
        assert disk.readlink("systems/default") == "factory"
        assert disk.read_file("state/home/kept") == b"of one\n"
        assert disk.listdir("systems/factory/run/home") == []
        assert disk.read_file("systems/default/run/etc/version") == b"one\n"
        fstab = disk.read_file("systems/factory/orig/etc/fstab").decode()
        assert f"UUID={disk.fsid}  /home  btrfs subvol=/state/home,defaults,rw,noatime 0 2" in fstab
        # Mount points for which the system had no directory.
        assert disk.listdir("systems/factory/run/srv") == []


def test_boot_loader_finds_its_files(image: Path, systems: dict[str, Path]) -> None:
    with Image(image) as disk:
        for name, source in (("kernel", "vmlinuz"), ("initramfs", "initramfs.gz")):
            content = disk.read_file(f"systems/default/{name}")
            assert content == (systems["one"] / "boot" / source).read_bytes()
        config = disk.read_file("extlinux.conf").decode()
        assert "kernel /systems/default/kernel\ninitrd /systems/default/initramfs\n" in config
        assert f"root=UUID={disk.fsid} console=ttyS0\n" in config


def test_is_a_good_file_system(image: Path) -> None:
    subprocess.run(["btrfs", "check", image], check=True, capture_output=True)


def test_takes_no_more_room_than_needed(image: Path) -> None:
    found = image.stat()
    assert found.st_size == 256 << 20
    assert found.st_blocks * 512 < 80 << 20
    assert stat.S_IMODE(found.st_mode) == 0o644


def test_the_system_stays_as_it_is(systems: dict[str, Path], image: Path) -> None:
    assert (systems["one"] / "etc/fstab").read_text() == ""
    assert (systems["one"] / "home/kept").exists()
    assert not (systems["one"] / "srv").exists()


@pytest.mark.parametrize("loader", ["extlinux", "grub-efi", "extlinux+grub-efi", "none"])
def test_same_bytes_each_time(loader: str, systems: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        env = {**BOOT, "BOOTLOADER_INSTALL": loader}
        succeed("rawdisk.write", systems["one"], tmp_path / name, env=env)
    assert subprocess.run(["cmp", tmp_path / "a", tmp_path / "b"], check=False).returncode == 0


def test_no_two_systems_have_the_same_uuid(systems: dict[str, Path], tmp_path: Path) -> None:
    found = set()
    for name, env in (("one", SIZE), ("two", SIZE), ("one", {"DISK_SIZE": "257M"})):
        succeed("rawdisk.write", systems[name], tmp_path / "disk", env=env)
        with Image(tmp_path / "disk") as disk:
            found.add(disk.fsid)
        (tmp_path / "disk").unlink()
    assert len(found) == 3


@needs_root
def test_ordinary_user_makes_the_same(users_tree: Path, tmp_path: Path) -> None:
    """Owners aside, which are the user's here."""
    (users_tree / "boot").mkdir()
    (users_tree / "boot/vmlinuz").write_bytes(b"kernel")
    for path in (users_tree, *users_tree.rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    target = users_tree.parent / "disk.img"
    env = {**SIZE, "BOOTLOADER_INSTALL": "extlinux+grub-efi"}
    succeed("rawdisk.write", users_tree, target, env=env, user=NOBODY)
    succeed("rawdisk.write", users_tree, tmp_path / "disk.img", env=env)
    compared = subprocess.run(["cmp", target, tmp_path / "disk.img"], check=False)
    assert compared.returncode == 0


def test_partitions(systems: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "disk.img"
    env = {**SIZE, "BOOTLOADER_INSTALL": "grub-efi"}
    succeed("rawdisk.write", systems["one"], target, env=env)
    esp, root = read_table(target)
    assert (esp.name, root.name) == ("EFI system", "baserock")
    subprocess.run(["sgdisk", "--verify", target], check=True, capture_output=True)
    with Image(target, offset=root.start) as disk:
        # Without an initramfs the kernel itself has to find the partition.
        config = disk.read_file("extlinux.conf").decode()
        assert f"root=PARTUUID={root.guid}\n" in config
        assert "initrd" not in config


def test_root_device(systems: dict[str, Path], tmp_path: Path) -> None:
    env = {**SIZE, "ROOT_DEVICE": "/dev/vda"}
    succeed("rawdisk.write", systems["one"], tmp_path / "disk.img", env=env)
    with Image(tmp_path / "disk.img") as disk:
        assert "root=/dev/vda\n" in disk.read_file("extlinux.conf").decode()


def test_device_tree(systems: dict[str, Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(systems["one"], tree, symlinks=True)
    (tree / "boot/board.dtb").write_bytes(b"board")
    env = {**SIZE, "DTB_PATH": "/boot/board.dtb", "BOOTLOADER_INSTALL": "none"}
    succeed("rawdisk.write", tree, tmp_path / "disk.img", env=env)
    with Image(tmp_path / "disk.img") as disk:
        assert disk.read_file("systems/factory/dtb") == b"board"
        assert "devicetree /systems/default/dtb" in disk.read_file("extlinux.conf").decode()
        assert not disk.exists("ldlinux.c32")


def test_boot_loader_is_that_of_the_systems_architecture(
    systems: dict[str, Path], tmp_path: Path
) -> None:
    env = {**SIZE, "MORPH_ARCH": "armv7lhf"}
    succeed("rawdisk.check", tmp_path / "disk.img", env=env)
    succeed("rawdisk.write", systems["one"], tmp_path / "disk.img", env=env)
    with Image(tmp_path / "disk.img") as disk:
        assert disk.listdir("") == ["state", "systems"]
    for loader in ("extlinux", "grub-efi"):
        env |= {"BOOTLOADER_CONFIG_FORMAT": "extlinux", "BOOTLOADER_INSTALL": loader}
        said = fail("rawdisk.check", tmp_path / "other.img", env=env)
        assert f"{loader} boots systems for x86" in said
        assert "this one is for armv7lhf" in said


# ---- What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "DISK_SIZE is not defined"),
        ({"DISK_SIZE": "0"}, "DISK_SIZE is not defined"),
        ({"DISK_SIZE": "big"}, "Cannot parse DISK_SIZE value big"),
        ({**SIZE, "BOOTLOADER_INSTALL": "lilo"}, "Invalid BOOTLOADER_INSTALL lilo"),
        ({**SIZE, "BOOTLOADER_CONFIG_FORMAT": "x"}, "Invalid BOOTLOADER_CONFIG_FORMAT x"),
        ({**SIZE, "INITRAMFS_PATH": "../../etc/passwd"}, "leads out of the system"),
        ({**SIZE, "KERNEL_ARGS": "a\nappend b"}, "KERNEL_ARGS has to be one line"),
        ({"UPGRADE": "yes", "VERSION_LABEL": "v2"}, "it is not an existing disk image"),
    ],
)
def test_check_refuses(env: dict[str, str], said: str, tmp_path: Path) -> None:
    assert said in fail("rawdisk.check", tmp_path / "disk.img", env=env)
    assert not list(tmp_path.iterdir())


def test_directories_are_made(users_tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "disk.img"
    env = {"DISK_SIZE": "64M"}
    succeed("rawdisk.check", target, env=env)
    assert not list(tmp_path.iterdir())
    succeed("rawdisk.write", users_tree, target, env=env)
    assert target.is_file()


def test_check_wants_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    said = fail("rawdisk.check", tmp_path / "file" / "b" / "disk.img", env=SIZE)
    assert f"{tmp_path}/file is not a directory" in said


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"INITRAMFS_PATH": "boot/none"}, "INITRAMFS_PATH specified, but file does not exist"),
        ({"DTB_PATH": "boot/none"}, "Failed to find device tree boot/none"),
        ({"DISK_SIZE": "8M"}, "does not fit on the disk"),
        ({"DISK_SIZE": "2M", "BOOTLOADER_INSTALL": "grub-efi"}, "does not fit on the disk"),
        ({"DISK_SIZE": "16M", "BOOTLOADER_INSTALL": "grub-efi"}, "does not fit on the disk"),
    ],
)
def test_failed_write_leaves_nothing(
    env: dict[str, str], said: str, systems: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "disk.img"
    done = subprocess.run(
        [sys.executable, EXTS / "rawdisk.write", systems["one"], target],
        env={"PATH": os.environ["PATH"], **BOOT, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    told, error = done.stderr.split("\n", 1)
    assert told == f"Failure to deploy system to {target}"
    assert error.startswith("ERROR: ")
    assert said in error
    assert not list(tmp_path.iterdir())


def test_interrupted_write_leaves_nothing(systems: dict[str, Path], tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, EXTS / "rawdisk.write", systems["one"], tmp_path / "disk.img"],
        env={"PATH": os.environ["PATH"], **BOOT},
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"Creating disk image\n"
    program.terminate()
    program.communicate(timeout=60)
    assert program.returncode == -signal.SIGTERM
    assert not list(tmp_path.iterdir())


@needs_root
def test_check_wants_to_be_let_in(users_tree: Path) -> None:
    closed = users_tree.parent / "closed"
    closed.mkdir()
    said = fail("rawdisk.check", closed / "disk.img", env=SIZE, user=NOBODY)
    assert f"can't write {closed}: Permission denied" in said
    (closed / "disk.img").write_bytes(bytes(1 << 20))
    env = {"UPGRADE": "yes", "VERSION_LABEL": "v2"}
    said = fail("rawdisk.check", closed / "disk.img", env=env, user=NOBODY)
    assert f"can't write {closed}/disk.img: Permission denied" in said


def test_what_is_there_stays(systems: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "disk.img"
    target.write_text("mine")
    for program, tree in (("rawdisk.check", ()), ("rawdisk.write", (systems["one"],))):
        said = fail(program, *tree, target, env=SIZE)
        assert f"Target {target} already exists. Use `morph upgrade`" in said
    assert target.read_text() == "mine"


# ---- Block devices -----------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("loader", ["extlinux", "extlinux+grub-efi"])
def test_device(loader: str, systems: dict[str, Path]) -> None:
    env = {**BOOT, "BOOTLOADER_INSTALL": loader, "DISK_SIZE": ""}
    with used_disk(192 << 20) as device:
        succeed("rawdisk.check", device, env=env)
        said = succeed("rawdisk.write", systems["one"], device, env=env)
        assert f"System deployed to {device}" in said
        partitions = read_table(device)
        assert len(partitions) == (0 if loader == "extlinux" else 2)
        offset = partitions[1].start if partitions else 0
        with Image(device, offset=offset) as disk:
            assert disk.read_file("systems/default/run/etc/version") == b"one\n"


@needs_root
def test_device_is_touched_only_when_all_fits(systems: dict[str, Path]) -> None:
    with used_disk(16 << 20) as device:
        for loader in ("extlinux", "grub-efi"):
            env = {**BOOT, "BOOTLOADER_INSTALL": loader}
            done = subprocess.run(
                [sys.executable, EXTS / "rawdisk.write", systems["one"], device],
                env={"PATH": os.environ["PATH"], **env},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 1
            assert "does not fit on the disk" in done.stderr
            assert device.read_bytes() == b"x" * (16 << 20)


@needs_root
def test_mounted_device_is_refused(systems: dict[str, Path], tmp_path: Path) -> None:
    with used_disk(192 << 20) as device:
        subprocess.run(["mkfs.btrfs", "-q", "-f", device], check=True)
        subprocess.run(["mount", device, tmp_path], check=True)
        try:
            for program, tree in (("rawdisk.check", ()), ("rawdisk.write", (systems["one"],))):
                assert "is in use" in fail(program, *tree, device, env=BOOT)
        finally:
            subprocess.run(["umount", tmp_path], check=True)
