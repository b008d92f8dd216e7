"""Parameters read one by one from the environment, for extensions that declare none.

New extensions declare theirs instead (`morphlib.writeexts.parameters`): then help, checks and
errors come by themselves. All of these raise MorphError for what can't be understood.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from typing import TypeVar

from morphlib.writeexts.machine import architecture_of, is_x86
from morphlib.writeexts.parameters import parameter_error, parse_boolean, parse_size
from morphlib.writeexts.tree import Tree

T = TypeVar("T")


def get_disk_size() -> int:
    """DISK_SIZE in bytes, which must be given and not be 0."""
    number = _size("DISK_SIZE", "0")
    if number == 0:
        raise parameter_error("DISK_SIZE is not defined")
    return number


def get_ram_size() -> int:
    """RAM_SIZE in bytes; 1 GiB if it is not given."""
    return _size("RAM_SIZE", "1G")


def get_vcpu_count() -> int:
    """VCPUS; 1 if it is not given."""
    return _size("VCPUS", "1")


def get_environment_boolean(variable: str, default: str = "no") -> bool:
    """A variable that says yes, 1, true or no, 0, false, in any letter case."""
    return _parse(parse_boolean, variable, os.environ.get(variable, default))


def parse_attach_disks() -> list[str]:
    """ATTACH_DISKS, which has colons between the disks."""
    return [disk for disk in os.environ.get("ATTACH_DISKS", "").split(":") if disk]


def get_dtb_path() -> str:
    """DTB_PATH, relative to the system's root; empty if there is none."""
    return os.environ.get("DTB_PATH", "").lstrip("/")


def get_root_device() -> str:
    """ROOT_DEVICE, or /dev/sda."""
    return os.environ.get("ROOT_DEVICE") or "/dev/sda"


def get_extra_kernel_args() -> str:
    """KERNEL_ARGS, or nothing."""
    return os.environ.get("KERNEL_ARGS", "")


def get_bootloader_install() -> str:
    """BOOTLOADER_INSTALL: extlinux, which is the default, or none."""
    return _one_of("BOOTLOADER_INSTALL", "extlinux", "none")


def get_bootloader_config_format() -> str:
    """BOOTLOADER_CONFIG_FORMAT: extlinux, the only one."""
    return _one_of("BOOTLOADER_CONFIG_FORMAT", "extlinux")


def bootloader_config_is_wanted(tree: str | None = None) -> bool:
    """Whether a boot loader has to be told what to boot.

    If BOOTLOADER_CONFIG_FORMAT does not say so, that is the case for systems for x86. Without
    `tree` the system is taken to be for the machine that this runs on.
    """
    if os.environ.get("BOOTLOADER_CONFIG_FORMAT"):
        return True
    if tree is not None:
        return is_x86(architecture_of(Tree.at(tree)))
    return re.fullmatch(r"x86_64|i.86", platform.machine()) is not None


def _size(variable: str, default: str) -> int:
    return _parse(parse_size, variable, os.environ.get(variable) or default)


def _parse(parse: Callable[[str, str], T], variable: str, value: str) -> T:
    try:
        return parse(variable, value)
    except ValueError as error:
        raise parameter_error(str(error)) from error


def _one_of(variable: str, *known: str) -> str:
    value = os.environ.get(variable) or known[0]
    if value not in known:
        raise parameter_error(f"Invalid {variable} {value} (known: {', '.join(known)})")
    return value
