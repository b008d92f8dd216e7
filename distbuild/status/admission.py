"""Who may look: who is on this machine, or knows the token. Nobody can change anything."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping

from distbuild.handshake import is_loopback

_PROXIED = ("x-forwarded-for", "forwarded")


def refusal(address: str, headers: Mapping[str, str], token: bytes) -> tuple[int, str] | None:
    """The HTTP status and the reason for turning somebody away. Header names are in lower case.

    With a token it has to be sent, as a bearer's or as the password of any user. Without one only
    this machine may look, and no page of elsewhere whose name was made to point here.
    """
    if token:
        given = _token_in(headers.get("authorization", ""))
        if not hmac.compare_digest(given, token):
            return 401, "it sent a wrong token" if given else "it sent no token"
        return None
    if not is_loopback(address):
        return 403, "it is on another machine"
    if any(name in headers for name in _PROXIED):
        return 403, "it comes through a proxy"
    host = _host_of(headers.get("host", ""))
    if host != "localhost" and not is_loopback(host):
        return 403, "it asked for another host"
    return None


def _token_in(header: str) -> bytes:
    scheme, _, value = header.partition(" ")
    value = value.strip()
    match scheme.lower():
        case "bearer":
            return value.encode("utf-8", "replace")
        case "basic":
            try:
                return base64.b64decode(value, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return b""
        case _:
            return b""


def _host_of(header: str) -> str:
    """The name or address in `HOST`, `HOST:PORT` or `[HOST]:PORT`."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()
