"""What NETWORK_CONFIG says, and the files that programs read which configure the network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

#: Patterns too; a name becomes part of a file name.
_NAME = re.compile(r"[^\s/:;,=\x00-\x1f\x7f]{1,200}")
_FIRST = 50  # networkd takes its files in the order of their names


class Kind(StrEnum):
    LOOPBACK = "loopback"
    STATIC = "static"
    DHCP = "dhcp"


@dataclass(frozen=True, slots=True)
class Stanza:
    """What is said of one interface. `arguments` are in the order in which they were given."""

    name: str
    kind: Kind
    arguments: Mapping[str, str]

    @property
    def network(self) -> ipaddress.IPv4Interface | None:
        """Address and mask, of those that have one."""
        if "address" not in self.arguments:
            return None
        return parse_interface(self.arguments["address"], self.arguments["netmask"])


def parse_network_config(text: str) -> tuple[Stanza, ...]:
    """The stanzas, which have semicolons between them. Raises ValueError with what is wrong."""
    parts = [part.strip() for part in text.split(";")]
    if len(parts) > 1 and not parts[-1]:
        del parts[-1]
    return tuple(_parse_stanza(part) for part in parts)


def _parse_stanza(text: str) -> Stanza:
    head, *words = (word.strip() for word in text.split(","))
    name, colon, kind = head.partition(":")
    if not (colon and name and kind):
        raise ValueError(f"NETWORK_CONFIG: '{text}' is missing its type")
    if not _NAME.fullmatch(name):
        raise ValueError(f"NETWORK_CONFIG: {name!r} is no name of an interface")
    if kind not in tuple(Kind):
        known = ", ".join(Kind)
        raise ValueError(
            f"NETWORK_CONFIG: '{text}' has unknown interface type '{kind}' (known: {known})"
        )
    stanza = Stanza(name, Kind(kind), _parse_arguments(text, words))
    _check_address(text, stanza)
    return stanza


def _parse_arguments(text: str, words: Iterable[str]) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals) or not word.isprintable() or re.search(r"\s", name):
            raise ValueError(f"NETWORK_CONFIG: '{text}' has bad argument '{word}'")
        if name in arguments:
            raise ValueError(f"NETWORK_CONFIG: '{text}' has repeated argument '{name}'")
        arguments[name] = value
    return arguments


def _check_address(text: str, stanza: Stanza) -> None:
    if ("address" in stanza.arguments) != ("netmask" in stanza.arguments):
        raise ValueError(
            f"NETWORK_CONFIG: '{text}': address and netmask must be specified together"
        )
    try:
        _ = stanza.network
    except ValueError as error:
        raise ValueError(f"NETWORK_CONFIG: '{text}' has bad argument: {error}") from None


def parse_interface(address: str, netmask: str) -> ipaddress.IPv4Interface:
    """Raises ValueError. The mask is dotted, or the number of its bits."""
    where = ipaddress.IPv4Address(address)
    bits = _bits(netmask)
    if bits is None:
        raise ValueError(f"'{netmask}' is no netmask")
    return ipaddress.IPv4Interface(f"{where}/{bits}")


def _bits(netmask: str) -> int | None:
    if re.fullmatch(r"[0-9]{1,2}", netmask):
        return int(netmask) if int(netmask) <= 32 else None
    try:
        mask = int(ipaddress.IPv4Address(netmask))
    except ValueError:
        return None
    rest = mask ^ 0xFFFFFFFF
    return 32 - rest.bit_length() if rest & (rest + 1) == 0 else None


def format_interfaces(stanzas: Iterable[Stanza]) -> str:
    """/etc/network/interfaces, which ifupdown reads: the loopback first, the others by name."""
    ordered = sorted(stanzas, key=lambda stanza: (stanza.name != "lo", stanza.name))
    return "\n".join(_format_interface(stanza) for stanza in ordered)


def _format_interface(stanza: Stanza) -> str:
    lines = [f"auto {stanza.name}", f"iface {stanza.name} inet {stanza.kind}"]
    lines += [f"    {name} {value}" for name, value in stanza.arguments.items()]
    return "\n".join(lines) + "\n"


def format_networkd(stanzas: Iterable[Stanza]) -> dict[str, str]:
    """Name -> text of the files for systemd-networkd, which has the loopback by itself."""
    return {
        f"{number}-{stanza.name}.network": _format_network(stanza)
        for number, stanza in enumerate(stanzas, _FIRST)
        if stanza.kind is not Kind.LOOPBACK
    }


def _format_network(stanza: Stanza) -> str:
    lines = ["[Match]", f"Name={stanza.name}", "", "[Network]"]
    match stanza.kind:
        case Kind.DHCP:
            lines.append("DHCP=yes")
        case Kind.STATIC:
            if stanza.network is not None:
                lines.append(f"Address={stanza.network}")
            for key, name in (("Gateway", "gateway"), ("DNS", "dns")):
                if name in stanza.arguments:
                    lines.append(f"{key}={stanza.arguments[name]}")
    return "\n".join(lines) + "\n"
