"""Systems whose root file system comes over the network."""

from __future__ import annotations

from contextlib import ExitStack

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.extension import ConfigureExtension, WriteExtension
from morphlib.writeexts.nfsserver import (
    CLIENTS,
    ROOT,
    TFTP,
    NfsServer,
    find_kernel,
    parse_host,
    versions_of,
)
from morphlib.writeexts.parameters import Parameter, Parameters, text
from morphlib.writeexts.remote import root_at
from morphlib.writeexts.remotetree import send_tree, xattr_options
from morphlib.writeexts.tree import Tree
from morphlib.writeexts.versions import version_label

NFSBOOT_CONFIGURE = text(
    "NFSBOOT_CONFIGURE", "Anything but an empty text. Without it nothing is changed."
)


class ConfigureNfsboot(ConfigureExtension):
    description = """
    Keep the system from configuring the network that it boots over.

    The kernel has done so before it mounted the root file system. /etc/network/interfaces is
    replaced by one that has only the loopback interface.
    """
    parameters = (NFSBOOT_CONFIGURE,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        if given[NFSBOOT_CONFIGURE]:
            tree.write("etc/network/interfaces", "auto lo\niface lo inet loopback\n")


def _parse_hostname(value: str) -> str:
    name = parse_host(value)
    if name == "baserock":
        raise ValueError('It is forbidden to nfsboot a system with hostname "baserock"')
    return name


HOSTNAME = Parameter(
    "HOSTNAME",
    """The name of the machine, which its kernel and root file system have on the server. It can't
    be baserock, which is the name of systems that were given none.""",
    _parse_hostname,
    "",
    required=True,
    missing="You must specify a HOSTNAME.",
)
VERSION_LABEL = version_label(
    """The name of this version: letters, digits and hyphens. The machine must not have it yet.""",
    "factory",
)

_RSYNC = ("--archive", "--hard-links", "--sparse", "--numeric-ids", "--delete")
# What boots shares all files with the pristine copy but those that configure it.
_FINISH = """
set -eu
cd -- "$1"
cp -al orig run
rm -rf run/etc
[ ! -e orig/etc ] && [ ! -L orig/etc ] || cp -a orig/etc run/etc
cp -- "orig/$2" kernel
chmod 644 kernel
mv -fT kernel orig/kernel
"""


class WriteNfsboot(WriteExtension):
    description = """
    Put a system on a server that a machine boots from over the network.

    The server has what it serves in /srv/nfsboot. The machine named HOSTNAME gets its kernel by
    TFTP under its own name, and mounts /srv/nfsboot/HOSTNAME/systems/default/run over NFS as its
    root file system. Versions are kept beside each other: the one that is deployed last is the one
    that boots, and the kernel of each can be had as HOSTNAME-VERSION_LABEL. What boots today stays
    as it is until all of the new version is there, and if anything fails.

    The server is one with rsync, a TFTP server that serves /srv/nfsboot/tftp, and an NFS server
    that systemd runs as nfs-server.service.
    """
    location_help = "HOST or root@HOST: the server, as ssh knows it. It is root who logs in."
    parameters = (HOSTNAME, VERSION_LABEL, CLIENTS)
    wrong_mode = (
        "Upgrading is not currently supported for NFS deployments. Deploy the new version with a "
        "VERSION_LABEL of its own."
    )

    def check(self, location: str, given: Parameters) -> None:
        self._check_server(NfsServer(root_at(location)), given)

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        server = NfsServer(root_at(location))
        kernel = find_kernel(tree)
        self._check_server(server, given)
        with server.partial_version(given[HOSTNAME]) as part:
            self.status(f"Transferring the system to {server.remote}")
            send_tree(
                *(server.remote, tree, f"{part}/orig"),
                (*_RSYNC, *xattr_options(server.remote)),
                devices=self.devices,
                tell=self.status,
            )
            self.status("Making the root file system")
            server.remote.script(_FINISH, part, kernel, what="copying the system")
            self._install(server, part, given)

    def _install(self, server: NfsServer, part: str, given: Parameters) -> None:
        host, label = given[HOSTNAME], given[VERSION_LABEL]
        with ExitStack() as steps:
            place = steps.enter_context(server.published(part, host, label))
            steps.enter_context(server.kernel_linked(f"{place}/orig/kernel", host, label))
            steps.enter_context(server.exported([host], given[CLIENTS]))
            steps.enter_context(server.link_set(f"{versions_of(host)}/default", place))
            steps.enter_context(server.link_set(f"{TFTP}/{host}", f"{host}-{label}"))
        self.status(
            f"{host} boots version {label} now: its root file system is "
            f"{server.remote.host.partition('@')[2]}:{versions_of(host)}/default/run"
        )

    def _check_server(self, server: NfsServer, given: Parameters) -> None:
        host, label = given[HOSTNAME], given[VERSION_LABEL]
        server.check()
        if server.remote.exists(f"{versions_of(host)}/{label}"):
            raise MorphError(
                f"Root file system for host {host} (version {label}) already exists on "
                f"{server.remote}, in {ROOT}",
                reason=Reason.DEPLOY,
                hint="Give the new one another VERSION_LABEL",
            )
        server.check_names(host, label)


CONFIGURE = ConfigureNfsboot()
WRITE = WriteNfsboot()
