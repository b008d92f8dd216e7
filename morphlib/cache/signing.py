"""Keys that artifacts are signed and verified with: Ed25519, in the forms that OpenSSL writes.

A private key is in a PEM file (PKCS #8, not encrypted) that nobody else can read. A file of trusted
keys has lines NAME KEY, the key being the Base64 of a public key that `openssl pkey -pubout` shows.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from morphlib.cache.signatures import MOST, Content, Signature, Signatures, record_of
from morphlib.errors import MorphError, Reason

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# The library takes longer to import than many runs take: it is imported where something is signed
# or verified. To see that a file holds a key, its first bytes are enough.

_PRIVATE = bytes.fromhex("302e020100300506032b657004220420")  # then the key, 32 bytes
_PUBLIC = bytes.fromhex("302a300506032b6570032100")  # then the key, 32 bytes
_BEGIN, _END = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, which is in no text that is made of it."""

    path: Path
    _secret: bytes = field(repr=False)

    def public(self) -> str:
        """The public key, as files of trusted keys have it."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        raw = self._key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(_PUBLIC + raw).decode("ascii")

    def sign(self, files: Mapping[str, Content]) -> Signatures:
        """A signature for each of the files."""
        key, public = self._key(), self.public()

        def of(name: str, content: Content) -> Signature:
            signature = base64.b64encode(key.sign(record_of(name, content))).decode("ascii")
            return Signature(public, content.sha256, content.size, signature)

        return {name: (of(name, content),) for name, content in files.items()}

    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self._secret)


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The keys whose artifacts are taken: public key -> name."""

    path: Path
    names: Mapping[str, str]

    def contents(self, name: str, signatures: Signatures) -> frozenset[Content]:
        """What the file `name` may be, as one of the keys says or the other."""
        found = signatures.get(name, ())[:MOST]  # who sends more wants to keep us busy
        return frozenset(each.content for each in found if self._is_valid(name, each))

    def _is_valid(self, name: str, signature: Signature) -> bool:
        if signature.key not in self.names:
            return False
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        raw = base64.b64decode(signature.key)[len(_PUBLIC) :]
        try:
            signed = base64.b64decode(signature.signature, validate=True)
            record = record_of(name, signature.content)
            Ed25519PublicKey.from_public_bytes(raw).verify(signed, record)
        except (InvalidSignature, ValueError):
            return False
        return True


def load_signing_key(path: Path) -> SigningKey:
    """Raises MorphError (CONFIG) for what is no key, and for one that others can read."""
    text = _read(path, "signing key")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise MorphError(
            f"others can read the signing key in {path}",
            reason=Reason.CONFIG,
            hint=f"chmod 600 {path}",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    try:
        if lines[:1] != [_BEGIN] or lines[-1:] != [_END]:
            raise ValueError
        raw = base64.b64decode("".join(lines[1:-1]), validate=True)
        if len(raw) != len(_PRIVATE) + 32 or not raw.startswith(_PRIVATE):
            raise ValueError
    except ValueError:
        raise MorphError(
            f"{path} holds no Ed25519 key that is not encrypted",
            reason=Reason.CONFIG,
            hint=f"Make one, in another file: morph generate-signing-key {path}.new",
        ) from None
    return SigningKey(path, raw[len(_PRIVATE) :])


def generate_signing_key(path: Path) -> SigningKey:
    """Write a new key to a file that is not there yet. Raises MorphError (CONFIG)."""
    secret = os.urandom(32)
    body = base64.b64encode(_PRIVATE + secret).decode("ascii")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{_BEGIN}\n{body}\n{_END}\n")
    except OSError as error:
        raise MorphError(f"can't write {path}: {error.strerror}", reason=Reason.CONFIG) from error
    return SigningKey(path, secret)


def load_trusted_keys(path: Path) -> TrustedKeys:
    """Raises MorphError (CONFIG) that says which line is wrong."""
    return parse_trusted_keys(path, _read(path, "trusted keys"))


def parse_trusted_keys(path: Path, text: str) -> TrustedKeys:
    """Lines are NAME KEY; blank ones and those that begin with # are left out.

    Raises MorphError (CONFIG) that says which line is wrong.
    """
    names: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise _bad_line(path, number, "a line has a name and a key")
        name, key = words
        if not _is_public_key(key):
            raise _bad_line(path, number, f"{key[:80]!r} is no Ed25519 public key")
        if names.setdefault(key, name) != name:
            raise _bad_line(path, number, f"the key of {names[key]} has another name here")
    if not names:
        raise MorphError(
            f"there is no key in {path}",
            reason=Reason.CONFIG,
            hint="Without trusted keys nothing would be taken from any cache server. If that is "
            "what you want, set artifact-cache-server to nothing.",
        )
    return TrustedKeys(path, names)


def _is_public_key(text: str) -> bool:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    # Written in the one way that there is: signatures name keys by this text.
    is_plain = base64.b64encode(raw).decode("ascii") == text
    return is_plain and len(raw) == len(_PUBLIC) + 32 and raw.startswith(_PUBLIC)


def _bad_line(path: Path, number: int, why: str) -> MorphError:
    return MorphError(
        f"{path}:{number}: {why}",
        reason=Reason.CONFIG,
        hint="morph generate-signing-key shows the line of a key when it makes one.",
    )


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise MorphError(f"can't read the {what} in {path}: {why}", reason=Reason.CONFIG) from error
    if len(raw) > _LARGEST:
        raise MorphError(
            f"can't read the {what} in {path}: it is larger than {_LARGEST} bytes",
            reason=Reason.CONFIG,
        )
    return text
