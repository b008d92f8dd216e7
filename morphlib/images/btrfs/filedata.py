"""What files hold: extents, compressed or not, and holes; with the checksums of the data."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.inodes import (
    EXTENT_INLINE,
    EXTENT_PREALLOCATED,
    EXTENT_REGULAR,
    FileExtent,
    InodeItem,
)
from morphlib.images.btrfs.layout import (
    CSUM_SIZE,
    CSUM_TREE,
    EXTENT_CSUM,
    EXTENT_CSUM_OBJECTID,
    EXTENT_DATA,
    SECTOR,
    Key,
    checksum,
)
from morphlib.images.btrfs.trees import ItemSource, TreeRoot, Trees, items_of
from morphlib.images.btrfs.volume import understanding

#: In the flags of inodes: no checksums of data.
NODATASUM = 1
#: How much is read at a time, in bytes.
PIECE = 1 << 20
_ZLIB = 1
_METHODS = {2: "lzo", 3: "zstd"}
_MAX_COMPRESSED = 128 << 10


class Undecodable(MorphError):
    """Data is compressed in a way that can't be undone here."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file; what is between pieces is a hole."""

    offset: int
    data: bytes | memoryview


class DataReader:
    """Reads files of all subvolumes. Everything raises MorphError."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._volume = trees.volume
        self._sums: TreeRoot | None = trees.tree(CSUM_TREE)

    def extents(self, tree: ItemSource, ino: int) -> Iterator[tuple[int, FileExtent]]:
        """The extents of a file, in order, with their places in the file. None overlaps another."""
        end = 0
        for key, data in items_of(tree, ino, EXTENT_DATA):
            with understanding(self._volume, key):
                extent = FileExtent.unpack(data)
            length = extent.num_bytes if extent.type != EXTENT_INLINE else extent.ram_bytes
            if key.offset < end or extent.type not in (0, EXTENT_REGULAR, EXTENT_PREALLOCATED):
                raise self._volume.damaged(f"the extents of the file {ino} are in disorder")
            end = key.offset + length
            yield key.offset, extent

    def pieces(self, tree: ItemSource, ino: int, inode: InodeItem) -> Iterator[Piece]:
        """What a file holds, in order, up to its size. Preallocated space counts as a hole."""
        for start, extent in self.extents(tree, ino):
            if start >= inode.size:
                return
            if extent.type == EXTENT_PREALLOCATED:
                continue
            if extent.type != EXTENT_INLINE and not extent.disk_bytenr:
                continue
            for piece in self._decode(start, extent, not inode.flags & NODATASUM):
                if piece.offset < inode.size:
                    yield Piece(piece.offset, piece.data[: inode.size - piece.offset])

    def _decode(self, start: int, extent: FileExtent, has_sums: bool) -> Iterator[Piece]:
        if extent.type == EXTENT_INLINE:
            yield Piece(start, self._inflate(extent.inline, extent)[: extent.ram_bytes])
            return
        aligned = (extent.disk_bytenr, extent.disk_num_bytes, extent.offset, extent.num_bytes)
        if any(each % SECTOR for each in aligned):
            raise self._volume.damaged(f"an extent at {extent.disk_bytenr} is not aligned")
        if extent.compression:
            if max(extent.disk_num_bytes, extent.ram_bytes) > _MAX_COMPRESSED:
                raise self._volume.damaged(f"the extent at {extent.disk_bytenr} is too long")
            data = self.read(extent.disk_bytenr, extent.disk_num_bytes, has_sums)
            plain = self._inflate(data, extent)
            yield Piece(start, plain[extent.offset : extent.offset + extent.num_bytes])
            return
        if extent.offset + extent.num_bytes > extent.disk_num_bytes:
            raise self._volume.damaged(f"the extent at {extent.disk_bytenr} is too short")
        for at in range(0, extent.num_bytes, PIECE):
            length = min(PIECE, extent.num_bytes - at)
            address = extent.disk_bytenr + extent.offset + at
            yield Piece(start + at, self.read(address, length, has_sums))

    def _inflate(self, data: bytes, extent: FileExtent) -> bytes:
        if not extent.compression:
            return data
        if extent.compression != _ZLIB:
            method = _METHODS.get(extent.compression, f"method {extent.compression}")
            raise Undecodable(
                f"a file on {self._volume.path} is compressed with {method}, "
                "which can't be read here",
                reason=Reason.DEPLOY,
                hint="Mount the image and `btrfs filesystem defragment -czlib` the file",
            )
        try:
            plain = zlib.decompressobj().decompress(data, max(1, extent.ram_bytes))
        except zlib.error as error:
            raise self._volume.damaged(f"compressed data of a file: {error}") from error
        # What is missing at the end are zeroes, as in the kernel.
        return plain.ljust(min(extent.ram_bytes, _MAX_COMPRESSED), b"\0")

    def read(self, address: int, length: int, has_sums: bool) -> bytes:
        """Data at a logical address, from copies that are whole; all in multiples of sectors."""
        sums = self._find_sums(address, length) if has_sums else b""
        places = self._volume.places(address, length)
        for place in places:
            data = self._volume.pread(place, length)
            if len(data) == length and (not has_sums or _sums(data) == sums):
                return data
        if len(places) > 1 and length > SECTOR:
            sectors = range(address, address + length, SECTOR)
            return b"".join([self.read(each, SECTOR, has_sums) for each in sectors])
        raise self._volume.damaged(f"the data at {address} does not have its checksum")

    def _find_sums(self, address: int, length: int) -> bytes:
        """The checksums of all sectors, one after the other."""
        if self._sums is None:
            raise self._volume.damaged("there is no tree of checksums")
        parts: list[bytes] = []
        at, end = address, address + length
        while at < end:
            key = Key(EXTENT_CSUM_OBJECTID, EXTENT_CSUM, at)
            found = self._trees.last_until(self._sums, key)
            if found is None or found[0][:2] != key[:2]:
                raise self._volume.damaged(f"the data at {at} has no checksum")
            start = (at - found[0].offset) // SECTOR * CSUM_SIZE
            part = found[1][start : start + (end - at) // SECTOR * CSUM_SIZE]
            if len(part) < CSUM_SIZE or len(part) % CSUM_SIZE:
                raise self._volume.damaged(f"the data at {at} has no checksum")
            parts.append(bytes(part))
            at += len(part) // CSUM_SIZE * SECTOR
        return b"".join(parts)


def _sums(data: bytes) -> bytes:
    view = memoryview(data)
    return b"".join([checksum(view[at : at + SECTOR]) for at in range(0, len(data), SECTOR)])
