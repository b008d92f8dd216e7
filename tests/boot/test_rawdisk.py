"""Disks that rawdisk writes boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.qemu import Firmware, boot
from tests.boot.tiny import make_system
from tests.exts.programs import succeed
from tests.mounting import loop_device, needs_root

PARAMETERS = {
    "DISK_SIZE": "256M",
    "INITRAMFS_PATH": "boot/initramfs.gz",
    "KERNEL_ARGS": "console=ttyS0 quiet",
}


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("systems")
    return {name: make_system(directory / name, name) for name in ("one", "two")}


@pytest.mark.parametrize(
    ("loader", "firmware"),
    [
        ("extlinux", Firmware.BIOS),
        ("grub-efi", Firmware.UEFI),
        ("extlinux+grub-efi", Firmware.BIOS),
        ("extlinux+grub-efi", Firmware.UEFI),
    ],
)
def test_boots(loader: str, firmware: Firmware, systems: dict[str, Path], tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    env = {**PARAMETERS, "BOOTLOADER_INSTALL": loader}
    succeed("rawdisk.write", systems["one"], image, env=env)
    said = boot(image, firmware)
    assert "initramfs one starts" in said
    assert "system one runs" in said
    assert "console=ttyS0 quiet" in said
    for name in ("home", "opt", "root", "srv", "var"):
        assert f"mounted: /{name} " in said
    assert "state: of one" in said


@needs_root
def test_disk_with_large_sectors_boots(systems: dict[str, Path], tmp_path: Path) -> None:
    """The table of partitions counts in sectors."""
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    env = {**PARAMETERS, "BOOTLOADER_INSTALL": "grub-efi", "DISK_SIZE": ""}
    with loop_device(image, "--sector-size", "4096") as device:
        succeed("rawdisk.write", systems["one"], device, env=env)
    assert "system one runs" in boot(image, Firmware.UEFI, sector=4096)
