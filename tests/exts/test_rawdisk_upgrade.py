"""rawdisk: versions that upgrades add, and going back to those that were there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from morphlib.images.btrfs.model import Change, Directory, File, Removal, Symlink
from morphlib.images.btrfs.reader import Image
from morphlib.images.btrfs.upgrade import upgrade_image
from morphlib.images.gpt import read_table
from morphlib.writeexts.disks import open_disk
from tests.exts.disks import BOOT, used_disk
from tests.exts.programs import NOBODY, fail, run_extension, succeed
from tests.mounting import mounted, needs_root


def upgrade(label: str) -> dict[str, str]:
    return {**BOOT, "UPGRADE": "yes", "VERSION_LABEL": label}


def switch(label: str) -> dict[str, str]:
    return {"UPGRADE": "yes", "SET_DEFAULT": label}


def test_upgrade_adds_a_version(systems: dict[str, Path], image: Path) -> None:
    with Image(image) as disk:
        before, config = disk.fsid, disk.read_file("extlinux.conf")
    succeed("rawdisk.check", image, env=upgrade("v2"))
    succeed("rawdisk.write", systems["two"], image, env=upgrade("v2"))
    subprocess.run(["btrfs", "check", image], check=True, capture_output=True)
    with Image(image) as disk:
        assert disk.fsid == before
        assert disk.read_file("extlinux.conf") == config
        assert disk.readlink("systems/default") == "v2"
        for label, version in (("factory", b"one\n"), ("v2", b"two\n")):
            for name in ("orig", "run"):
                assert disk.read_file(f"systems/{label}/{name}/etc/version") == version
        assert disk.read_file("state/home/kept") == b"of one\n"
        initramfs = disk.read_file("systems/default/initramfs")
        assert initramfs == (systems["two"] / "boot/initramfs.gz").read_bytes()
        fstab = disk.read_file("systems/v2/run/etc/fstab").decode()
        assert f"UUID={before}  / btrfs" in fstab


def test_upgrades_share_what_is_the_same(systems: dict[str, Path], image: Path) -> None:
    before = image.stat().st_blocks
    succeed("rawdisk.write", systems["two"], image, env=upgrade("v2"))
    kernel = (systems["two"] / "boot/vmlinuz").stat().st_size
    initramfs = (systems["two"] / "boot/initramfs.gz").stat().st_size
    # Kernel and initramfs come once more for the boot loader, and the initramfs is another one.
    assert (image.stat().st_blocks - before) * 512 < kernel + 2 * initramfs + (4 << 20)


def test_going_back(systems: dict[str, Path], image: Path) -> None:
    succeed("rawdisk.write", systems["two"], image, env=upgrade("v2"))
    succeed("rawdisk.check", image, env=switch("factory"))
    said = succeed("rawdisk.write", systems["two"], image, env=switch("factory"))
    assert f"Version factory boots from {image} now" in said
    with Image(image) as disk:
        assert disk.readlink("systems/default") == "factory"
        assert disk.exists("systems/v2/run/etc/version")
    assert "VERSION_LABEL v2 already exists" in fail("rawdisk.check", image, env=upgrade("v2"))


def test_what_the_machine_changed_in_etc_is_taken_over(
    systems: dict[str, Path], image: Path, tmp_path: Path
) -> None:
    run = "systems/factory/run/etc"
    changes: list[Change] = [
        File(f"{run}/machine-id", b"0123\n", 0o444),
        File(f"{run}/fstab", b"# by hand\n", 0o600, 0, 7),
        File(f"{run}/version", b"by hand\n"),
        Directory(f"{run}/ssh", 0o700),
        File(f"{run}/ssh/key", b"secret\n", 0o600),
        Symlink(f"{run}/localtime", "/usr/share/zoneinfo/UTC"),
    ]
    upgrade_image(image, changes, time=0)
    with Image(image) as disk:
        before = disk.read_file("systems/factory/orig/etc/fstab")
    done = run_extension("rawdisk.write", systems["two"], image, env=upgrade("v2"))
    assert done.returncode == 0, done.stderr
    subprocess.run(["btrfs", "check", image], check=True, capture_output=True)
    assert "Taking over 5 changes that were made in /etc" in done.stdout
    assert "/etc/version was changed in version factory, and is another in v2" in done.stderr
    assert done.stderr.count("WARNING") == 1
    with Image(image) as disk:
        etc = "systems/v2/run/etc"
        assert disk.read_file(f"{etc}/machine-id") == b"0123\n"
        assert disk.read_file(f"{etc}/ssh/key") == b"secret\n"
        assert disk.readlink(f"{etc}/localtime") == "/usr/share/zoneinfo/UTC"
        assert disk.read_file(f"{etc}/fstab") == b"# by hand\n"
        assert (disk.stat(f"{etc}/fstab").gid, disk.stat(f"{etc}/fstab").mode & 0o777) == (7, 0o600)
        assert disk.stat(f"{etc}/ssh").mode & 0o777 == 0o700
        assert disk.read_file(f"{etc}/version") == b"two\n"
        assert disk.read_file("systems/v2/orig/etc/fstab") == before
        assert not disk.exists("systems/v2/orig/etc/ssh")
    # What the machine removed stays away, and what was taken over is taken over again.
    upgrade_image(image, [Removal("systems/v2/run/etc/version")], time=0)
    again = shutil.copytree(systems["two"], tmp_path / "again", symlinks=True)
    succeed("rawdisk.write", again, image, env=upgrade("v3"))
    subprocess.run(["btrfs", "check", image], check=True, capture_output=True)
    with Image(image) as disk:
        assert disk.read_file("systems/v3/run/etc/ssh/key") == b"secret\n"
        assert not disk.exists("systems/v3/run/etc/version")
        assert disk.exists("systems/v3/orig/etc/version")


@needs_root
def test_odd_changes_in_etc(systems: dict[str, Path], image: Path, tmp_path: Path) -> None:
    new = {}
    for name, system in systems.items():
        new[name] = shutil.copytree(system, tmp_path / name, symlinks=True)
        for path in ("moved/x", "gone/x"):
            (new[name] / "etc" / path).parent.mkdir()
            (new[name] / "etc" / path).write_text("x\n")
        (new[name] / "etc/large").write_bytes(b"ab" * (9 << 20))
        os.utime(new[name] / "etc/large", (1, 1))  # as all in artifacts has one time
    image.unlink()
    succeed("rawdisk.write", new["one"], image, env=BOOT)
    odd = os.fsdecode(b"caf\xe9\n name")
    with mounted(image) as disk:
        etc = disk / "systems/factory/run/etc"
        shutil.move(etc / "moved", disk / "state/home/moved")
        (etc / "moved").symlink_to("/home/moved")
        shutil.rmtree(etc / "gone")
        (etc / odd).write_text("odd\n")
        (etc / "noted").write_text("noted\n")
        os.setxattr(etc / "noted", "user.note", b"x")
        os.chown(etc / "noted", 5, 6)
        (etc / "noted").chmod(0o6750)
        with (etc / "large").open("r+b") as file:  # of the same size
            file.write(b"changed")
        os.mkfifo(etc / "pipe")
    done = run_extension("rawdisk.write", new["two"], image, env=upgrade("v2"))
    assert done.returncode == 0, done.stderr
    for name in ("large", "pipe"):
        assert f"/etc/{name} was changed in version factory, but that is not taken" in done.stderr
    check = ["btrfs", "check", "--check-data-csum", str(image)]
    subprocess.run(check, check=True, capture_output=True)
    with mounted(image, options="ro") as disk:
        etc = disk / "systems/v2/run/etc"
        assert etc.joinpath("moved").readlink() == Path("/home/moved")
        assert (disk / "systems/v2/orig/etc/moved/x").read_text() == "x\n"
        assert not list((etc / "gone").iterdir())
        assert (etc / odd).read_text() == "odd\n"
        assert os.getxattr(etc / "noted", "user.note") == b"x"
        seen = (etc / "noted").stat()
        assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777) == (5, 6, 0o6750)
        assert (etc / "large").read_bytes()[:7] == b"abababa"


@needs_root
def test_changes_in_etc_that_can_not_be_read(systems: dict[str, Path], image: Path) -> None:
    """Nothing is upgraded without them: it might not be reached any more."""
    with mounted(image, options="compress-force=zstd") as disk:
        (disk / "systems/factory/run/etc/address").write_text("fe80::1\n" * 3000)
    before = image.read_bytes()
    said = fail("rawdisk.write", systems["two"], image, env=upgrade("v2"))
    assert "can't take over /etc/address, which was changed: a file on" in said
    assert "defragment -czlib" in said
    assert image.read_bytes() == before
    with mounted(image) as disk:
        command = ["btrfs", "-q", "filesystem", "defragment", "-czlib"]
        subprocess.run([*command, disk / "systems/factory/run/etc/address"], check=True)
    succeed("rawdisk.write", systems["two"], image, env=upgrade("v2"))
    with Image(image) as now:
        assert now.read_file("systems/v2/run/etc/address") == b"fe80::1\n" * 3000


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"UPGRADE": "yes"}, "VERSION_LABEL was not given. It is required when upgrading"),
        ({**upgrade("a"), "SET_DEFAULT": "factory"}, "were both given"),
        (upgrade("factory"), "VERSION_LABEL factory already exists"),
        (upgrade("default"), "can't be default"),
        (upgrade("../x"), "is not made of letters"),
        (switch("v9"), "there is no version v9 on"),
    ],
)
def test_upgrade_refuses(
    env: dict[str, str], said: str, systems: dict[str, Path], image: Path
) -> None:
    before = image.read_bytes()
    assert said in fail("rawdisk.check", image, env=env)
    assert said in fail("rawdisk.write", systems["two"], image, env=env)
    assert image.read_bytes() == before


def test_upgrade_that_could_not_boot(systems: dict[str, Path], image: Path) -> None:
    before = image.read_bytes()
    env = {**upgrade("v2"), "INITRAMFS_PATH": ""}
    said = fail("rawdisk.write", systems["two"], image, env=env)
    assert "version v2 could not boot" in said
    assert image.read_bytes() == before


def test_upgrade_without_a_system(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    said = fail("rawdisk.check", tmp_path / "disk.img", env=upgrade("v2"))
    assert "there is no system on" in said


def test_upgrade_of_what_is_in_use(systems: dict[str, Path], image: Path) -> None:
    with open_disk(image):
        for program, tree in (("rawdisk.check", ()), ("rawdisk.write", (systems["two"],))):
            assert "is in use by" in fail(program, *tree, image, env=upgrade("v2"))


@needs_root
@pytest.mark.parametrize("loader", ["extlinux", "extlinux+grub-efi"])
def test_upgrade_of_a_device(loader: str, systems: dict[str, Path]) -> None:
    with used_disk(192 << 20) as device:
        env = {**BOOT, "BOOTLOADER_INSTALL": loader}
        succeed("rawdisk.write", systems["one"], device, env=env)
        succeed("rawdisk.write", systems["two"], device, env=upgrade("v2"))
        partitions = read_table(device)
        offset = partitions[1].start if partitions else 0
        with Image(device, offset=offset) as disk:
            assert disk.readlink("systems/default") == "v2"
            assert disk.read_file("state/home/kept") == b"of one\n"


@needs_root
def test_ordinary_user_upgrades(users_tree: Path) -> None:
    target = users_tree.parent / "disk.img"
    size = {"DISK_SIZE": "64M"}
    succeed("rawdisk.write", users_tree, target, env=size, user=NOBODY)
    for env in ({"UPGRADE": "yes", "VERSION_LABEL": "v2"}, switch("factory")):
        succeed("rawdisk.write", users_tree, target, env=env, user=NOBODY)
    with Image(target) as disk:
        assert disk.listdir("systems") == ["default", "factory", "v2"]
        assert disk.readlink("systems/default") == "factory"
