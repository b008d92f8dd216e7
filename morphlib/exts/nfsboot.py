"""Systems whose root file system comes over the network."""

from __future__ import annotations

from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.parameters import Parameters, text
from morphlib.writeexts.tree import Tree

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


CONFIGURE = ConfigureNfsboot()
