"""Configures the network, for ifupdown and for systemd-networkd."""

from __future__ import annotations

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.extension import ConfigureExtension
from morphlib.writeexts.network import (
    Stanza,
    format_interfaces,
    format_networkd,
    parse_network_config,
)
from morphlib.writeexts.parameters import Parameter, Parameters
from morphlib.writeexts.tree import Tree

DEFAULT_INTERFACES = "lo:loopback;eth0:dhcp,hostname=$(hostname)"
DEFAULT_NETWORKD = "e*:dhcp"


def _parse(text: str) -> str | None:
    parse_network_config(text)
    return text


NETWORK_CONFIG: Parameter[str | None] = Parameter(
    "NETWORK_CONFIG",
    """The interfaces: NAME:TYPE[,ARGUMENT=VALUE]... for each, with semicolons between them. TYPE is
    loopback, static or dhcp. Static ones take the arguments address, netmask, gateway and dns;
    /etc/network/interfaces gets all others, too. For example:
    lo:loopback;eth0:static,address=10.0.0.2,netmask=255.255.255.0,gateway=10.0.0.1;eth1:dhcp""",
    _parse,
    None,
    shown="all wired interfaces by DHCP",
    empty_is_unset=False,
)


class SimpleNetwork(ConfigureExtension):
    description = """
    Configure the network: /etc/network/interfaces, and files for systemd-networkd.

    A file 10-dhcp.network that the system has for systemd-networkd would win over these, and is
    renamed to 10-dhcp.network.morph.
    """
    parameters = (NETWORK_CONFIG,)

    def configure(self, tree: Tree, given: Parameters) -> None:
        config = given[NETWORK_CONFIG]
        interfaces = self._stanzas(DEFAULT_INTERFACES if config is None else config)
        networkd = self._stanzas(DEFAULT_NETWORKD) if config is None else interfaces
        for directory in ("etc/network", "etc/systemd/network"):
            _make_directory(tree, directory)
        if tree.is_file("etc/systemd/network/10-dhcp.network"):
            tree.rename("etc/systemd/network/10-dhcp.network", "10-dhcp.network.morph")
        tree.write("etc/network/interfaces", format_interfaces(interfaces))
        for name, text in format_networkd(networkd).items():
            tree.write(f"etc/systemd/network/{name}", text)

    def _stanzas(self, config: str) -> tuple[Stanza, ...]:
        self.status(msg="Processing NETWORK_CONFIG=%(config)s", config=config)
        return parse_network_config(config)


def _make_directory(tree: Tree, path: str) -> None:
    try:
        tree.make_directory(path)
    except MorphError as error:
        raise MorphError(
            f"Unable to create directory /{path}: {error.message}", reason=Reason.DEPLOY
        ) from error


CONFIGURE = SimpleNetwork()
