"""Who may take part: what is checked of the first two lines of a connection.

Where a secret is configured, both sides prove that they know it without saying it: each sends an
HMAC over both hellos and its own role. That encrypts nothing. Where certificates are configured,
connections are TLS, and each side's certificate has to let it be what it says that it is. Where
there is neither, only this machine's own addresses may connect.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distbuild.certificates import Identity, read_identity
from distbuild.heartbeat import USUAL, Heartbeat
from distbuild.messages import PROTOCOL_VERSION, Hello, Proof, Role
from morphlib.errors import MorphError, Reason
from morphlib.version import describe_version

_SHORTEST_SECRET = 16


class RefusedError(Exception):
    """The other side may not take part; the text tells it why."""


@dataclass(frozen=True, slots=True)
class Party:
    """One side of all its connections. With an `identity` they are TLS. Without that and without a
    `secret` it talks to its own machine alone."""

    role: Role
    secret: bytes = b""
    identity: Identity | None = None
    heartbeat: Heartbeat = USUAL

    def hello(self) -> Hello:
        return Hello(
            role=self.role,
            protocol=PROTOCOL_VERSION,
            program=describe_version(),
            nonce=secrets.token_hex(16),
        )

    def check_address(self, address: str) -> None:
        """Raises RefusedError for another machine where nothing is there to know it by."""
        if not (self.secret or self.identity or is_loopback(address)):
            raise RefusedError(
                f"{address} is another machine: set distbuild-secret-file on both of them, or"
                " distbuild-certificate and distbuild-authorities"
            )

    def check_hello(self, hello: Hello, expected: Collection[Role]) -> None:
        """Raises RefusedError for the wrong protocol or role."""
        if hello.protocol != PROTOCOL_VERSION:
            older = hello.role if hello.protocol < PROTOCOL_VERSION else self.role
            raise RefusedError(
                f"Protocol version mismatch: the {self.role} uses distbuild protocol version"
                f" {PROTOCOL_VERSION}, but the {hello.role} uses version {hello.protocol}."
                f" Update the {older}."
            )
        if hello.role not in expected:
            raise RefusedError(f"a {self.role} does not listen to a {hello.role} here")

    def check_certificate(self, role: Role, shown: bytes) -> None:
        """Raises RefusedError if a certificate (DER) of our authorities is not for that role."""
        why = "" if self.identity is None else self.identity.why_not(role, shown)
        if why:
            raise RefusedError(why)

    def prove(self, ours: Hello, theirs: Hello) -> Proof:
        return Proof(value=_mac(self.secret, ours, theirs))

    def check_proof(self, proof: Proof, ours: Hello, theirs: Hello) -> None:
        """Raises RefusedError if the other side does not know the secret."""
        if not hmac.compare_digest(proof.value, _mac(self.secret, theirs, ours)):
            raise RefusedError("the two sides have different secrets: see distbuild-secret-file")


def _mac(secret: bytes, of: Hello, to: Hello) -> str:
    text = f"{of.role}\0{of.nonce}\0{to.role}\0{to.nonce}"
    return hmac.new(secret, text.encode(), "sha256").hexdigest()


def is_loopback(address: str) -> bool:
    """Whether an IP address, as a socket tells it, is one of this machine's own for itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def read_secret(path: Path | None) -> bytes:
    """The secret in a file, empty if there is no file. Raises MorphError if it is a weak one."""
    if path is None:
        return b""
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes().strip()
    except OSError as error:
        raise MorphError(
            f"can't read the secret in {path}: {error.strerror}", reason=Reason.CONFIG
        ) from error
    if mode & 0o077:
        raise MorphError(
            f"others may read the secret in {path}",
            reason=Reason.CONFIG,
            hint=f"chmod 600 {path}",
        )
    if len(secret) < _SHORTEST_SECRET:
        raise MorphError(
            f"the secret in {path} is shorter than {_SHORTEST_SECRET} characters",
            reason=Reason.CONFIG,
            hint=f"Make one: head -c 32 /dev/urandom | base64 > {path}",
        )
    return secret


class PartySettings(Protocol):
    """The settings of all programs that take part."""

    @property
    def distbuild_secret_file(self) -> Path | None: ...

    @property
    def distbuild_certificate(self) -> Path | None: ...

    @property
    def distbuild_authorities(self) -> Path | None: ...

    @property
    def peer_timeout(self) -> int: ...


def read_party(role: Role, settings: PartySettings) -> Party:
    """The party that settings describe. Raises MorphError for files that are of no use."""
    identity = read_identity(settings.distbuild_certificate, settings.distbuild_authorities, role)
    secret = read_secret(settings.distbuild_secret_file)
    return Party(role, secret, identity, Heartbeat(settings.peer_timeout))
