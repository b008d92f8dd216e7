"""Parameters of extensions that make disk images, or upgrade systems on them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from morphlib.writeexts.parameters import Parameter, choice, size
from morphlib.writeexts.versions import version_label


class ConfigFormat(StrEnum):
    """In what form the boot loader finds out what to boot."""

    EXTLINUX = "extlinux"


class Bootloader(StrEnum):
    """What is put on a disk so that the firmware can start the system."""

    EXTLINUX = "extlinux"
    GRUB_EFI = "grub-efi"
    BOTH = "extlinux+grub-efi"
    NONE = "none"

    @property
    def is_bios(self) -> bool:
        return self in (Bootloader.EXTLINUX, Bootloader.BOTH)

    @property
    def is_efi(self) -> bool:
        return self in (Bootloader.GRUB_EFI, Bootloader.BOTH)


def _config_format(value: str) -> ConfigFormat | None:
    return choice("BOOTLOADER_CONFIG_FORMAT", "", ConfigFormat.EXTLINUX).parse(value)


def _bootloader(value: str) -> Bootloader | None:
    return choice("BOOTLOADER_INSTALL", "", Bootloader.NONE).parse(value)


def _in_tree(name: str) -> Parameter[str]:
    help_text = {
        "INITRAMFS_PATH": """An initramfs in the system, which the kernel is started with. With one,
            the root file system is found by its UUID, whatever the disk is called.""",
        "DTB_PATH": "A device tree in the system, which the kernel is started with.",
    }[name]

    def parse(value: str) -> str:
        path = value.strip().lstrip("/")
        if ".." in path.split("/"):
            raise ValueError(f"{name} {value} leads out of the system")
        return path

    return Parameter(name, help_text, parse, "")


def _one_line(name: str, help_text: str, shown: str = "") -> Parameter[str]:
    """Text that goes into a line of the boot loader's configuration."""

    def parse(value: str) -> str:
        line = value.strip()  # a text that YAML folds ends in a newline
        if not line.isprintable():
            raise ValueError(f"{name} has to be one line of text")
        return line

    return Parameter(name, help_text, parse, "", shown=shown)


DISK_SIZE = size(
    "DISK_SIZE",
    """Size of the disk image: a number of bytes, or one with k, m or g for KiB, MiB or GiB. It must
    be given for a file; a block device is used as it is.""",
)
VERSION_LABEL = version_label(
    """Name of the version that an upgrade adds: letters, digits and hyphens. The version of an
    initial deployment is always called factory.""",
)
INITRAMFS_PATH = _in_tree("INITRAMFS_PATH")
DTB_PATH = _in_tree("DTB_PATH")
KERNEL_ARGS = _one_line(
    "KERNEL_ARGS",
    "More arguments for the kernel. They come last, so that an init= among them counts.",
)
ROOT_DEVICE = _one_line(
    "ROOT_DEVICE",
    """The device that the system finds its root file system on where there is no initramfs, which
    would find it by UUID.""",
    shown="/dev/sda, or PARTUUID= on a disk with partitions",
)
BOOTLOADER_CONFIG_FORMAT: Parameter[ConfigFormat | None] = Parameter(
    "BOOTLOADER_CONFIG_FORMAT",
    """The form of the boot loader's configuration: extlinux. Without it, systems for x86 get one of
    that form and others get none. U-Boot reads that form, too.""",
    _config_format,
    None,
)
BOOTLOADER_INSTALL: Parameter[Bootloader | None] = Parameter(
    "BOOTLOADER_INSTALL",
    """The boot loader: extlinux (for BIOS; the file system takes the whole disk), grub-efi (for
    UEFI; the disk gets a GUID partition table with an EFI system partition), extlinux+grub-efi
    (partitions too, for either), or none.""",
    _bootloader,
    None,
    shown="extlinux",
)

#: Those of a system image, without its size.
BOOT_PARAMETERS: tuple[Parameter[Any], ...] = (
    INITRAMFS_PATH,
    DTB_PATH,
    KERNEL_ARGS,
    ROOT_DEVICE,
    BOOTLOADER_CONFIG_FORMAT,
    BOOTLOADER_INSTALL,
)
#: Those of a system image in a file.
IMAGE_PARAMETERS: tuple[Parameter[Any], ...] = (DISK_SIZE, *BOOT_PARAMETERS)
