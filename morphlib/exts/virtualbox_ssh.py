"""Makes virtual machines on hosts with VirtualBox."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphlib.errors import MorphError
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.imageparameters import BOOTLOADER_INSTALL, Bootloader
from morphlib.writeexts.network import parse_interface
from morphlib.writeexts.output import complain
from morphlib.writeexts.parameters import Parameter, Parameters, boolean, parameter_error
from morphlib.writeexts.remote import Remote
from morphlib.writeexts.systemimage import check_system_image
from morphlib.writeexts.transfer import partial_file, publish, remove, send, tell_progress
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
_CONTROLLER = "SATA Controller"
#: Those that VirtualBox's SATA controller has.
_MAX_PORTS = 30

# With disks attached, --delete would remove all of them. A machine that was told to stop is locked
# for a moment.
_REMOVE_MACHINE = """
VBoxManage showvminfo "$1" --machinereadable >/dev/null 2>&1 || exit 0
VBoxManage controlvm "$1" poweroff >/dev/null 2>&1 || true
n=0
while VBoxManage showvminfo "$1" --machinereadable | grep -q '^storagecontrollername'; do
    if VBoxManage storagectl "$1" --name "$2" --remove >/dev/null 2>&1; then continue; fi
    n=$((n + 1))
    [ "$n" -lt 10 ] || exit 1
    sleep 1
done
VBoxManage unregistervm "$1" --delete
"""


def _parse_address(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value.strip()))
    except ValueError as error:
        raise ValueError(f"HOST_IPADDR {value} is no address: {error}") from None


def _parse_netmask(value: str) -> str:
    return str(parse_interface("0.0.0.0", value.strip()).netmask)


AUTOSTART = boolean("AUTOSTART", "Start the virtual machine, without a window.")
VAGRANT = boolean(
    "VAGRANT",
    "Have only the network interface that Vagrant expects, to the network of the host (NAT).",
)
HOST_IPADDR = Parameter(
    "HOST_IPADDR",
    """The host's address in the network that it shares with its virtual machines only. A host-only
    interface with that address is made if there is none. Required unless VAGRANT.""",
    _parse_address,
    "",
)
NETMASK = Parameter("NETMASK", "The mask that goes with it.", _parse_netmask, "")


class VirtualboxSsh(WriteExtension):
    description = """
    Make a virtual machine with VirtualBox, on this host or another.

    A disk image is made here and sent to the host over ssh without its holes; VirtualBox converts
    it as it arrives. The virtual machine has a host-only interface first and then one to the
    network of the host. If anything fails, nothing is left of it.
    """
    location_help = """
    vbox+ssh://HOST/GUEST/PATH: HOST or USER@HOST as ssh knows it, GUEST the name of the new virtual
    machine, /PATH the file on the host that becomes its disk, for example
    vbox+ssh://me@host.example.com/web/home/me/web.vdi.

    The host needs VBoxManage.
    """
    parameters = (
        *(RAM_SIZE, VCPUS, ATTACH_DISKS, HOST_IPADDR, NETMASK, VAGRANT, AUTOSTART),
        *image_parameters(_ROOT_DEVICE),
    )
    wrong_mode = WRONG_MODE

    def check(self, location: str, given: Parameters) -> None:
        machine = VirtualMachine.parse(location, "vbox+ssh")
        check_parameters(given)
        check_system_image(given)
        check_host(machine, given)

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        machine = VirtualMachine.parse(location, "vbox+ssh")
        check_parameters(given)
        check_host(machine, given)
        host, disk = machine.host, machine.disk
        with temporary_image(tree, given, self.devices, _ROOT_DEVICE) as image:
            machine.check_room(image)
            self.status(f"Transferring the disk image to {host}")
            self._place_disk(machine, image)
            with undone_on_failure(f"remove {disk}", lambda: remove(host, disk)):
                self.status("Creating the virtual machine")
                try:
                    create(machine, given)
                except MorphError:
                    complain("Error deploying to VirtualBox")
                    raise
        self.status(f"Virtual machine {machine.guest} has been created")

    def _place_disk(self, machine: VirtualMachine, image: Path) -> None:
        tell = tell_progress(self.status, "Transferring the disk image")
        with partial_file(machine.host, machine.disk) as part:
            send(machine.host, image, ("vbox", part, str(image.stat().st_size)), tell)
            publish(machine.host, part, machine.disk)


def check_parameters(given: Parameters) -> None:
    """Raises MorphError for parameters that do not go together."""
    if not given[VAGRANT]:
        for parameter in (HOST_IPADDR, NETMASK):
            if not given[parameter]:
                raise parameter_error(f"{parameter.name} was not given")
    if len(given[ATTACH_DISKS]) >= _MAX_PORTS:
        raise parameter_error(f"ATTACH_DISKS: VirtualBox has room for {_MAX_PORTS - 1} disks")


def check_host(machine: VirtualMachine, given: Parameters) -> None:
    """Raises MorphError unless the virtual machine can be made there."""
    host = machine.host
    host.check_reachable()
    machine.check_files(given[ATTACH_DISKS])
    if host.missing_programs("VBoxManage"):
        raise parameter_error(f"VBoxManage does not seem to be installed on host {host}")
    if f'"{machine.guest}" {{' in _manage(host, "list", "vms"):
        raise parameter_error(f"Host {host} already has a VM named {machine.guest}")


def create(machine: VirtualMachine, given: Parameters) -> None:
    """Make the virtual machine of its disk. Raises MorphError, and leaves nothing then."""
    host, guest = machine.host, str(uuid.uuid4())
    disks = (machine.disk, *given[ATTACH_DISKS])
    ports = str(max(2, len(disks)))
    port_count = "--portcount" if _version(host) >= (4, 3) else "--sataportcount"
    firmware = "efi" if given[BOOTLOADER_INSTALL] is Bootloader.GRUB_EFI else "bios"
    size = ("--memory", str(given[RAM_SIZE] >> 20), "--cpus", str(given[VCPUS]))
    with _networking(host, given) as networking, _removed_on_failure(host, guest):
        _manage(
            *(host, "createvm", "--name", machine.guest, "--uuid", guest),
            *("--ostype", "Linux26_64", "--register"),
        )
        _manage(
            host, "modifyvm", guest, "--ioapic", "on", "--firmware", firmware, *size, *networking
        )
        _manage(
            *(host, "storagectl", guest, "--name", _CONTROLLER, "--add", "sata"),
            *("--bootable", "on", port_count, ports),
        )
        for port, path in enumerate(disks):
            _manage(
                *(host, "storageattach", guest, "--storagectl", _CONTROLLER),
                *("--port", str(port), "--device", "0", "--type", "hdd", "--medium", path),
            )
        if given[AUTOSTART]:
            _manage(host, "startvm", guest, "--type", "headless")


@contextmanager
def _networking(host: Remote, given: Parameters) -> Iterator[tuple[str, ...]]:
    """The options of the network interfaces. A host-only interface is made if there is none."""
    if given[VAGRANT]:
        yield ("--nic1", "nat", "--natnet1", "default")
        return
    name = _host_interface(_manage(host, "list", "hostonlyifs"), given[HOST_IPADDR])
    if name is not None:
        yield _host_only(name)
        return
    made = re.search(
        r"Interface '([^']+)' was successfully created", _manage(host, "hostonlyif", "create")
    )
    if made is None:
        raise parameter_error(f"VBoxManage on {host} does not tell what interface it has made")
    with undone_on_failure(
        f"remove the interface {made[1]}", lambda: _manage(host, "hostonlyif", "remove", made[1])
    ):
        address = ("--ip", given[HOST_IPADDR], "--netmask", given[NETMASK])
        _manage(host, "hostonlyif", "ipconfig", made[1], *address)
        yield _host_only(made[1])


def _host_only(name: str) -> tuple[str, ...]:
    return (
        *("--nic1", "hostonly", "--hostonlyadapter1", name),
        *("--nic2", "nat", "--natnet2", "default"),
    )


def _host_interface(listed: str, address: str) -> str | None:
    """The name of the interface with an address, in what VBoxManage lists."""
    name = None
    for line in listed.splitlines():
        key, _, value = line.partition(":")
        if key == "Name":
            name = value.strip()
        elif key == "IPAddress" and value.strip() == address:
            return name
    return None


def _version(host: Remote) -> tuple[int, int]:
    """Warnings may come before it."""
    shown = _manage(host, "--version")
    found = re.findall(r"^(\d+)\.(\d+)\S*$", shown, re.MULTILINE)
    if not found:
        raise parameter_error(f"VBoxManage on {host} does not tell its version: {shown}")
    major, minor = found[-1]
    return int(major), int(minor)


@contextmanager
def _removed_on_failure(host: Remote, guest: str) -> Iterator[None]:
    """Remove the virtual machine with this UUID if the block fails, but none of its disks."""
    with undone_on_failure(
        "remove the virtual machine",
        lambda: host.script(
            _REMOVE_MACHINE, guest, _CONTROLLER, what="removing the virtual machine"
        ),
    ):
        yield


def _manage(host: Remote, *args: str) -> str:
    """What VBoxManage prints there."""
    return host.output("VBoxManage", *args)


WRITE = VirtualboxSsh()
