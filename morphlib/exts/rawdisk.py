"""Writes a system to a disk image or block device that boots, and upgrades systems there."""

from __future__ import annotations

import os
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.aside import check_way
from morphlib.writeexts.disks import is_block_device, open_disk
from morphlib.writeexts.extension import Upgrades, WriteExtension
from morphlib.writeexts.imageparameters import IMAGE_PARAMETERS, VERSION_LABEL
from morphlib.writeexts.imageupgrade import add_version, check_switch, check_upgrade, switch_version
from morphlib.writeexts.output import complain
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.systemimage import (
    check_bootloader,
    check_system_image,
    make_system_image,
    write_system_to_device,
)
from morphlib.writeexts.tree import Tree
from morphlib.writeexts.versions import version_label

SET_DEFAULT = version_label(
    """Upgrades only, in the place of VERSION_LABEL: the name of a version that is on the disk. No
    version is added, but this one boots from now on, such as factory to go back to where all
    began.""",
    name="SET_DEFAULT",
)


class WriteRawDisk(WriteExtension):
    description = """
    Write the system to a raw disk image, or to a disk, that boots it.

    The disk has a btrfs file system with the versions of the system in /systems beside each other,
    and what is kept over upgrades in /state. An image takes only as much room as what is in it, and
    appears when it is complete. Neither root nor anything mounted is needed.

    An upgrade adds a version beside those that are there and lets it boot: the new one shares files
    that did not change with the one before. What the machine has changed in /etc stays in the
    version that it changed it in; everything in /state stays. The machine must be off. Whenever an
    upgrade is interrupted, the disk has the old state or the new one.
    """
    location_help = """
    Path of the image, relative to the definitions if it does not start with /; directories on the
    way are made. Or that of a block device, all of which is written over without asking, unless
    somebody uses it.
    """
    parameters = (*IMAGE_PARAMETERS, VERSION_LABEL, SET_DEFAULT)
    upgrades = Upgrades.BOTH

    def check(self, location: str, given: Parameters) -> None:
        disk = Path(location)
        if self.is_upgrade:
            _check_upgrade(disk, given)
        elif is_block_device(disk):
            check_bootloader(given)
            _check_writable(disk)
            with open_disk(disk, write=False):
                pass
        else:
            _check_new(disk)
            check_system_image(given)

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        self.check(location, given)
        disk = Path(location)
        if self.is_upgrade:
            self._upgrade(tree, disk, given)
            return
        try:
            if is_block_device(disk):
                write_system_to_device(tree, disk, given, devices=self.devices)
                self.status("System deployed to %(path)s", path=location)
            else:
                make_system_image(tree, disk, given, devices=self.devices)
                self.status("Disk image has been created at %(path)s", path=location)
        except (MorphError, OSError):
            complain(f"Failure to deploy system to {location}")
            raise

    def _upgrade(self, tree: Tree, path: Path, given: Parameters) -> None:
        with open_disk(path) as disk:
            if given[SET_DEFAULT]:
                switch_version(disk, given[SET_DEFAULT])
            else:
                add_version(disk, tree, given[VERSION_LABEL], given, devices=self.devices)
            disk.settle()
        label = given[SET_DEFAULT] or given[VERSION_LABEL]
        self.status("Version %(label)s boots from %(path)s now", label=label, path=path)


def _check_upgrade(disk: Path, given: Parameters) -> None:
    if not is_block_device(disk) and not disk.is_file():
        raise _error(f"Cannot upgrade {disk}: it is not an existing disk image")
    if given[VERSION_LABEL] and given[SET_DEFAULT]:
        raise _error(
            "VERSION_LABEL and SET_DEFAULT were both given: an upgrade adds a version, or goes "
            "back to one"
        )
    if not given[VERSION_LABEL] and not given[SET_DEFAULT]:
        raise _error("VERSION_LABEL was not given. It is required when upgrading")
    _check_writable(disk)
    with open_disk(disk, write=False) as opened:
        if given[SET_DEFAULT]:
            check_switch(disk, given[SET_DEFAULT], sector=opened.sector)
        else:
            check_upgrade(disk, given[VERSION_LABEL], sector=opened.sector)


def _check_new(image: Path) -> None:
    if os.path.lexists(image):
        raise _error(
            f"Target {image} already exists. Use `morph upgrade` to upgrade the system in it, or "
            "remove it first"
        )
    check_way(image)


def _check_writable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise _error(f"can't write {path}: Permission denied")


def _error(message: str) -> MorphError:
    return MorphError(message, reason=Reason.DEPLOY)


WRITE = WriteRawDisk()
