"""Names the system."""

from __future__ import annotations

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.parameters import Parameters, text
from morphlib.writeexts.tree import Tree

HOSTNAME = text("HOSTNAME", "The name that the system gets. Without it nothing is changed.")


class SetHostname(ConfigureExtension):
    description = "Write the host's name to /etc/hostname."
    parameters = (HOSTNAME,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        name = given[HOSTNAME]
        if not name:
            return
        if any(char.isspace() or char == "\0" for char in name):
            raise MorphError(f"HOSTNAME {name!r} is no host name", reason=Reason.DEPLOY)
        tree.write("etc/hostname", name + "\n")


CONFIGURE = SetHostname()
