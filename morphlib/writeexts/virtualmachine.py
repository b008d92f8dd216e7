"""What extensions have in common that make virtual machines: parameters, locations, the image."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.devices import Device
from morphlib.writeexts.imageparameters import DISK_SIZE, IMAGE_PARAMETERS, ROOT_DEVICE
from morphlib.writeexts.parameters import Parameter, Parameters, parameter_error, parse_size
from morphlib.writeexts.remote import Remote, checked_remote_path
from morphlib.writeexts.systemimage import make_system_image
from morphlib.writeexts.transfer import data_size
from morphlib.writeexts.tree import Tree

WRONG_MODE = "Use the `ssh-rsync` write extension to deploy upgrades to existing remote systems."

_MIB = 1 << 20
_GUEST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,200}")

# Prints what is wrong. The first path is the image's.
_LOOK = """
[ ! -e "$1" ] && [ ! -L "$1" ] || echo exists
[ -d "${1%/*}/" ] && [ -w "${1%/*}/" ] || echo unwritable
shift
for each; do [ -e "$each" ] || { echo absent; echo "$each"; }; done
"""


def image_parameters(root_device: str) -> tuple[Parameter[Any], ...]:
    """The parameters of a system image for machines that call their disk `root_device`."""
    changed: dict[str, Parameter[Any]] = {
        DISK_SIZE.name: replace(
            DISK_SIZE,
            help="""Size of the disk: a number of bytes, or one with k, m or g for KiB, MiB or
            GiB.""",
            required=True,
        ),
        ROOT_DEVICE.name: replace(
            ROOT_DEVICE, shown=f"{root_device}, or PARTUUID= on a disk with partitions"
        ),
    }
    return tuple(changed.get(each.name, each) for each in IMAGE_PARAMETERS)


def _parse_ram_size(value: str) -> int:
    number = parse_size("RAM_SIZE", value)
    if number < _MIB:
        raise ValueError(f"RAM_SIZE {value} is less than 1M")
    return number


def _parse_cpus(value: str) -> int:
    number = parse_size("VCPUS", value)
    if number < 1:
        raise ValueError("VCPUS has to be at least 1")
    return number


def _parse_disks(value: str) -> tuple[str, ...]:
    try:
        return tuple(checked_disk_path(path) for path in value.split(":") if path)
    except MorphError as error:
        raise ValueError(f"ATTACH_DISKS: {error}") from None


RAM_SIZE = Parameter(
    "RAM_SIZE",
    "Memory of the virtual machine: a number of bytes, or one with k, m or g.",
    _parse_ram_size,
    1 << 30,
    shown="1G",
)
VCPUS = Parameter("VCPUS", "Processors of the virtual machine.", _parse_cpus, 1, shown="1")
ATTACH_DISKS: Parameter[tuple[str, ...]] = Parameter(
    "ATTACH_DISKS",
    """More disks of the virtual machine: absolute paths of images on the host, with colons between
    them.""",
    _parse_disks,
    (),
)


def checked_disk_path(path: str) -> str:
    """An absolute path there that programs for virtual machines take as one. Raises MorphError."""
    if "," in path or ":" in path:
        raise MorphError(f"{path!r}: no comma or colon can be in it", reason=Reason.DEPLOY)
    return checked_remote_path(path)


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    """A virtual machine on another host, and the path of its disk there."""

    host: Remote
    guest: str
    disk: str

    @classmethod
    def parse(cls, location: str, scheme: str) -> VirtualMachine:
        """`SCHEME://HOST/GUEST/PATH`; PATH starts with the slash after GUEST.

        Raises MorphError.
        """
        found, _, place = location.partition("://")
        if found.lower() != scheme:
            raise parameter_error(f"URL schema must be {scheme} in {location}")
        host, _, rest = place.partition("/")
        guest, slash, path = rest.partition("/")
        if not (host and slash and path and _GUEST.fullmatch(guest)):
            raise parameter_error(
                f"Cannot parse location {location}: it should be {scheme}://HOST/GUEST/PATH"
            )
        return cls(Remote(host), guest, checked_disk_path(f"/{path}"))

    def check_files(self, disks: tuple[str, ...]) -> None:
        """Raises MorphError unless the disk can be put there, and these other disks are there."""
        done = self.host.script(_LOOK, self.disk, *disks, what=f"looking at {self.disk}")
        found = done.stdout.decode("utf-8", "surrogateescape").splitlines()
        if "exists" in found:
            raise parameter_error(f"{self.disk} already exists on {self.host}")
        if "unwritable" in found:
            raise parameter_error(
                f"Can't write to location {self.disk} on {self.host}: there is no such directory, "
                "or it can't be written to"
            )
        if found:
            raise parameter_error(f"Did not find file {found[1]} on host {self.host}")

    def check_room(self, image: Path) -> None:
        """Raises MorphError if the image, without its holes, does not fit there."""
        room = self.host.free_space(self.disk.rpartition("/")[0] or "/")
        if (needed := data_size(image)) > room:
            raise MorphError(
                f"{self.host} has no room for {self.disk}: it takes {needed} bytes, "
                f"and there are {room}",
                reason=Reason.SPACE,
            )


@contextmanager
def temporary_image(
    tree: Tree, given: Parameters, devices: Mapping[str, Device], root_device: str
) -> Iterator[Path]:
    """A raw disk image of the system, which is gone after the block. Raises MorphError.

    `given` has the values of `image_parameters`.
    """
    with tempfile.TemporaryDirectory(prefix="morph-image-") as directory:
        image = Path(directory, "disk.img")
        make_system_image(tree, image, given, devices=devices, default_root_device=root_device)
        yield image
