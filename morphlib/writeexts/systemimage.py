"""Disk images that boot: what rawdisk and the extensions for virtual machines have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from morphlib.writeexts.devices import Device
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.tree import Tree


def check_system_image(given: Parameters) -> None:
    """For `.check`: refuse what `make_system_image` could not do, before there is a tree.

    `given` has the values of `IMAGE_PARAMETERS`. Raises MorphError if the size is missing, or a
    program that is needed for the boot loader, with the Debian package that has it.
    """
    raise NotImplementedError


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
    raise NotImplementedError
