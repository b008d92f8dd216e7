"""Certificates: those of this side, and what those of the other side let it be.

One that names roles in its subjectAltName, as URIs such as `morph:worker`, is good for these alone;
one that names none is good for all.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from distbuild.messages import Role
from morphlib.errors import MorphError, Reason

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SCHEME = "morph:"
#: Whose certificates do for a helper, which has that of the daemon that it is started beside.
_WITH_HELPERS = frozenset({Role.HELPER, Role.CONTROLLER, Role.WORKER})

#: What OpenSSL's codes mean for a certificate.
_PROBLEMS = {
    7: "was signed by no authority of distbuild-authorities here",  # but by one of that name
    9: "is not valid yet: compare the clocks of the two machines",
    10: "has expired",
    18: "was signed by no authority of distbuild-authorities here",
    19: "was signed by no authority of distbuild-authorities here",
    20: "was signed by no authority of distbuild-authorities here",
    21: "was signed by no authority of distbuild-authorities here",
    26: "is not for this purpose: see its extendedKeyUsage",
    62: "does not name the address that was connected to: see its subjectAltName",
    64: "does not name the address that was connected to: see its subjectAltName",
}
#: What peers mean by alerts; and by what else OpenSSL calls errors.
_ALERTS = {
    "unknown ca": "does not know the authority that signed our certificate",
    "decrypt error": "does not know the authority that signed our certificate",
    "certificate expired": "says that our certificate has expired",
    "certificate required": "wants to see a certificate, but we have none",
    "protocol version": "speaks no version of TLS that we speak",
}
_NO_TLS = ("wrong version number", "http request", "unknown protocol", "record layer failure")


@dataclass(frozen=True, slots=True)
class Identity:
    """The PEM files of this side: its certificate, with its key and with what leads to an
    authority; and the authorities that sign those of others. `own` is the certificate as DER."""

    certificate: Path
    authorities: Path
    own: bytes

    def client_context(self) -> ssl.SSLContext:
        """For connections to others, whose certificates have to name the host that is told.

        Raises OSError for files that are of no use.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False
        # With the empty passphrase, nothing asks for one at a terminal.
        context.load_cert_chain(self.certificate, password="")
        context.load_verify_locations(self.authorities)
        return context

    def why_not(self, role: Role, shown: bytes) -> str:
        """Why the other side, which has shown a certificate (DER) of our authorities, can't be what
        it says that it is; nothing if it can."""
        if role is Role.HELPER and shown == self.own:
            return ""  # it is started beside us
        from cryptography.x509 import load_der_x509_certificate

        try:
            roles = roles_of(load_der_x509_certificate(shown))
        except ValueError as error:
            return f"its certificate can't be read: {error}"
        if not roles or role.value in roles:
            return ""
        return f"its certificate is that of {_name(roles)}, not of {_name([role])}"


def read_identity(
    certificate: Path | None, authorities: Path | None, role: Role
) -> Identity | None:
    """The identity that settings name, if they do. Raises MorphError for what is of no use."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificate

    if certificate is None and authorities is None:
        return None
    if certificate is None or authorities is None:
        given, missing = "distbuild-certificate", "distbuild-authorities"
        if certificate is None:
            given, missing = missing, given
        raise MorphError(
            f"{given} is set, but {missing} is not", reason=Reason.CONFIG, hint="Set both, or none."
        )
    try:
        mode = certificate.stat().st_mode
        found = load_pem_x509_certificate(certificate.read_bytes())
        identity = Identity(certificate, authorities, found.public_bytes(Encoding.DER))
        identity.client_context()
        roles = roles_of(found)
    except (OSError, ValueError) as error:  # ssl.SSLError is among the first
        why = getattr(error, "strerror", None) or error
        raise MorphError(
            f"can't use TLS with {certificate} and {authorities}: {why}",
            reason=Reason.CONFIG,
            hint="These have to be PEM files, the first with a certificate and its key without a"
            " passphrase, the second with the certificates of authorities.",
        ) from error
    if mode & 0o077:
        raise MorphError(
            f"others may read the key in {certificate}",
            reason=Reason.CONFIG,
            hint=f"chmod 600 {certificate}",
        )
    if found.not_valid_after_utc < datetime.now(UTC):
        raise MorphError(
            f"the certificate in {certificate} has expired on {found.not_valid_after_utc:%Y-%m-%d}",
            reason=Reason.CONFIG,
        )
    fitting = _WITH_HELPERS if role is Role.HELPER else frozenset({role})
    if roles and roles.isdisjoint(fitting):
        raise MorphError(
            f"the certificate in {certificate} is that of {_name(roles)}, not of {_name([role])}",
            reason=Reason.CONFIG,
            hint=f"Its subjectAltName would have to name URI:{_SCHEME}{role}, or no role at all.",
        )
    return identity


def roles_of(certificate: Certificate) -> frozenset[str]:
    """The roles that a certificate names. Raises ValueError if its extensions can't be read."""
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    return frozenset(uri.removeprefix(_SCHEME) for uri in uris if uri.startswith(_SCHEME))


def _name(roles: Iterable[str]) -> str:
    return " or ".join(f"an {r}" if r[:1] in "aeiou" else f"a {r}" for r in sorted(roles))


def is_for_host(shown: bytes, host: str) -> bool:
    """Whether a certificate (DER) names a host: a name or an IP address."""
    import ipaddress

    from cryptography.x509 import load_der_x509_certificate
    from service_identity import CertificateError, VerificationError
    from service_identity.cryptography import (
        verify_certificate_hostname,
        verify_certificate_ip_address,
    )

    try:
        ipaddress.ip_address(host)
    except ValueError:
        verify: Callable[[Certificate, str], None] = verify_certificate_hostname
    else:
        verify = verify_certificate_ip_address
    try:
        verify(load_der_x509_certificate(shown), host)
    except (VerificationError, CertificateError, ValueError):
        return False
    return True


def describe_problem(code: int) -> str:
    """What is wrong with a certificate, by OpenSSL's code, said of the other side."""
    return f"its certificate {_PROBLEMS.get(code, f'is no good (OpenSSL calls that {code})')}"


def describe_error(reason: str) -> str:
    """What OpenSSL's words for an error mean, said of the other side."""
    words = reason.replace("_", " ").lower()
    _, alert, what = words.partition(" alert ")
    if alert:
        return _ALERTS.get(what, f"does not take our certificate: {what}")
    if any(each in words for each in _NO_TLS):
        return (
            "does not speak TLS: set distbuild-certificate and distbuild-authorities there as well,"
            " or neither here"
        )
    return f"TLS fails: {words}"
