"""Systems whose disk is a virtual one of OpenStack."""

from __future__ import annotations

from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.fstab import replace_root
from morphlib.writeexts.parameters import Parameters, text
from morphlib.writeexts.tree import Tree

OPENSTACK_USER = text(
    "OPENSTACK_USER", "The user of OpenStack who deploys. Without it nothing is changed."
)
_ROOT = "/dev/vda / btrfs defaults,rw,noatime 0 1"


class Vdaboot(ConfigureExtension):
    description = """
    Let a system for OpenStack mount its root file system from /dev/vda.

    Other entries for / in /etc/fstab are dropped.
    """
    parameters = (OPENSTACK_USER,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        if given[OPENSTACK_USER]:
            before = tree.read_text("etc/fstab") if tree.is_file("etc/fstab") else ""
            tree.write("etc/fstab", replace_root(before, _ROOT))


CONFIGURE = Vdaboot()
