"""What KEY.manifest holds: digests and stamps of files; and how files are checked against it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import msgspec

_CHUNK = 65536
_LARGEST = 64 << 20  # of a manifest, in bytes


class DamageError(Exception):
    """A stored file is not what its manifest says; the text says in which way."""


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


def verify_file(path: Path, known: FileStamp) -> FileStamp:
    """The present stamp of an intact file, which is read only if it is another than `known`.

    Raises DamageError if its content is not that which was known, OSError if it can't be read.
    """
    try:
        found = path.lstat()
        if stamp_of(found, known.sha256) == known:
            return known
        if not stat.S_ISREG(found.st_mode):
            raise DamageError(f"artifact {path} is no longer a file")
        if found.st_size != known.size:
            raise DamageError(
                f"artifact {path} is damaged: {found.st_size} bytes long instead of {known.size}"
            )
        digest, found = digest_file(path)
    except FileNotFoundError as error:
        raise DamageError(f"artifact {path} has vanished") from error
    if digest != known.sha256:
        raise DamageError(f"artifact {path} is damaged: its content has changed")
    return stamp_of(found, digest)


def read_file(path: str) -> bytes | None:
    """A small file, in as few calls as possible; None if there is none. Raises OSError."""
    try:
        # A pipe that somebody put there is as good as empty, and nothing to wait for.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        raw = os.read(fd, _CHUNK)
        return raw + os.read(fd, _LARGEST) if len(raw) == _CHUNK else raw
    finally:
        os.close(fd)
