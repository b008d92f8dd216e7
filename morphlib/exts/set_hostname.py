"""Names the system."""

from __future__ import annotations

import re

from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.parameters import Parameter, Parameters
from morphlib.writeexts.tree import Tree

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST = 64  # that of Linux


def _parse_name(value: str) -> str:
    if value and (not _NAME.fullmatch(value) or len(value) > _LONGEST):
        raise ValueError(
            f"HOSTNAME {value!r} is no host name: letters, digits, hyphens and dots between them, "
            f"{_LONGEST} at most"
        )
    return value


HOSTNAME = Parameter(
    "HOSTNAME",
    "The name that the system gets. Without it nothing is changed.",
    _parse_name,
    "",
    empty_is_unset=False,
)


class SetHostname(ConfigureExtension):
    description = "Write the host's name to /etc/hostname."
    parameters = (HOSTNAME,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        if given[HOSTNAME]:
            tree.write("etc/hostname", given[HOSTNAME] + "\n")


CONFIGURE = SetHostname()
