"""Parameters of what lets machines boot over the network."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from morphlib.errors import MorphError, Reason
from morphlib.images.programs import Data, check_there
from morphlib.writeexts.imageparameters import DTB_PATH, INITRAMFS_PATH, KERNEL_ARGS
from morphlib.writeexts.parameters import (
    Parameter,
    Parameters,
    boolean,
    choice,
    parameter_error,
    text,
)
from morphlib.writeexts.pxe import address
from morphlib.writeexts.restarting import can_be_told


class Mode(StrEnum):
    EXISTING_SERVER = "existing-server"
    SPAWN_NOVLAN = "spawn-novlan"


class Bootloader(StrEnum):
    NONE = "none"
    PXELINUX = "pxelinux"


#: Modes that extensions of this name have elsewhere, and what does here what they are for.
_ELSEWHERE = {
    "spawn-vlan": (
        "make the interface of the VLAN (ip link add link eth0 name eth0.5 type vlan id 5), give "
        "it an address, and use spawn-novlan with PXEBOOT_DEPLOYER_INTERFACE eth0.5"
    ),
    "existing-dhcp": (
        "where the DHCP server sends machines to a TFTP server use existing-server with that one's "
        "directory; where it sends them nowhere use spawn-novlan, on a network without it"
    ),
}


def _parse_mode(value: str) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        known = f"Invalid PXEBOOT_MODE {value} (known: {', '.join(Mode)})"
        instead = _ELSEWHERE.get(value)
        raise ValueError(f"{known}. Instead of it, {instead}" if instead else known) from None


MODE: Parameter[Mode] = Parameter(
    "PXEBOOT_MODE",
    """existing-server: DHCP, TFTP and NFS servers are there, and files are put where they look.
    spawn-novlan: DHCP and TFTP servers run on this machine until the other is installed, and serve
    it alone. The system is an initramfs then, and the boot loader is pxelinux. Needs root.""",
    _parse_mode,
    Mode.EXISTING_SERVER,
    shown=Mode.EXISTING_SERVER,
)
INTERFACE = text(
    "PXEBOOT_DEPLOYER_INTERFACE",
    "With spawn-novlan, the network interface of this machine on which the other is. It has an "
    "IPv4 address; the other gets one of the same network.",
)
TFTP = address(
    "PXEBOOT_CONFIG_TFTP_ADDRESS",
    """The directory that the TFTP server serves: sftp://[USER@]HOST/DIRECTORY, or a directory of
    this machine. Kernel and configuration go there, by ssh and rsync. Required with
    existing-server.""",
    "sftp",
)
ROOTFS = address(
    "PXEBOOT_ROOTFS_RSYNC_ADDRESS",
    """A directory that the NFS server exports: rsync://[USER@]HOST/DIRECTORY, reached by ssh as
    root, or a directory of this machine. The system goes there as MAC/VERSION. Without it, the
    system as a whole is an initramfs, and runs in the memory of the machine.""",
    "rsync",
)
NFSROOT = text(
    "PXEBOOT_NFSROOT",
    "That directory as the machine mounts it: SERVER:/DIRECTORY.",
    shown="the host and directory of PXEBOOT_ROOTFS_RSYNC_ADDRESS",
)
BOOTLOADER = choice(
    "PXEBOOT_BOOTLOADER",
    """none: the machine's boot loader is there, or in its firmware. pxelinux: it is put into the
    TFTP directory as well, for the BIOS of PCs; DHCP has to name pxelinux.0.""",
    Bootloader.NONE,
)
INSTALLER = boolean(
    "PXE_INSTALLER",
    """The system installs another on the disk of the machine. When it has, the machine is told to
    boot from that, and everything is taken off the servers. With no, the system stays there.""",
    default=True,
)
INSTALLED_COMMAND = text(
    "PXEBOOT_INSTALLED_COMMAND",
    "A script of the shell that ends when the machine is installed.",
    shown="wait for the word 'installed' on standard input",
)
PXE_REBOOT_COMMAND = text(
    "PXEBOOT_PXE_REBOOT_COMMAND",
    "A script of the shell that restarts the machine so that it boots from the network.",
    shown="by IPMI, or people are told to",
)
REBOOT_COMMAND = text(
    "PXEBOOT_REBOOT_COMMAND",
    "A script of the shell that restarts the machine so that it boots from its disk.",
    shown="by IPMI, or people are told to",
)
IPMI_HOST = text("IPMI_HOST", "The controller of the machine's power.")
IPMI_USER = text("IPMI_USER", "Who logs in there.")
IPMI_PASSWORD = text("IPMI_PASSWORD", "The password for that.", secret=True)

PXELINUX = Data(Path("/usr/lib/PXELINUX/pxelinux.0"), "pxelinux")
LDLINUX = Data(Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"), "syslinux-common")

PARAMETERS: tuple[Parameter[Any], ...] = (
    MODE,
    INTERFACE,
    TFTP,
    ROOTFS,
    NFSROOT,
    BOOTLOADER,
    INSTALLER,
    INSTALLED_COMMAND,
    PXE_REBOOT_COMMAND,
    REBOOT_COMMAND,
    IPMI_HOST,
    IPMI_USER,
    IPMI_PASSWORD,
    INITRAMFS_PATH,
    DTB_PATH,
    KERNEL_ARGS,
)


def check_together(given: Parameters) -> None:
    """Raises MorphError for parameters that do not go together, or lack what they need here."""
    spawned = given[MODE] is Mode.SPAWN_NOVLAN
    if spawned:
        _check_spawned(given)
    elif given[TFTP] is None:
        raise parameter_error("PXEBOOT_CONFIG_TFTP_ADDRESS was not given")
    if spawned or given[BOOTLOADER] is Bootloader.PXELINUX:
        check_there([PXELINUX, LDLINUX], what="booting with pxelinux")
    if given[INITRAMFS_PATH] and given[ROOTFS] is None:
        raise parameter_error(
            "INITRAMFS_PATH needs PXEBOOT_ROOTFS_RSYNC_ADDRESS: without it, the system itself "
            "is the initramfs"
        )
    if not given[NFSROOT].isprintable() or " " in given[NFSROOT]:
        raise parameter_error(f"PXEBOOT_NFSROOT {given[NFSROOT]!r} is no SERVER:/DIRECTORY")
    if given[INSTALLER] and not given[INSTALLED_COMMAND] and not can_be_told():
        raise MorphError(
            "nobody can tell when the machine is installed: standard input is /dev/null",
            reason=Reason.DEPLOY,
            hint="set PXEBOOT_INSTALLED_COMMAND, deploy this alone from a terminal, or set "
            "PXE_INSTALLER to no if nothing is installed",
        )


def _check_spawned(given: Parameters) -> None:
    if not given[INTERFACE]:
        raise parameter_error("PXEBOOT_DEPLOYER_INTERFACE was not given")
    for each in (TFTP, ROOTFS):
        if given[each] is not None:
            raise parameter_error(f"{each.name} is for PXEBOOT_MODE existing-server")
    if not given[INSTALLER]:
        raise parameter_error(
            "PXE_INSTALLER no is for PXEBOOT_MODE existing-server: other servers end with the "
            "deployment"
        )
