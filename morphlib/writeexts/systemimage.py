"""Disk images that boot: what rawdisk and the extensions for virtual machines have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from morphlib.errors import MorphError, Reason
from morphlib.images import gpt
from morphlib.images.btrfs.create import create_image, least_size
from morphlib.images.btrfs.model import Entry, File
from morphlib.images.esp import Firmware, make_esp
from morphlib.images.gpt import ALIGNMENT, Partition
from morphlib.images.syslinux import GPT_MBR, read_syslinux
from morphlib.writeexts.aside import new_file
from morphlib.writeexts.boot import extlinux_config
from morphlib.writeexts.bootloaders import (
    check_programs,
    choose_bootloader,
    config_is_wanted,
    firmware_for,
)
from morphlib.writeexts.devices import Device
from morphlib.writeexts.disks import open_disk
from morphlib.writeexts.imageidentity import identify
from morphlib.writeexts.imagelayout import (
    BootFiles,
    System,
    initial_entries,
    read_boot_files,
)
from morphlib.writeexts.imageparameters import (
    DISK_SIZE,
    DTB_PATH,
    KERNEL_ARGS,
    ROOT_DEVICE,
    Bootloader,
)
from morphlib.writeexts.machine import architecture_of, this_architecture
from morphlib.writeexts.output import status
from morphlib.writeexts.parameters import Parameters, parameter_error
from morphlib.writeexts.tree import Tree

#: Of all that the tree gives no time for, in seconds since 1970: that of files in artifacts.
TIME = 683074800
_LABEL = "baserock"
_LARGE_DISK = 1 << 30
_NODE, _SMALL_NODE = 16384, 4096
_SMALL_ROOM = 128 << 20
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
    """Raise MorphError if there is no such boot loader, or a program is missing that it needs.

    Without the tree the system is taken to be for this machine, if the deployment does not tell
    (MORPH_ARCH).
    """
    architecture = given.environment.get("MORPH_ARCH") or this_architecture()
    chosen = choose_bootloader(given, architecture)
    check_programs(chosen, firmware_for(architecture) if chosen.is_efi else None)


def make_system_image(
    tree: Tree,
    image: Path,
    given: Parameters,
    *,
    devices: Mapping[str, Device],
    default_root_device: str = "/dev/sda",
) -> None:
    """Make a raw disk image of DISK_SIZE bytes, sparse, with the system in `tree` on it.

    `image` must not exist; it gets its name when it is complete. Directories on the way are made.
    `devices` is what `Extension` gives under that name. `default_root_device` is what the system's
    disk is called on the machine if ROOT_DEVICE does not say. `given` has the values of
    `IMAGE_PARAMETERS`. The tree stays as it is; the same tree and parameters give the same bytes.
    Raises MorphError.
    """
    plan = plan_disk(tree, given, devices=devices, default_root_device=default_root_device)
    check_system_image(given)
    status(msg="Creating disk image")
    with new_file(image, parents=True, replace=False) as part:
        os.truncate(part, given[DISK_SIZE])
        plan.write(part, given[DISK_SIZE])


def write_system_to_device(
    tree: Tree, device: Path, given: Parameters, *, devices: Mapping[str, Device]
) -> None:
    """Write the system in `tree` to a block device, all of it, whatever DISK_SIZE says.

    The device is touched only when everything is known to fit. Raises MorphError if somebody uses
    it, and otherwise like `make_system_image`, which explains the rest.
    """
    plan = plan_disk(tree, given, devices=devices)
    with open_disk(device) as disk:
        status(msg="Writing to %(device)s", device=device)
        plan.write(device, disk.size, sector=disk.sector, clear=disk.clear)
        disk.settle()


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """All that is written to a disk. The file system takes all of it, or a partition."""

    filesystem: UUID
    entries: tuple[Entry, ...]
    bootloader: Bootloader
    firmware: Firmware | None

    def write(
        self,
        disk: Path,
        size: int,
        *,
        sector: int = 512,
        clear: Callable[[], None] | None = None,
    ) -> None:
        """Write it to an image or block device of `size` bytes.

        `sector` is the device's, in bytes; `clear` takes away what is on it. Raises MorphError,
        where there is no room before anything is written or cleared.
        """
        start, end = self._place(size, sector)
        area, entries = b"", self.entries
        if self.bootloader.is_bios:
            parts = read_syslinux()
            area, entries = parts.area(), (*entries, File("ldlinux.c32", parts.module, 0o444))
        if clear is not None or end <= start:
            _check_room(entries, end - start, size)
        if clear is not None:
            clear()
        try:
            create_image(
                disk,
                end - start,
                entries,
                fsid=self.filesystem,
                time=TIME,
                label=_LABEL,
                offset=start,
                reserved=area,
                node_size=_node_size(end - start),
            )
        except MorphError as error:
            if error.reason is Reason.SPACE:
                _check_room(entries, end - start, size)
            raise
        if self.firmware is not None:
            self._write_partitions(disk, size, start, end, sector)

    def _place(self, size: int, sector: int) -> tuple[int, int]:
        """Where on the disk the file system begins and ends."""
        if self.firmware is None:
            return 0, size // 4096 * 4096
        return ALIGNMENT + _esp_size(size), gpt.usable(size, sector)

    def _write_partitions(self, disk: Path, size: int, start: int, end: int, sector: int) -> None:
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
        gpt.write_table(disk, size, self.guid("disk"), (esp, root), sector=sector, boot_code=code)

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
    architecture = architecture_of(tree, given.environment)
    bootloader = choose_bootloader(given, architecture)
    firmware = firmware_for(architecture) if bootloader.is_efi else None
    check_programs(bootloader, firmware)
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


def _node_size(room: int) -> int:
    """Bytes of a block of the file system's trees: most of a small disk would be room for larger
    ones that kernels want to have."""
    return _SMALL_NODE if room < _SMALL_ROOM else _NODE


def _esp_size(disk: int) -> int:
    return _SMALL_ESP if disk < _LARGE_DISK else _LARGE_ESP


def _check_room(entries: Sequence[Entry], room: int, size: int) -> None:
    """Raise MorphError if the file system does not fit into `room` bytes of a disk of `size`."""
    if (needed := least_size(entries, node_size=_node_size(room))) > room:
        raise MorphError(
            f"the system does not fit on the disk: it needs {needed + size - room} bytes at least, "
            f"and the disk has {size}",
            reason=Reason.SPACE,
            hint="Give a larger DISK_SIZE, or take a larger disk",
        )
