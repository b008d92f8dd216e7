"""OCI image archives: a tar file of an OCI image layout, written in one go.

A layout has an index, which names manifests by digest, which name a configuration and layers by
digest. See the OCI image specification, version 1.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Protocol

from morphlib import process
from morphlib.images.programs import Program

ZSTD = Program("zstd", "zstd")

_BLOCK = 512
_PIECE = 1 << 20
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


class Compression(StrEnum):
    """Of layers."""

    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"


_SUFFIX = {Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd", Compression.NONE: ""}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob as documents name it."""

    media_type: str
    digest: str
    size: int

    def as_json(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is written. `diff_id` is the digest of what it is uncompressed."""

    descriptor: Descriptor
    diff_id: str
    created_by: str


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Hashing:
    """Passes on what is written to it, and sums it up."""

    def __init__(self, out: _Writable) -> None:
        self._out = out
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.size += len(data)
        self._out.write(data)
        return len(data)

    def flush(self) -> None:
        """Compressors ask for it; there is nothing to do."""

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


class OciArchive:
    """An archive that is being written. `time` is that of all its members, in seconds."""

    def __init__(self, out: BinaryIO, time: int) -> None:
        self._out = out
        self._time = time
        self._digests: set[str] = set()

    def add_layer(
        self, write: Callable[[_Writable], None], created_by: str, compression: Compression
    ) -> Layer:
        """A layer of the tar that `write` writes. Raises MorphError if it can't be compressed."""
        start = self._begin()
        packed = _Hashing(self._out)
        match compression:
            case Compression.NONE:
                plain = _Hashing(packed)
                write(plain)
            case Compression.GZIP:
                # Without name and time: equal layers have equal bytes.
                with gzip.GzipFile("", "wb", 6, packed, mtime=0) as zipped:
                    plain = _Hashing(zipped)
                    write(plain)
            case Compression.ZSTD:
                plain = _zstd(write, packed)
        self._end(start, packed)
        media_type = _LAYER + _SUFFIX[compression]
        return Layer(Descriptor(media_type, packed.digest, packed.size), plain.digest, created_by)

    def add_json(self, document: Mapping[str, Any], media_type: str) -> Descriptor:
        start = self._begin()
        blob = _Hashing(self._out)
        blob.write(_encode(document))
        self._end(start, blob)
        return Descriptor(media_type, blob.digest, blob.size)

    def finish(
        self, config: Mapping[str, Any], layers: Sequence[Layer], annotations: Mapping[str, str]
    ) -> None:
        """Write all but the layers. `annotations` are those of the only image in the index."""
        manifest = self.add_json(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": self.add_json(config, _CONFIG).as_json(),
                "layers": [layer.descriptor.as_json() for layer in layers],
            },
            _MANIFEST,
        ).as_json()
        if annotations:
            manifest["annotations"] = dict(annotations)
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [manifest]}
        self._add_file("index.json", _encode(index))
        self._add_file("oci-layout", _encode({"imageLayoutVersion": "1.0.0"}))
        self._out.write(b"\0" * (2 * _BLOCK))

    def _begin(self) -> int:
        """Leave room for the header of a member, which is known when the member is written."""
        start = self._out.tell()
        self._out.write(b"\0" * _BLOCK)
        return start

    def _end(self, start: int, blob: _Hashing) -> None:
        if blob.digest in self._digests:
            self._out.seek(start)
            self._out.truncate()
            return
        self._digests.add(blob.digest)
        self._out.write(b"\0" * (-blob.size % _BLOCK))
        end = self._out.tell()
        self._out.seek(start)
        self._out.write(self._header(f"blobs/{blob.digest.replace(':', '/')}", blob.size))
        self._out.seek(end)

    def _add_file(self, name: str, content: bytes) -> None:
        self._out.write(self._header(name, len(content)))
        self._out.write(content + b"\0" * (-len(content) % _BLOCK))

    def _header(self, name: str, size: int) -> bytes:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = size, 0o644, self._time
        return member.tobuf(tarfile.GNU_FORMAT)


def _zstd(write: Callable[[_Writable], None], packed: _Hashing) -> _Hashing:
    """Compress with the program; the number of its threads makes no difference to the bytes."""
    argv = [str(ZSTD), "--quiet", "--stdout", "-T0", "-6"]
    with tempfile.TemporaryFile() as result, tempfile.TemporaryFile() as complaints:
        child = process.spawn(
            argv, stdin=process.PIPE, stdout=result.fileno(), stderr=complaints.fileno()
        )
        with child:
            assert child.stdin is not None
            try:
                plain = _Hashing(child.stdin)
                write(plain)
                child.stdin.close()
            except BrokenPipeError:
                child.kill()
            except BaseException:
                child.kill()
                raise
        if child.returncode != 0:
            complaints.seek(0)
            raise process.ProcessError(argv, child.returncode, complaints.read())
        result.seek(0)
        while piece := result.read(_PIECE):
            packed.write(piece)
    return plain


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
