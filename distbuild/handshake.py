"""Who may take part: what is checked of the first two lines of a connection.

Where a secret is configured, both sides prove that they know it without saying it: each sends an
HMAC over both hellos and its own role. Without a secret only this machine's own addresses may
connect. None of it encrypts anything: between machines that do not trust the network, connections
belong into a tunnel.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from distbuild.heartbeat import USUAL, Heartbeat
from distbuild.messages import PROTOCOL_VERSION, Hello, Proof, Role
from morphlib.errors import MorphError, Reason
from morphlib.version import describe_version

_SHORTEST_SECRET = 16


class RefusedError(Exception):
    """The other side may not take part; the text tells it why."""


@dataclass(frozen=True, slots=True)
class Party:
    """One side of all its connections. Without a `secret` it talks to its own machine alone."""

    role: Role
    secret: bytes = b""
    heartbeat: Heartbeat = USUAL

    def hello(self) -> Hello:
        return Hello(
            role=self.role,
            protocol=PROTOCOL_VERSION,
            program=describe_version(),
            nonce=secrets.token_hex(16),
        )

    def check_address(self, address: str) -> None:
        """Raises RefusedError for one that needs a secret where there is none."""
        if not self.secret and not is_loopback(address):
            raise RefusedError(
                f"{address} is another machine: set distbuild-secret-file on both of them"
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
