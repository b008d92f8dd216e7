"""What KEY.manifest holds: digest and stamps of each file of a stored source."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec


class FileStamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Identity of a file's content (`sha256`, hex; `size`, bytes) and of the file that had it.

    The kernel alone sets `ctime_ns`, so a file that was altered and given its old modification time
    back is still seen to have changed.
    """

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


Manifest = dict[str, FileStamp]

_decoder = msgspec.json.Decoder(dict[str, FileStamp])
_encoder = msgspec.json.Encoder(order="sorted")


def encode_manifest(manifest: Manifest) -> bytes:
    return _encoder.encode(manifest)


def decode_manifest(raw: bytes) -> Manifest | None:
    """What was encoded, or None if this is not an encoded manifest."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeError):
        return None


def stamp_of(found: os.stat_result, digest: str) -> FileStamp:
    return FileStamp(digest, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def digest_file(path: Path) -> tuple[str, os.stat_result]:
    """The SHA-256 (hex) of a file, and its status as it was before reading began."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest(), found
