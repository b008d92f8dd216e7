"""The SHA-256 of a file in headers: `Repr-Digest: sha-256=:BASE64:` (RFC 9530)."""

from __future__ import annotations

import base64
import binascii
import re

_SHA256 = re.compile(r"\s*sha-256\s*=\s*:([A-Za-z0-9+/=]{44}):\s*")
_HEX = re.compile(r"[0-9a-f]{64}")


def format_digest(sha256: str) -> str:
    """The value of the header for a digest in hexadecimal."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode('ascii')}:"


def parse_digest(header: str) -> str | None:
    """The SHA-256 in hexadecimal that the header tells, None if it tells none."""
    for part in header.split(","):
        match = _SHA256.fullmatch(part)
        if match:
            try:
                digest = base64.b64decode(match[1], validate=True)
            except binascii.Error:
                continue
            return digest.hex() if len(digest) == 32 else None
    return None


def is_sha256(text: str) -> bool:
    """Is it a SHA-256 in hexadecimal, lower case?"""
    return _HEX.fullmatch(text) is not None
