"""Adding versions of a system to disks that have one, and changing which of them boots.

All of it happens in one transaction of the file system: whoever looks at the disk, whenever this
was killed, finds the old state or the new one, and either boots.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.model import Change, Directory, Symlink
from morphlib.images.btrfs.reader import Image, is_btrfs
from morphlib.images.btrfs.upgrade import upgrade_image
from morphlib.images.partitions import partition_starts
from morphlib.writeexts.bootloaders import config_is_wanted
from morphlib.writeexts.devices import Device
from morphlib.writeexts.disks import Disk
from morphlib.writeexts.etcchanges import TakenOver, read_etc_of_image, take_over
from morphlib.writeexts.imagelayout import (
    DEFAULT,
    EXTLINUX_CONF,
    BootFiles,
    System,
    read_boot_files,
)
from morphlib.writeexts.imageparameters import ROOT_DEVICE
from morphlib.writeexts.machine import architecture_of
from morphlib.writeexts.output import complain, status
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.systemimage import TIME
from morphlib.writeexts.tree import Tree

_LOADED = re.compile(
    r"^\s*(?:kernel|linux|initrd|devicetree|fdt)\s+/?systems/default/(\S+)\s*$",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Installed:
    """What is on a disk: where its file system is (in bytes), and what boots from it."""

    path: Path
    offset: int
    current: str
    labels: frozenset[str]
    #: files of a version that the boot loader loads, whichever version it is
    loaded: frozenset[str]

    def needs(self, label: str) -> MorphError:
        known = ", ".join(sorted(self.labels))
        return MorphError(
            f"there is no version {label} on {self.path}",
            reason=Reason.DEPLOY,
            hint=f"It has these: {known}",
        )


def find_system(disk: Path, *, sector: int = 512) -> Installed:
    """The system on a disk: on all of it, or on the first partition that has one.

    Raises MorphError if there is none.
    """
    for offset in (0, *partition_starts(disk, sector=sector)):
        if not is_btrfs(disk, offset=offset):
            continue
        with Image(disk, offset=offset) as image:
            if image.exists(f"{DEFAULT}/orig"):
                return _installed(disk, offset, image)
    raise MorphError(
        f"there is no system on {disk} that could be upgraded: no btrfs with {DEFAULT}",
        reason=Reason.DEPLOY,
    )


def _installed(disk: Path, offset: int, image: Image) -> Installed:
    labels = (name for name in image.listdir("systems") if name != "default")
    loaded: set[str] = set()
    if image.exists(EXTLINUX_CONF):
        config = image.read_file(EXTLINUX_CONF).decode("utf-8", "replace")
        # What is not there now is not needed: a system without a kernel, in a container.
        loaded = {name for name in _LOADED.findall(config) if image.exists(f"{DEFAULT}/{name}")}
    return Installed(
        disk,
        offset,
        current=image.resolve(DEFAULT).rpartition("/")[2],
        labels=frozenset(label for label in labels if image.exists(f"systems/{label}/orig")),
        loaded=frozenset(loaded),
    )


def check_upgrade(disk: Path, label: str, *, sector: int = 512) -> None:
    """Raise MorphError unless the disk has a system and nothing called `label`."""
    installed = find_system(disk, sector=sector)
    with Image(disk, offset=installed.offset) as image:
        _check_free(image, label)


def check_switch(disk: Path, label: str, *, sector: int = 512) -> None:
    """Raise MorphError unless the disk has a version `label`."""
    installed = find_system(disk, sector=sector)
    if label not in installed.labels:
        raise installed.needs(label)


def _check_free(image: Image, label: str) -> None:
    if image.exists(f"systems/{label}", follow=False):
        raise MorphError(f"VERSION_LABEL {label} already exists", reason=Reason.DEPLOY)


def add_version(
    disk: Disk, tree: Tree, label: str, given: Parameters, *, devices: Mapping[str, Device]
) -> None:
    """Add the system as version `label`, and let it boot. Raises MorphError.

    It shares with the version that boots now what is the same; state and other versions stay.
    """
    installed = find_system(disk.path, sector=disk.sector)
    with Image(disk.path, offset=installed.offset) as image:
        _check_free(image, label)
        system = System.on(tree, image.fsid, devices, given[ROOT_DEVICE] or "/dev/sda")
        state = tuple(name for name in system.fstab.state if not image.exists(f"state/{name}"))
        has_state = image.exists("state")
        taken = _changes_of_machine(image, installed.current, system, label)
    boot = BootFiles()
    if installed.loaded or config_is_wanted(given, architecture_of(tree, given.environment)):
        boot = read_boot_files(tree, given)
    _check_boots(installed, label, boot.names)
    changes: list[Change] = [] if has_state or not state else [Directory("state")]
    like = f"systems/{installed.current}/orig"
    changes += system.version(label, boot, emptied=state, like=like)
    changes += taken.changes
    changes += system.state(state)
    changes.append(Symlink(DEFAULT, label))
    status(msg="Adding version %(label)s beside %(old)s", label=label, old=installed.current)
    for change in taken.changes:
        logging.debug("taken over: %s", change.path)
    if taken.changes:
        status(msg="Taking over %(n)d changes that were made in /etc", n=len(taken.changes))
    for path in taken.kept:
        complain(
            f"WARNING: /etc/{path} was changed in version {installed.current}, and is another in "
            f"{label}, which keeps its own"
        )
    for path in taken.left:
        complain(
            f"WARNING: /etc/{path} was changed in version {installed.current}, but that is not "
            "taken over: it is too large, or no file, symlink or directory"
        )
    upgrade_image(disk.path, changes, time=TIME, offset=installed.offset)


def _changes_of_machine(image: Image, current: str, system: System, label: str) -> TakenOver:
    """What the machine has changed in /etc since it was deployed, for its new version."""
    if not image.exists(f"systems/{current}/run"):
        return TakenOver()
    old, machine = (read_etc_of_image(image, f"systems/{current}/{n}") for n in ("orig", "run"))
    if old == machine:
        return TakenOver()
    place, new = system.etc()
    return take_over(old, machine, new, f"systems/{label}/run/{place}")


def switch_version(disk: Disk, label: str) -> None:
    """Let a version boot that is on the disk. Raises MorphError if it can't."""
    installed = find_system(disk.path, sector=disk.sector)
    if label not in installed.labels:
        raise installed.needs(label)
    with Image(disk.path, offset=installed.offset) as image:
        names = frozenset(image.listdir(f"systems/{label}"))
    _check_boots(installed, label, names)
    status(msg="Switching from version %(old)s to %(label)s", label=label, old=installed.current)
    upgrade_image(disk.path, [Symlink(DEFAULT, label)], time=TIME, offset=installed.offset)


def _check_boots(installed: Installed, label: str, names: frozenset[str]) -> None:
    """The boot loader's configuration is for all versions: each needs all files that it names."""
    missing = sorted(installed.loaded - names)
    if missing:
        raise MorphError(
            f"version {label} could not boot: {EXTLINUX_CONF} on {installed.path} loads "
            f"{', '.join(missing)} of the version that boots, and this one has none",
            reason=Reason.DEPLOY,
            hint="INITRAMFS_PATH and DTB_PATH say which files of the system these are",
        )
