"""What KEY.signatures holds: who says what the files of a source are.

It is JSON, {file name: [{key, sha256, size, signature}, ...]}. `key` is a public key as files of
trusted keys have it. What is signed is a file's name, which begins with the cache key of its
source, its digest and its size, so a signature is of no use for any other file. It says nothing of
times: a key is trusted as long as it is in the list.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from morphlib.cache.manifest import Manifest

#: Bytes of a file of signatures, and signatures of one artifact that are kept.
LARGEST = 4 << 20
MOST = 16

#: Characters of Base64 that a key and a signature have.
_KEY_LENGTH, _SIGNATURE_LENGTH = 60, 88

#: Nothing else that these keys might ever sign begins so.
_DOMAIN = b"Morph artifact signature 1\0"


class Content(NamedTuple):
    """What a file is: its SHA-256 (hex), and its size in bytes."""

    sha256: str
    size: int


class Signature(msgspec.Struct, frozen=True):
    """`key` and `signature` are Base64."""

    key: str
    sha256: str
    size: int
    signature: str

    @property
    def content(self) -> Content:
        return Content(self.sha256, self.size)


#: Signatures by the name of the file that they are for.
Signatures = Mapping[str, tuple[Signature, ...]]

_decoder = msgspec.json.Decoder(dict[str, tuple[Signature, ...]])
_encoder = msgspec.json.Encoder(order="sorted")


def record_of(name: str, content: Content) -> bytes:
    """The bytes that are signed: no two files have the same ones."""
    return _DOMAIN + json.dumps([name, content.sha256, content.size]).encode("ascii")


def encode_signatures(signatures: Signatures) -> bytes:
    return _encoder.encode(signatures)


def decode_signatures(raw: bytes) -> dict[str, tuple[Signature, ...]] | None:
    """What was encoded, or None if this is nothing of that kind. Nothing is verified."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def merge_signatures(
    parts: Iterable[Signatures], stored: Manifest
) -> dict[str, tuple[Signature, ...]]:
    """All signatures of what is stored, earlier parts first: at most MOST for each file, of which
    one key has one. What is longer than a signature can be is left out: it would make the whole
    too large to be read."""
    found: dict[str, dict[str, Signature]] = {}
    for part in parts:
        for name, signatures in part.items():
            known = stored.get(name)
            for each in signatures:
                if len(each.key) > _KEY_LENGTH or len(each.signature) > _SIGNATURE_LENGTH:
                    continue
                if known is not None and each.content == (known.sha256, known.size):
                    kept = found.setdefault(name, {})
                    if each.key in kept or len(kept) < MOST:
                        kept[each.key] = each
    return {name: tuple(kept.values()) for name, kept in found.items()}
