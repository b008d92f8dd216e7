"""Disk images that boot: what rawdisk and the extensions for virtual machines have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from morphlib.errors import MorphError, Reason
from morphlib.images import esp as efi
from morphlib.images import gpt, syslinux
from morphlib.images.btrfs.create import create_image, least_size
from morphlib.images.btrfs.model import Entry, File
from morphlib.images.esp import FIRMWARES, Firmware, make_esp
from morphlib.images.gpt import ALIGNMENT, Partition
from morphlib.images.programs import Data, Program, check_there
from morphlib.images.syslinux import GPT_MBR, read_syslinux
from morphlib.writeexts.aside import new_file
from morphlib.writeexts.boot import extlinux_config
from morphlib.writeexts.devices import Device
from morphlib.writeexts.imageidentity import identify
from morphlib.writeexts.imagelayout import (
    BootFiles,
    System,
    initial_entries,
    read_boot_files,
)
from morphlib.writeexts.imageparameters import (
    BOOTLOADER_CONFIG_FORMAT,
    BOOTLOADER_INSTALL,
    DISK_SIZE,
    DTB_PATH,
    KERNEL_ARGS,
    ROOT_DEVICE,
    Bootloader,
)
from morphlib.writeexts.machine import architecture_of, is_x86, this_architecture
from morphlib.writeexts.output import status
from morphlib.writeexts.parameters import Parameters, parameter_error
from morphlib.writeexts.tree import Tree

#: Of all that the tree gives no time for, in seconds since 1970: that of files in artifacts.
TIME = 683074800
_LABEL = "baserock"
_LARGE_DISK = 1 << 30
_SMALL_ESP, _LARGE_ESP = 8 << 20, 64 << 20


def check_system_image(given: Parameters) -> None:
    """For `.check`: refuse what `make_system_image` could not do, before there is a tree.

    `given` has the values of `IMAGE_PARAMETERS`. Raises MorphError if the size is missing, or a
    program that is needed for the boot loader, with the Debian package that has it.
    """
    if not given[DISK_SIZE]:
        raise parameter_error("DISK_SIZE is not defined")
    check_bootloader(given)


def check_bootloader(given: Parameters) -> None:
    """Raise MorphError if a program is missing that the boot loader needs.

    Without the tree the system is taken to be for this machine, if the deployment does not tell
    (MORPH_ARCH).
    """
    architecture = given.environment.get("MORPH_ARCH") or this_architecture()
    chosen = choose_bootloader(given, architecture)
    check_there(_programs(chosen, FIRMWARES.get(architecture)), what=_need(chosen))


def make_system_image(
    tree: Tree,
    image: Path,
    given: Parameters,
    *,
    devices: Mapping[str, Device],
    default_root_device: str = "/dev/sda",
) -> None:
    """Make a raw disk image of DISK_SIZE bytes, sparse, with the system in `tree` on it.

    `image` must not exist; it gets its name when it is complete. `devices` is what `Extension`
    gives under that name. `default_root_device` is what the system's disk is called on the machine
    if ROOT_DEVICE does not say. `given` has the values of `IMAGE_PARAMETERS`. The tree stays as it
    is; the same tree and parameters give the same bytes. Raises MorphError.
    """
    plan = plan_disk(tree, given, devices=devices, default_root_device=default_root_device)
    check_system_image(given)
    status(msg="Creating disk image")
    with new_file(image, replace=False) as part:
        os.truncate(part, given[DISK_SIZE])
        plan.write(part, given[DISK_SIZE])


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """All that is written to a disk. The file system takes all of it, or a partition."""

    filesystem: UUID
    entries: tuple[Entry, ...]
    bootloader: Bootloader
    firmware: Firmware | None

    def write(self, disk: Path, size: int) -> None:
        """Write it to an image or block device of `size` bytes. Raises MorphError."""
        start, end = self._place(size)
        self._check_room(end - start, size - (end - start))
        area, entries = b"", self.entries
        if self.bootloader.is_bios:
            parts = read_syslinux()
            area, entries = parts.area(), (*entries, File("ldlinux.c32", parts.module, 0o444))
        create_image(
            disk,
            end - start,
            entries,
            fsid=self.filesystem,
            time=TIME,
            label=_LABEL,
            offset=start,
            reserved=area,
        )
        if self.firmware is not None:
            self._write_partitions(disk, size, start, end)

    def _place(self, size: int) -> tuple[int, int]:
        """Where on the disk the file system begins and ends."""
        if self.firmware is None:
            return 0, size // 4096 * 4096
        return ALIGNMENT + _esp_size(size), gpt.usable(size)

    def _check_room(self, room: int, rest: int) -> None:
        """With partitions, what `create_image` says it needs would not be what the disk needs."""
        if self.firmware is not None and (needed := least_size(self.entries)) > room:
            raise MorphError(
                f"the system does not fit on the disk: it needs {needed + rest} bytes at least, "
                f"and the disk has {max(room + rest, 0)}",
                reason=Reason.SPACE,
                hint="Give a larger DISK_SIZE",
            )

    def _write_partitions(self, disk: Path, size: int, start: int, end: int) -> None:
        assert self.firmware is not None
        esp = Partition(gpt.ESP, self.guid("esp"), "EFI system", ALIGNMENT, start - ALIGNMENT)
        bootable = gpt.LEGACY_BOOT if self.bootloader.is_bios else 0
        root = Partition(gpt.LINUX, self.guid("root"), _LABEL, start, end - start, bootable)
        make_esp(
            *(disk, self.firmware),
            offset=esp.start,
            size=esp.size,
            root=self.filesystem,
            time=TIME,
        )
        code = GPT_MBR.path.read_bytes() if self.bootloader.is_bios else b""
        gpt.write_table(disk, size, self.guid("disk"), (esp, root), boot_code=code)

    def guid(self, name: str) -> UUID:
        return uuid5(self.filesystem, name)


def plan_disk(
    tree: Tree,
    given: Parameters,
    *,
    devices: Mapping[str, Device],
    default_root_device: str = "/dev/sda",
) -> DiskPlan:
    """What a new disk gets. Raises MorphError for what can't be, and programs that are missing."""
    architecture = architecture_of(tree)
    bootloader = choose_bootloader(given, architecture)
    firmware = _firmware(architecture) if bootloader.is_efi else None
    check_there(_programs(bootloader, firmware), what=_need(bootloader))
    filesystem = identify(tree, given, devices)
    root_device = given[ROOT_DEVICE] or default_root_device
    system = System.on(tree, filesystem, devices, root_device)
    boot, config = BootFiles(), ""
    if config_is_wanted(given, architecture):
        boot = read_boot_files(tree, given)
        if firmware is not None and not given[ROOT_DEVICE]:
            root_device = f"PARTUUID={uuid5(filesystem, 'root')}"
        config = extlinux_config(
            root_device=root_device,
            disk_uuid=str(filesystem) if boot.initramfs else None,
            dtb=bool(given[DTB_PATH]),
            extra_args=given[KERNEL_ARGS],
        )
    entries = tuple(initial_entries(system, boot, config))
    return DiskPlan(filesystem, entries, bootloader, firmware)


def config_is_wanted(given: Parameters, architecture: str) -> bool:
    """Whether a boot loader has to be told what to boot."""
    asked = given[BOOTLOADER_CONFIG_FORMAT] is not None
    install = given[BOOTLOADER_INSTALL]
    return asked or is_x86(architecture) or (install is not None and install.is_efi)


def choose_bootloader(given: Parameters, architecture: str) -> Bootloader:
    """What a disk with a system gets. Raises MorphError if it can't boot such a system."""
    if not config_is_wanted(given, architecture):
        return Bootloader.NONE
    chosen = given[BOOTLOADER_INSTALL] or Bootloader.EXTLINUX
    if chosen.is_bios and not is_x86(architecture):
        raise parameter_error(
            f"extlinux boots systems for x86 only, and this one is for {architecture}: "
            "BOOTLOADER_INSTALL has to be something else, such as none"
        )
    return chosen


def _firmware(architecture: str) -> Firmware:
    if architecture not in FIRMWARES:
        raise parameter_error(
            f"grub-efi boots systems for {', '.join(FIRMWARES)} only, "
            f"and this one is for {architecture}"
        )
    return FIRMWARES[architecture]


def _programs(bootloader: Bootloader, firmware: Firmware | None) -> Iterator[Program | Data]:
    if bootloader.is_bios:
        yield from syslinux.PROGRAMS
    if bootloader is Bootloader.BOTH:
        yield GPT_MBR
    if bootloader.is_efi:
        yield from efi.PROGRAMS if firmware is None else firmware.programs


def _need(bootloader: Bootloader) -> str:
    return f"the boot loader that BOOTLOADER_INSTALL {bootloader} puts on the disk"


def _esp_size(disk: int) -> int:
    return _SMALL_ESP if disk < _LARGE_DISK else _LARGE_ESP
