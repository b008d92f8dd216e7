"""What the boot loader extlinux needs on a mounted disk: kernel, configuration and itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

from morphlib import process
from morphlib.errors import MorphError, Reason
from morphlib.process import ProcessError
from morphlib.writeexts.aside import new_file
from morphlib.writeexts.environment import (
    get_bootloader_config_format,
    get_bootloader_install,
    get_dtb_path,
    get_extra_kernel_args,
    get_root_device,
)
from morphlib.writeexts.output import status
from morphlib.writeexts.tree import Tree

KERNELS = ("boot/vmlinuz", "boot/zImage", "boot/uImage")
_MENU = "usr/share/syslinux/menu.c32"
# extlinux writes to the file system beside the kernel's back; what it wrote has to be on the disk
# before somebody takes the disk away.
_SETTLING = 2.0


def find_initramfs(tree: str) -> str | None:
    """Where the initramfs that INITRAMFS_PATH names is on this machine; None if it names none.

    Raises MorphError if the system does not have it.
    """
    name = os.environ.get("INITRAMFS_PATH", "")
    if not name:
        return None
    system = Tree.at(tree)
    if not system.is_file(name):
        raise MorphError(
            f"INITRAMFS_PATH specified, but file does not exist: {name}", reason=Reason.DEPLOY
        )
    return str(system.resolve(name))


def install_initramfs(initramfs: str, version_root: str) -> None:
    """Copy what `find_initramfs` found into a version."""
    status(msg="Installing initramfs")
    _copy(Path(initramfs), Path(version_root, "initramfs"))


def install_kernel(version_root: str, tree: str) -> None:
    """Copy the first kernel that the system has into a version. To have none is no error."""
    status(msg="Installing kernel")
    system = Tree.at(tree)
    name = system.first_file(KERNELS)
    if name is not None:
        _copy(system.resolve(name), Path(version_root, "kernel"))


def install_dtb(version_root: str, tree: str) -> None:
    """Copy the device tree that DTB_PATH names into a version. Raises MorphError without one."""
    status(msg="Installing devicetree")
    system, name = Tree.at(tree), get_dtb_path()
    if not system.is_file(name):
        raise MorphError(f"Failed to find device tree {name}", reason=Reason.DEPLOY)
    _copy(system.resolve(name), Path(version_root, "dtb"))


def install_syslinux_menu(real_root: str, tree: str) -> None:
    """Copy the module for menus to the top of the disk, if the system has it."""
    system = Tree.at(tree)
    if system.is_file(_MENU):
        _copy(system.resolve(_MENU), Path(real_root, "menu.c32"))


def generate_bootloader_config(real_root: str, disk_uuid: str | None = None) -> None:
    """Write the configuration that BOOTLOADER_CONFIG_FORMAT asks for. Raises MorphError."""
    assert get_bootloader_config_format() == "extlinux"
    generate_extlinux_config(real_root, disk_uuid)


def generate_extlinux_config(real_root: str, disk_uuid: str | None = None) -> None:
    """Write extlinux.conf. With `disk_uuid` there is an initramfs, which finds the root by it."""
    status(msg="Creating extlinux.conf")
    text = extlinux_config(
        root_device=get_root_device(),
        disk_uuid=disk_uuid,
        dtb=bool(get_dtb_path()),
        extra_args=get_extra_kernel_args(),
    )
    with new_file(Path(real_root, "extlinux.conf")) as part:
        part.write_text(text)


def extlinux_config(*, root_device: str, disk_uuid: str | None, dtb: bool, extra_args: str) -> str:
    """The text of extlinux.conf. Raises MorphError for arguments of more than one line."""
    root = root_device if disk_uuid is None else f"UUID={disk_uuid}"
    args = (
        f"rw init=/sbin/init rootfstype=btrfs rootflags=subvol=systems/default/run "
        f"root={root} {extra_args.strip()}"
    ).rstrip()
    if not args.isprintable():
        raise MorphError(
            "KERNEL_ARGS and ROOT_DEVICE have to be one line of text", reason=Reason.DEPLOY
        )
    lines = ["default linux", "timeout 1", "label linux", "kernel /systems/default/kernel"]
    if disk_uuid is not None:
        lines.append("initrd /systems/default/initramfs")
    if dtb:
        lines.append("devicetree /systems/default/dtb")
    return "\n".join([*lines, f"append {args}"]) + "\n"


def install_bootloader(real_root: str) -> None:
    """Install what BOOTLOADER_INSTALL asks for on a mounted disk. Raises MorphError."""
    if get_bootloader_install() == "extlinux":
        install_bootloader_extlinux(real_root)


def install_bootloader_extlinux(real_root: str) -> None:
    """Install extlinux on a mounted disk. Raises MorphError."""
    status(msg="Installing extlinux")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        process.run(["extlinux", "--install", real_root], env={**os.environ, "PATH": path})
    except ProcessError as error:
        raise MorphError(str(error), reason=Reason.DEPLOY) from error
    os.sync()
    time.sleep(_SETTLING)


def _copy(source: Path, target: Path) -> None:
    with new_file(target) as part:
        part.write_bytes(source.read_bytes())
