"""Makes virtual machines on hosts with libvirt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.imageparameters import BOOTLOADER_INSTALL, Bootloader
from morphlib.writeexts.output import complain
from morphlib.writeexts.parameters import Parameter, Parameters, boolean, parameter_error
from morphlib.writeexts.remote import Remote
from morphlib.writeexts.systemimage import check_system_image
from morphlib.writeexts.transfer import place_file, remove, tell_progress
from morphlib.writeexts.tree import Tree
from morphlib.writeexts.undo import undone_on_failure
from morphlib.writeexts.virtualmachine import (
    ATTACH_DISKS,
    RAM_SIZE,
    VCPUS,
    WRONG_MODE,
    VirtualMachine,
    image_parameters,
    temporary_image,
)

_ROOT_DEVICE = "/dev/sda"
_DEFAULT_NETWORK = "network=default"
_NIC = re.compile(
    r"(?:network=(?P<network>[\w.][^\s,=]*)|bridge=[^\s,=]+|user)(?:,[^\s,=]+=[^\s,]+)*"
)
_URI = re.compile(r"[a-z][a-z0-9+]*://[^\s'\"`]*")


def _parse_nics(value: str) -> tuple[str, ...]:
    nics = tuple(value.split())
    for nic in nics:
        if not _NIC.fullmatch(nic):
            raise ValueError(
                f"malformed NIC_CONFIG: {nic!r} is not network=NAME, bridge=NAME or user, with "
                "options after commas"
            )
    return nics


def _parse_uri(value: str) -> str:
    if not _URI.fullmatch(value):
        raise ValueError(f"LIBVIRT_URI {value!r} is no URI such as qemu:///system")
    return value


NIC_CONFIG: Parameter[tuple[str, ...]] = Parameter(
    "NIC_CONFIG",
    """Network interfaces, with blanks between them. Each is network=NAME (of a network of libvirt),
    bridge=NAME (of a bridge of the host) or user, with options of virt-install's --network after
    commas, such as network=lan,mac=52:54:00:12:34:56.""",
    _parse_nics,
    (_DEFAULT_NETWORK,),
    shown=_DEFAULT_NETWORK,
)
AUTOSTART = boolean("AUTOSTART", "Start the virtual machine now, and whenever the host starts.")
LIBVIRT_URI = Parameter(
    "LIBVIRT_URI",
    "Which libvirt of the host, as virsh --connect takes it.",
    _parse_uri,
    "qemu:///system",
    shown="qemu:///system",
)


class Kvm(WriteExtension):
    description = """
    Make a virtual machine with libvirt, on this host or another.

    A disk image is made here, sent to the host over ssh without its holes, compared with what was
    sent, and becomes the first disk of a new virtual machine. If anything fails neither image nor
    machine is left.
    """
    location_help = """
    kvm+ssh://HOST/GUEST/PATH: HOST or USER@HOST as ssh knows it, GUEST the name of the new virtual
    machine, /PATH the file on the host that becomes its disk, for example
    kvm+ssh://root@host.example.com/web/var/lib/libvirt/images/web.img.

    The host needs virsh, virt-install and what they use.
    """
    parameters = (
        *(RAM_SIZE, VCPUS, ATTACH_DISKS, NIC_CONFIG, AUTOSTART, LIBVIRT_URI),
        *image_parameters(_ROOT_DEVICE),
    )
    wrong_mode = WRONG_MODE

    def check(self, location: str, given: Parameters) -> None:
        machine = VirtualMachine.parse(location, "kvm+ssh")
        check_system_image(given)
        check_host(machine, given)

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        machine = VirtualMachine.parse(location, "kvm+ssh")
        host, disk = machine.host, machine.disk
        check_host(machine, given)
        with temporary_image(tree, given, self.devices, _ROOT_DEVICE) as image:
            machine.check_room(image)
            self.status(f"Transferring the disk image to {host}")
            place_file(host, image, disk, tell_progress(self.status, "Transferring the disk image"))
            with undone_on_failure(f"remove {disk}", lambda: remove(host, disk)):
                self.status("Creating the virtual machine")
                create(machine, given)
        self.status(f"Virtual machine {machine.guest} has been created")


def check_host(machine: VirtualMachine, given: Parameters) -> None:
    """Raises MorphError unless the virtual machine can be made there."""
    host = machine.host
    host.check_reachable()
    machine.check_files(given[ATTACH_DISKS])
    missing = host.missing_programs("virsh", "virt-install")
    if "virsh" in missing:
        raise parameter_error(f"virsh does not seem to be installed on host {host}")
    guests = _virsh(host, given, "list", "--all", "--name")
    if machine.guest in guests.split():
        raise parameter_error(f"Host {host} already has a VM named {machine.guest}")
    for nic in given[NIC_CONFIG]:
        if (match := _NIC.fullmatch(nic)) is not None and match["network"]:
            _check_network(host, given, match["network"])
    if missing:
        raise parameter_error(f"virt-install does not seem to be installed on host {host}")


def _check_network(host: Remote, given: Parameters, name: str) -> None:
    shown = _virsh(host, given, "net-info", "--network", name)
    active = re.search(r"^Active:\s+(\S+)$", shown, re.MULTILINE)
    if active is None:
        raise parameter_error(f"Got unexpected output from virsh net-info on {host}: {shown}")
    if active[1] != "yes":
        raise MorphError(
            f"Network '{name}' is not started on {host}",
            reason=Reason.DEPLOY,
            hint=f"Start it there with: virsh net-start {name}",
        )


def create(machine: VirtualMachine, given: Parameters) -> None:
    """Make the virtual machine of its disk. Raises MorphError, and leaves none then."""
    host = machine.host
    argv = [
        *("virt-install", "--connect", given[LIBVIRT_URI], "--import", "--name", machine.guest),
        *("--os-variant", "generic", "--graphics", "vnc", "--noautoconsole"),
        *("--memory", str(given[RAM_SIZE] >> 20), "--vcpus", str(given[VCPUS])),
        # virt-install knows the bus that the type of machine has: the guest sees /dev/sda on both.
        *("--disk", f"path={machine.disk},format=raw"),
    ]
    if given[BOOTLOADER_INSTALL] is Bootloader.GRUB_EFI:
        argv += ["--boot", "uefi"]
    for path in given[ATTACH_DISKS]:
        argv += ["--disk", f"path={path}"]
    for nic in given[NIC_CONFIG]:
        argv += ["--network", nic]
    if not given[AUTOSTART]:
        argv.append("--noreboot")
    with _removed_on_failure(machine, given):
        try:
            host.run(*argv, what="virt-install")
            if given[AUTOSTART]:
                _virsh(host, given, "autostart", "--domain", machine.guest)
        except MorphError:
            complain("Error deploying to libvirt")
            raise


@contextmanager
def _removed_on_failure(machine: VirtualMachine, given: Parameters) -> Iterator[None]:
    """Remove the virtual machine if the block fails and it is ours, by its disk."""

    def undo() -> None:
        host, guest = machine.host, machine.guest
        if guest not in _virsh(host, given, "list", "--all", "--name").split():
            return
        disks = _virsh(host, given, "domblklist", "--details", guest)
        if any(line.endswith(f" {machine.disk}") for line in disks.splitlines()):
            if guest in _virsh(host, given, "list", "--name").split():
                _virsh(host, given, "destroy", "--domain", guest)
            if guest in _virsh(host, given, "list", "--all", "--name").split():
                _virsh(host, given, "undefine", "--nvram", "--domain", guest)

    with undone_on_failure(f"remove the virtual machine {machine.guest}", undo):
        yield


def _virsh(host: Remote, given: Parameters, *args: str) -> str:
    """What virsh prints there, in English."""
    return host.output("env", "LC_ALL=C", "virsh", "--connect", given[LIBVIRT_URI], *args)


WRITE = Kvm()
