from __future__ import annotations

import struct
from pathlib import Path

import pytest

from morphlib.errors import MorphError
from morphlib.writeexts import environment as env


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "DISK_SIZE",
        "RAM_SIZE",
        "VCPUS",
        "ATTACH_DISKS",
        "DTB_PATH",
        "ROOT_DEVICE",
        "KERNEL_ARGS",
        "BOOTLOADER_INSTALL",
        "BOOTLOADER_CONFIG_FORMAT",
        "FLAG",
    ):
        monkeypatch.delenv(name, raising=False)


def test_defaults() -> None:
    with pytest.raises(MorphError, match="DISK_SIZE is not defined"):
        env.get_disk_size()
    assert env.get_ram_size() == 1 << 30
    assert env.get_vcpu_count() == 1
    assert env.parse_attach_disks() == []
    assert env.get_dtb_path() == ""
    assert env.get_root_device() == "/dev/sda"
    assert env.get_extra_kernel_args() == ""
    assert env.get_bootloader_install() == "extlinux"
    assert env.get_bootloader_config_format() == "extlinux"
    assert env.get_environment_boolean("FLAG") is False
    assert env.get_environment_boolean("FLAG", "yes") is True


def test_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DISK_SIZE": "20M",
        "RAM_SIZE": "512m",
        "VCPUS": "2",
        "ATTACH_DISKS": "/a:/b c:",
        "DTB_PATH": "/boot/x.dtb",
        "ROOT_DEVICE": "/dev/vda",
        "KERNEL_ARGS": "quiet",
        "BOOTLOADER_INSTALL": "none",
        "FLAG": "True",
    }.items():
        monkeypatch.setenv(name, value)
    assert env.get_disk_size() == 20 << 20
    assert env.get_ram_size() == 512 << 20
    assert env.get_vcpu_count() == 2
    assert env.parse_attach_disks() == ["/a", "/b c"]
    assert env.get_dtb_path() == "boot/x.dtb"
    assert env.get_root_device() == "/dev/vda"
    assert env.get_extra_kernel_args() == "quiet"
    assert env.get_bootloader_install() == "none"
    assert env.get_environment_boolean("FLAG") is True


def test_wrong_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISK_SIZE", "FLAG", "BOOTLOADER_INSTALL", "BOOTLOADER_CONFIG_FORMAT"):
        monkeypatch.setenv(name, "odd")
    with pytest.raises(MorphError, match="Cannot parse DISK_SIZE value odd"):
        env.get_disk_size()
    with pytest.raises(MorphError, match="Unexpected value for FLAG: odd"):
        env.get_environment_boolean("FLAG")
    with pytest.raises(MorphError, match="Invalid BOOTLOADER_INSTALL odd"):
        env.get_bootloader_install()
    with pytest.raises(MorphError, match="Invalid BOOTLOADER_CONFIG_FORMAT odd"):
        env.get_bootloader_config_format()
    monkeypatch.setenv("DISK_SIZE", "0")
    with pytest.raises(MorphError, match="DISK_SIZE is not defined"):
        env.get_disk_size()


@pytest.mark.parametrize(
    ("order", "number", "wanted"),
    [("<", 62, True), ("<", 3, True), ("<", 183, False), (">", 21, False)],
)
def test_the_machine_of_the_system_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, number: int, wanted: bool
) -> None:
    """Whatever machine this runs on."""
    head = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("/usr/bin")
    program = head.ljust(18, b"\0") + struct.pack(f"{order}H", number)
    (tmp_path / "usr/bin/sh").write_bytes(program)
    assert env.bootloader_config_is_wanted(str(tmp_path)) is wanted
    monkeypatch.setattr("platform.machine", lambda: "aarch64" if wanted else "x86_64")
    assert env.bootloader_config_is_wanted(str(tmp_path)) is wanted
    assert env.bootloader_config_is_wanted() is not wanted
    monkeypatch.setenv("BOOTLOADER_CONFIG_FORMAT", "extlinux")
    assert env.bootloader_config_is_wanted(str(tmp_path)) is True


def test_without_programs_the_machine_counts_that_this_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").write_text("#!/x")
    for machine, wanted in (("x86_64", True), ("i686", True), ("armv7l", False)):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert env.bootloader_config_is_wanted(str(tmp_path)) is wanted
