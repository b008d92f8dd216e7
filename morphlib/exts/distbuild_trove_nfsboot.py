"""Puts a whole distbuild network, whose machines boot from a trove, onto that trove."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from morphlib.errors import MorphError, Reason, raise_all
from morphlib.writeexts.distbuildnodes import NAMES, Network, read_network
from morphlib.writeexts.extension import Upgrades, WriteExtension
from morphlib.writeexts.nfsserver import (
    CLIENTS,
    ROOT,
    TFTP,
    NfsServer,
    find_kernel,
    versions_of,
)
from morphlib.writeexts.output import complain
from morphlib.writeexts.parameters import Parameters, boolean
from morphlib.writeexts.remote import root_at
from morphlib.writeexts.remotetree import send_tree, xattr_options
from morphlib.writeexts.tree import Tree
from morphlib.writeexts.undo import undone_on_failure
from morphlib.writeexts.versions import version_label

VERSION_LABEL = version_label(
    "The name of this version: letters, digits and hyphens. The machines must not have it yet.",
    "factory",
)
OVERWRITE = boolean("OVERWRITE", "Replace this version of machines that have it already.")

# No hard links: machines, and names of a file on one of them, have nothing to do with each other.
_RSYNC = ("--archive", "--sparse", "--numeric-ids", "--delete")
_CONFIGURATION = "etc/distbuild/distbuild.conf"
_KEY = "etc/distbuild/worker.key"

# Prints what there is of each machine: "system" and "version", with its name.
_LOOK = """
label=$1
shift
for each; do
    if [ -e "/srv/nfsboot/$each" ]; then echo "system $each"; fi
    if [ -e "/srv/nfsboot/$each/systems/$label" ]; then echo "version $each"; fi
done
"""
# The file is made outside the tree, where no link of the tree can be in its place.
_WRITE_FILE = """
set -eu
cd -- "$1"
umask 022
case $2 in */*) mkdir -p -- "run/${2%/*}" ;; esac
umask 077
cat >new
chmod "$3" new
mv -fT new "run/$2"
"""
# Each that is there gets the other name.
_MOVE = """
set -eu
while [ "$#" -gt 0 ]; do
    if [ -e "$1" ] || [ -L "$1" ]; then mv -T -- "$1" "$2"; fi
    shift 2
done
"""


class DistbuildTroveNfsboot(WriteExtension):
    description = """
    Put a system on a trove as that of all machines of a distbuild network, which boot from there.

    The controller and the workers get a copy each, which tells them who they are in
    /etc/distbuild/distbuild.conf, and boot it as machines of nfsboot.write do: kernels come by
    TFTP, root file systems over NFS, from /srv/nfsboot of the trove. What the machines boot today
    stays as it is until the copies of all are there, and if anything fails.
    """
    location_help = "HOST or root@HOST: the trove, as ssh knows it. It is root who logs in."
    parameters = (*NAMES, VERSION_LABEL, OVERWRITE, CLIENTS)
    upgrades = Upgrades.BOTH

    def check(self, location: str, given: Parameters) -> None:
        network = read_network(given)
        self._check_server(NfsServer(root_at(location)), network, given)

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        network = read_network(given)
        server = NfsServer(root_at(location))
        kernel = find_kernel(tree)
        replaced = self._check_server(server, network, given)
        with ExitStack() as steps:
            parts = {
                node: steps.enter_context(server.partial_version(node)) for node in network.nodes
            }
            self._copy(server, tree, list(parts.values()))
            for node, part in parts.items():
                self.status(f"Configuring {node}")
                server.remote.run("chmod", "a+r", "--", f"{part}/run/{kernel}")
                self._configure(server, tree, network, node, part)
            self._install(server, kernel, parts, replaced, given)
        self.status(f"{', '.join(network.nodes)} boot version {given[VERSION_LABEL]} now")

    def _copy(self, server: NfsServer, tree: Tree, parts: list[str]) -> None:
        remote = server.remote
        options = (*_RSYNC, *xattr_options(remote))
        first, *others = (f"{part}/run" for part in parts)
        self.status(f"Transferring the system to {remote}")
        send_tree(remote, tree, first, options, devices=self.devices, tell=self.status)
        for number, other in enumerate(others, 2):
            self.status(f"Copying the system for machine {number} of {len(parts)}")
            remote.run("rsync", *options, "--", f"{first}/", f"{other}/", what="rsync")

    def _configure(
        self, server: NfsServer, tree: Tree, network: Network, node: str, part: str
    ) -> None:
        for path, content, mode in (
            ("etc/hostname", f"{node}\n".encode(), "644"),
            (_KEY, network.key, "600"),
            (_CONFIGURATION, network.configuration(node, f"/{_KEY}").encode(), "644"),
        ):
            place = str(tree.place(path).relative_to(tree.root))
            server.remote.script(
                _WRITE_FILE, part, place, mode, stdin=content, what=f"writing /{path}"
            )

    def _install(
        self,
        server: NfsServer,
        kernel: str,
        parts: dict[str, str],
        replaced: frozenset[str],
        given: Parameters,
    ) -> None:
        """Let all that is there take effect, or nothing."""
        label = given[VERSION_LABEL]
        with ExitStack() as steps:
            for node, part in parts.items():
                if node in replaced:
                    steps.enter_context(_set_aside(server, node, label))
                place = steps.enter_context(server.published(part, node, label))
                steps.enter_context(server.kernel_linked(f"{place}/run/{kernel}", node, label))
            steps.enter_context(server.exported(list(parts), given[CLIENTS]))
            for node in parts:
                place = f"{versions_of(node)}/{label}"
                steps.enter_context(server.link_set(f"{versions_of(node)}/default", place))
                steps.enter_context(server.link_set(f"{TFTP}/{node}", f"{node}-{label}"))

    def _check_server(
        self, server: NfsServer, network: Network, given: Parameters
    ) -> frozenset[str]:
        """Raises MorphError for what can't be. Returns the machines that have the version."""
        label = given[VERSION_LABEL]
        for node in network.nodes:
            if f"{node}-{label}" in network.nodes:
                raise _error(f"the kernel of {node} would have the name of another machine")
        server.check()
        done = server.remote.script(_LOOK, label, *network.nodes, what=f"looking into {ROOT}")
        found = frozenset(done.stdout.decode("utf-8", "replace").splitlines())
        where = f"{server.remote}, in {ROOT}"
        errors = []
        for node in network.nodes:
            has_system, has_version = f"system {node}" in found, f"version {node}" in found
            if self.is_upgrade and not has_system:
                errors.append(_error(f"System {node} is not on {where}: cannot deploy an upgrade"))
            elif self.is_upgrade and has_version and not given[OVERWRITE]:
                errors.append(_error(f"System {node}: version {label} already exists on {where}"))
            elif not self.is_upgrade and has_system and not given[OVERWRITE]:
                errors.append(
                    _error(
                        f"System {node} already exists at {where}. Try `morph upgrade` instead of "
                        "`morph deploy`"
                    )
                )
        raise_all(errors)
        replaced = frozenset(node for node in network.nodes if f"version {node}" in found)
        for node in network.nodes:
            if node not in replaced:
                server.check_names(node, label)
        return replaced


@contextmanager
def _set_aside(server: NfsServer, node: str, label: str) -> Iterator[None]:
    """Take a version and its kernel out of the way: back if the block fails, else for good."""
    token = secrets.token_hex(6)
    version, kernel = f"{versions_of(node)}/{label}", f"{TFTP}/{node}-{label}"
    old = (f"{versions_of(node)}/.{token}.morph-old", f"{TFTP}/.{token}.morph-old")
    what = f"setting {version} aside"
    with undone_on_failure(
        f"restore {version}",
        lambda: server.remote.script(_MOVE, old[0], version, old[1], kernel, what=what),
    ):
        server.remote.script(_MOVE, version, old[0], kernel, old[1], what=what)
        yield
    try:
        server.remote.run("rm", "-rf", "--", *old)
    except MorphError as error:  # what was to be done is done
        complain(f"can't remove the old {version}: {error}")


def _error(message: str) -> MorphError:
    return MorphError(message, reason=Reason.DEPLOY)


WRITE = DistbuildTroveNfsboot()
