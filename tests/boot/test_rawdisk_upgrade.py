"""Disks that rawdisk has upgraded boot the new version, and the old one when that is taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.qemu import Firmware, boot
from tests.boot.tiny import make_system
from tests.exts.programs import succeed

PARAMETERS = {
    "DISK_SIZE": "256M",
    "INITRAMFS_PATH": "boot/initramfs.gz",
    "KERNEL_ARGS": "console=ttyS0 quiet",
}
UPGRADE = {**PARAMETERS, "UPGRADE": "yes"}


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("systems")
    return {name: make_system(directory / name, name) for name in ("one", "two")}


@pytest.mark.parametrize(
    ("loader", "firmware"), [("extlinux", Firmware.BIOS), ("grub-efi", Firmware.UEFI)]
)
def test_upgrade_boots_and_so_does_going_back(
    loader: str, firmware: Firmware, systems: dict[str, Path], tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    env = {**PARAMETERS, "BOOTLOADER_INSTALL": loader}
    succeed("rawdisk.write", systems["one"], image, env=env)
    succeed("rawdisk.write", systems["two"], image, env={**UPGRADE, "VERSION_LABEL": "v2"})
    said = boot(image, firmware)
    assert "initramfs two starts" in said
    assert "system two runs" in said
    assert "subvol=/systems/v2/run" in said
    assert "state: of one" in said
    succeed("rawdisk.write", systems["two"], image, env={**UPGRADE, "SET_DEFAULT": "factory"})
    said = boot(image, firmware)
    assert "initramfs one starts" in said
    assert "system one runs" in said
    assert "state: of one" in said
