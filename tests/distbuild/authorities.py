"""Certificates for tests, of authorities that are made here."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from distbuild.certificates import Identity


class Authority:
    """Signs certificates. `file` is its own; everything is below `home`."""

    def __init__(self, home: Path, name: str = "authority") -> None:
        self.home = home
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name_of(name)
        now = datetime.now(UTC)
        self._certificate = (
            _begin(self._name, self._name, self._key, now - timedelta(days=9), now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = home / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def sign(
        self,
        name: str,
        *names: str,
        days: float = 2,
        begin: float = -5,
        usage: Sequence[x509.ObjectIdentifier] = (),
    ) -> Path:
        """A file with a certificate and its key. Among `names` are hosts, addresses, and URIs.

        It is good from `begin` days from now on, and until `days` from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = _begin(
            _name_of(name), self._name, key, now + timedelta(days=begin), now + timedelta(days=days)
        ).add_extension(
            x509.SubjectAlternativeName([_general_name(each) for each in names]), critical=False
        )
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        path = self.home / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_bytes(
            certificate.public_bytes(Encoding.PEM)
            + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return path

    def identity(
        self, name: str, *names: str, trusts: Path | None = None, **how: float
    ) -> Identity:
        """One that is not looked at by its own side first."""
        path = self.sign(name, *names, **how)  # type: ignore[arg-type]
        own = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
        return Identity(path, trusts or self.file, own)


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end + timedelta(hours=1))
    )


def _name_of(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.UniformResourceIdentifier(name) if ":" in name else x509.DNSName(name)


CLIENTS_ONLY = (ExtendedKeyUsageOID.CLIENT_AUTH,)
