"""The layout of a disk with a system and its versions, on a btrfs that is mounted.

    systems/LABEL/orig      subvolume: a copy of the tree
    systems/LABEL/run       subvolume: a snapshot of orig; this is what boots
    systems/LABEL/kernel    and initramfs and dtb, where the boot loader finds them
    systems/default         link to the LABEL that boots
    state/home ...          subvolumes: what is kept over upgrades
    extlinux.conf           what the boot loader reads

Nothing in the tree leads out of it, nor does what the tree has put on the disk.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

from morphlib import process
from morphlib.errors import MorphError, Reason
from morphlib.process import ProcessError
from morphlib.writeexts.boot import (
    find_initramfs,
    generate_bootloader_config,
    install_bootloader,
    install_dtb,
    install_initramfs,
    install_kernel,
    install_syslinux_menu,
)
from morphlib.writeexts.diskimage import (
    created_disk_image,
    explained,
    format_btrfs,
    get_uuid,
    is_device,
    mount,
)
from morphlib.writeexts.environment import (
    bootloader_config_is_wanted,
    get_dtb_path,
    get_root_device,
)
from morphlib.writeexts.fstab import complete_fstab
from morphlib.writeexts.output import status
from morphlib.writeexts.tree import Tree

_FSTAB = "etc/fstab"


def create_local_system(tree: str, image: str) -> None:
    """Put a system on a new image of DISK_SIZE bytes, or on a block device. Raises MorphError."""
    if is_device(image):
        format_btrfs(image)
        create_system(tree, image)
        return
    with created_disk_image(image):
        format_btrfs(image)
        create_system(tree, image)


def create_system(tree: str, path: str) -> None:
    """Put a system on a formatted image or device, as the version "factory". Raises MorphError."""
    with mount(path) as point, explained("Error creating Btrfs system layout"):
        create_btrfs_system_layout(tree, point, "factory", get_uuid(path))


def create_btrfs_system_layout(
    tree: str, mountpoint: str, version_label: str, disk_uuid: str | None
) -> None:
    """Make the layout, with one version, on an empty file system. Raises MorphError."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", version_label):
        raise MorphError(f"{version_label!r} is no label of a version", reason=Reason.DEPLOY)
    initramfs = find_initramfs(tree)
    version = os.path.join(mountpoint, "systems", version_label)  # noqa: PTH118
    Path(version).mkdir(parents=True)
    Path(mountpoint, "state").mkdir()
    create_orig(version, tree)
    orig = os.path.join(version, "orig")  # noqa: PTH118
    for name in complete_fstab_for_btrfs_layout(orig, disk_uuid):
        create_state_subvolume(orig, mountpoint, name)
    create_run(version)
    Path(mountpoint, "systems", "default").symlink_to(version_label)
    if not bootloader_config_is_wanted(tree):
        return
    install_kernel(version, tree)
    if get_dtb_path():
        install_dtb(version, tree)
    install_syslinux_menu(mountpoint, tree)
    if initramfs is not None:
        install_initramfs(initramfs, version)
        generate_bootloader_config(mountpoint, disk_uuid)
    else:
        generate_bootloader_config(mountpoint)
    install_bootloader(mountpoint)


def create_orig(version_root: str, tree: str) -> None:
    """Make the subvolume `orig` of a version, with a copy of the tree that keeps everything."""
    status(msg="Creating Btrfs subvolume for the system")
    target = Path(version_root, "orig")
    _run("btrfs", "subvolume", "create", str(target))
    _run("cp", "-a", "--reflink=auto", "--", f"{tree}/.", f"{target}/")


def create_run(version_root: str) -> None:
    """Make the subvolume `run` of a version: a snapshot of `orig`."""
    orig, run = Path(version_root, "orig"), Path(version_root, "run")
    _run("btrfs", "subvolume", "snapshot", str(orig), str(run))


def create_state_subvolume(system_dir: str, mountpoint: str, state_subdir: str) -> None:
    """Make a subvolume for state, and move what the system has in that directory into it.

    The directory stays as a mount point, and is made if the system has none; the subvolume gets its
    owner and mode. Raises MorphError.
    """
    status(msg="Creating %(name)s subvolume", name=state_subdir)
    subvolume = Path(mountpoint, "state", state_subdir)
    _run("btrfs", "subvolume", "create", str(subvolume))
    tree = Tree.at(system_dir)
    directory = tree.make_directory(state_subdir)
    found = directory.stat()
    os.chown(subvolume, found.st_uid, found.st_gid)
    subvolume.chmod(stat.S_IMODE(found.st_mode))
    for name in sorted(os.listdir(directory)):
        _run("mv", "--", str(directory / name), f"{subvolume}/")
    shutil.copystat(directory, subvolume)


def complete_fstab_for_btrfs_layout(system_dir: str, rootfs_uuid: str | None = None) -> list[str]:
    """Complete a system's /etc/fstab. Returns the directories that need a subvolume for state.

    Raises MorphError if the system has no /etc.
    """
    tree = Tree.at(system_dir)
    if not tree.is_directory("etc"):
        raise MorphError("the system has no directory /etc", reason=Reason.DEPLOY)
    before = tree.read_text(_FSTAB) if tree.is_file(_FSTAB) else ""
    done = complete_fstab(before, rootfs_uuid=rootfs_uuid, root_device=get_root_device())
    tree.write(_FSTAB, done.text)
    return list(done.state)


def _run(*argv: str) -> None:
    try:
        process.run(argv)
    except ProcessError as error:
        raise MorphError(str(error), reason=Reason.DEPLOY) from error
