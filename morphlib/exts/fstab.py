"""Adds entries to the table of file systems."""

from __future__ import annotations

from morphlib.writeexts.appending import append_values
from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.parameters import Parameters, prefixed
from morphlib.writeexts.tree import Tree

FSTAB = prefixed(
    "FSTAB_",
    """A line for /etc/fstab, such as FSTAB_SRC: LABEL=src /src auto defaults,rw,noatime 0 2.
    What follows FSTAB_ in the name does not matter. The lines are sorted. Empty ones add
    nothing.""",
)


class Fstab(ConfigureExtension):
    description = """
    Append lines to /etc/fstab.

    The file is made if the system has none; it belongs to root in any case, with mode 0644.
    """
    parameters = (FSTAB,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        values = [value.rstrip("\n") for value in given[FSTAB].values()]
        append_values(tree, "etc/fstab", [value for value in values if value])


CONFIGURE = Fstab()
