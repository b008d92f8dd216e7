"""Which boot loader a disk gets, and whether all is there to make it."""

from __future__ import annotations

from collections.abc import Iterator

from morphlib.images import syslinux
from morphlib.images.esp import FIRMWARES, Firmware
from morphlib.images.programs import Data, Program, check_there
from morphlib.images.syslinux import GPT_MBR
from morphlib.writeexts.imageparameters import (
    BOOTLOADER_CONFIG_FORMAT,
    BOOTLOADER_INSTALL,
    Bootloader,
)
from morphlib.writeexts.machine import is_x86
from morphlib.writeexts.parameters import Parameters, parameter_error


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


def firmware_for(architecture: str) -> Firmware:
    """Raises MorphError if GRUB boots no such systems."""
    if architecture not in FIRMWARES:
        raise parameter_error(
            f"grub-efi boots systems for {', '.join(FIRMWARES)} only, "
            f"and this one is for {architecture}"
        )
    return FIRMWARES[architecture]


def check_programs(bootloader: Bootloader, firmware: Firmware | None) -> None:
    """Raise MorphError with all that is missing here and that the boot loader is made with."""
    what = f"the boot loader that BOOTLOADER_INSTALL {bootloader} puts on the disk"
    check_there(_programs(bootloader, firmware), what=what)


def _programs(bootloader: Bootloader, firmware: Firmware | None) -> Iterator[Program | Data]:
    if bootloader.is_bios:
        yield from syslinux.PROGRAMS
    if bootloader is Bootloader.BOTH:
        yield GPT_MBR
    if firmware is not None:
        yield from firmware.programs
