"""Where daemons listen and are found: HOST:PORT, sockets, and files that tell the port."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason


@dataclass(frozen=True, slots=True)
class Address:
    """`str` gives the form that `parse_address` reads."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int) -> Address:
    """`HOST`, `HOST:PORT`, `[ADDRESS]:PORT` or a bare IPv6 address. Raises MorphError."""
    host, _, port = text.rpartition(":")
    if text.startswith("["):
        if text.endswith("]"):
            host, port = text, ""
        host = host.removeprefix("[").removesuffix("]")
    elif ":" not in text or ":" in host:
        host, port = text, ""
    good = host and host.isascii() and not any(c <= " " or c in "/@[]" for c in host)
    if not good or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise MorphError(
            f"{text!r} is no HOST or HOST:PORT", reason=Reason.CONFIG, hint="For example big:3434."
        )
    return Address(host, int(port) if port else default_port)


#: Connections that may wait until they are accepted, for when many machines come at once.
_BACKLOG = 1024


def listen(address: str, port: int) -> socket.socket:
    """A listening socket; all addresses of the machine without one, any port for 0.

    Raises MorphError.
    """
    everywhere = address in ("", "::")
    try:
        if everywhere and socket.has_dualstack_ipv6():
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        infos = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=_FLAGS)
        family, _, _, _, where = infos[0]
        return socket.create_server(where[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise MorphError(
            f"can't listen at {address or 'all addresses'}, port {port}: {why}",
            reason=Reason.CONFIG,
        ) from error


_FLAGS = socket.AI_PASSIVE


def write_port_file(path: str, listening: socket.socket) -> None:
    """Tell the port of a socket that listens, if anybody wants to know.

    The file may be a named pipe: it is written in place, and waits for its reader. Raises
    MorphError.
    """
    if not path:
        return
    try:
        with Path(path).open("w") as file:
            file.write(f"{listening.getsockname()[1]}\n")
    except OSError as error:
        raise MorphError(
            f"can't write the port to {path}: {error.strerror}", reason=Reason.CONFIG
        ) from error
