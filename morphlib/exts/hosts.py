"""Adds host names to those that the system knows."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from morphlib.errors import MorphError, Reason, raise_all
from morphlib.writeexts.appending import append_values
from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.parameters import Parameters, prefixed
from morphlib.writeexts.tree import Tree

HOSTS = prefixed(
    "HOSTS_",
    """A line for /etc/hosts: an address and at least one name for it, such as
    HOSTS_CONTROLLER: 10.0.0.1 controller.example.com controller. What follows HOSTS_ in the name
    does not matter. The lines are sorted.""",
)


class Hosts(ConfigureExtension):
    description = """
    Append lines to /etc/hosts.

    The file is made if the system has none; it belongs to root in any case, with mode 0644. Nothing
    is written if one of the lines is wrong.
    """
    parameters = (HOSTS,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        append_values(tree, "etc/hosts", check_hosts(given[HOSTS]))


def check_hosts(values: Mapping[str, str]) -> list[str]:
    """The lines for /etc/hosts. Raises MorphError for all that are wrong."""
    wrong = {name: problem for name, value in values.items() if (problem := find_problem(value))}
    raise_all(
        MorphError(f"{name}: {problem}: {values[name]!r}", reason=Reason.DEPLOY)
        for name, problem in wrong.items()
    )
    return [value.strip() for value in values.values()]


def find_problem(value: str) -> str | None:
    """What is wrong with a line for /etc/hosts, if anything is."""
    if len(value.strip().splitlines()) > 1:
        return "more than one line"
    match value.split():
        case []:
            return "line is empty"
        case [_]:
            return "missing hostname"
        case [address, *_]:
            return None if _is_address(address) else "invalid ip"
    raise AssertionError(value)


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


CONFIGURE = Hosts()
