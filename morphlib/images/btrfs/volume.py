"""The disk below the trees: the superblock that counts, and bytes at logical addresses."""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.layout import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_DUP,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_SYSTEM,
    SECTOR,
    Key,
    is_whole,
)
from morphlib.images.btrfs.superblock import (
    INCOMPAT_BIG_METADATA,
    INCOMPAT_COMPRESS_LZO,
    INCOMPAT_COMPRESS_ZSTD,
    INCOMPAT_DEFAULT_SUBVOL,
    INCOMPAT_EXTENDED_IREF,
    INCOMPAT_MIXED_BACKREF,
    INCOMPAT_MIXED_GROUPS,
    INCOMPAT_NO_HOLES,
    INCOMPAT_SKINNY_METADATA,
    MAGIC,
    MIRRORS,
    SIZE,
    Chunk,
    Superblock,
)

_KNOWN = (
    INCOMPAT_MIXED_BACKREF
    | INCOMPAT_DEFAULT_SUBVOL
    | INCOMPAT_MIXED_GROUPS
    | INCOMPAT_COMPRESS_LZO
    | INCOMPAT_COMPRESS_ZSTD
    | INCOMPAT_BIG_METADATA
    | INCOMPAT_EXTENDED_IREF
    | INCOMPAT_SKINNY_METADATA
    | INCOMPAT_NO_HOLES
)
#: What mkfs.btrfs calls the features that are refused here.
_FEATURES = {
    7: "raid56",
    10: "metadata-uuid",
    11: "raid1c34",
    12: "zoned",
    13: "extent-tree-v2",
    14: "raid-stripe-tree",
    16: "squota",
}
_KINDS = BLOCK_GROUP_DATA | BLOCK_GROUP_SYSTEM | BLOCK_GROUP_METADATA
#: What files can be read up to.
_FARTHEST = (1 << 63) - 1
_NODE_SIZES = (4096, 8192, 16384, 32768, 65536)


class Volume:
    """A file or device with a btrfs at `offset` (bytes), open. Everything raises MorphError."""

    def __init__(self, path: Path, *, offset: int = 0, writable: bool = False) -> None:
        self.path = path
        self.offset = offset
        try:
            flags = os.O_RDWR if writable else os.O_RDONLY
            self._fd = os.open(path, flags | os.O_CLOEXEC)
        except OSError as error:
            raise self.failed("open", error) from error
        try:
            self.superblock, self.raw_superblock = self._find_superblock()
            self._check()
            self._starts: list[int] = []
            self._chunks: list[Chunk] = []
            for start, chunk in self.superblock.system_chunks:
                self.add_chunk(start, chunk)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def damaged(self, what: str) -> MorphError:
        return MorphError(
            f"the btrfs on {self.path} is damaged: {what}",
            reason=Reason.DEPLOY,
            hint="`btrfs check` tells more; what it can't repair has to be made again",
        )

    def unsupported(self, what: str, hint: str | None = None) -> MorphError:
        return MorphError(f"the btrfs on {self.path} {what}", reason=Reason.DEPLOY, hint=hint)

    def failed(self, what: str, error: OSError) -> MorphError:
        return MorphError(f"can't {what} {self.path}: {error.strerror}", reason=Reason.DEPLOY)

    def _find_superblock(self) -> tuple[Superblock, bytes]:
        """The first one, as the kernel does; the newest of the others if that is damaged."""
        found: list[tuple[Superblock, bytes]] = []
        is_there = False
        for at in MIRRORS:
            data = self.pread(at, SIZE)
            is_there = is_there or data[64:72] == MAGIC
            if len(data) < SIZE or data[64:72] != MAGIC or not is_whole(data):
                continue
            try:
                superblock = Superblock.unpack(data)
            except (struct.error, IndexError):
                continue
            if superblock.bytenr != at:
                continue
            if at == MIRRORS[0]:
                return superblock, data
            found.append((superblock, data))
        if found:
            return max(found, key=lambda each: each[0].generation)
        if is_there:
            raise self.damaged("no superblock is whole, or checksums are not CRC-32C")
        raise MorphError(f"there is no btrfs on {self.path}", reason=Reason.DEPLOY)

    def _check(self) -> None:
        found = self.superblock
        unknown = found.incompat_flags & ~_KNOWN
        if unknown:
            bits = [bit for bit in range(64) if unknown >> bit & 1]
            names = ", ".join(_FEATURES.get(bit, f"number {bit}") for bit in bits)
            raise self.unsupported(f"has features that are not known here: {names}")
        if found.csum_type != 0:
            raise self.unsupported("has checksums that are not known here: CRC-32C is")
        if found.num_devices != 1:
            raise self.unsupported(f"is one of {found.num_devices} devices: only one can be read")
        if found.sector_size != SECTOR:
            raise self.unsupported(f"has sectors of {found.sector_size} bytes: 4096 are known here")
        if found.node_size not in _NODE_SIZES:
            raise self.damaged(f"blocks of trees can't have {found.node_size} bytes")

    def add_chunk(self, start: int, chunk: Chunk) -> None:
        """Let logical addresses from `start` on be read. Adding one again changes nothing."""
        copies = 2 if chunk.type & BLOCK_GROUP_DUP else 1
        if chunk.type & ~(_KINDS | BLOCK_GROUP_DUP):
            raise self.unsupported("spreads data over devices (RAID): this can't be read")
        if len(chunk.stripes) != copies or not chunk.type & _KINDS or not chunk.length:
            raise self.damaged(f"the chunk at {start} makes no sense")
        index = bisect_right(self._starts, start)
        if index and self._starts[index - 1] == start:
            self._chunks[index - 1] = chunk
            return
        if index and start < self._starts[index - 1] + self._chunks[index - 1].length:
            raise self.damaged(f"the chunk at {start} is in the middle of another one")
        if index < len(self._starts) and self._starts[index] < start + chunk.length:
            raise self.damaged(f"the chunk at {start} reaches into the next one")
        self._starts.insert(index, start)
        self._chunks.insert(index, chunk)

    def chunks(self) -> Iterator[tuple[int, Chunk]]:
        """All that were added, with the logical address of each, in order."""
        yield from zip(self._starts, self._chunks, strict=True)

    def places(self, address: int, length: int) -> tuple[int, ...]:
        """Where the copies of `length` bytes at a logical address are, from the filesystem's start.

        Raises MorphError unless one chunk has all of them.
        """
        index = bisect_right(self._starts, address) - 1
        if index >= 0:
            chunk, within = self._chunks[index], address - self._starts[index]
            if within + length <= chunk.length:
                return tuple(stripe.offset + within for stripe in chunk.stripes)
        raise self.damaged(f"no chunk has the address {address}")

    def rest(self, address: int) -> int:
        """How many bytes the chunk has from a logical address on."""
        self.places(address, 1)
        index = bisect_right(self._starts, address) - 1
        return self._starts[index] + self._chunks[index].length - address

    def pread(self, at: int, length: int) -> bytes:
        """At most `length` bytes at `at` from the filesystem's start: fewer at the end."""
        parts: list[bytes] = []
        if self.offset + at + length > _FARTHEST:
            return b""
        try:
            while length:
                part = os.pread(self._fd, length, self.offset + at)
                if not part:
                    break
                parts.append(part)
                at, length = at + len(part), length - len(part)
        except OSError as error:
            if error.errno not in (5, 22, 27):  # EIO, EINVAL and EFBIG: as if nothing were there
                raise self.failed("read", error) from error
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def pwrite(self, at: int, data: bytes | memoryview) -> None:
        """Write at `at` from the filesystem's start."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._fd, view, self.offset + at)
                view, at = view[written:], at + written
        except OSError as error:
            raise self.failed("write", error) from error

    def sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self.failed("write", error) from error


@contextmanager
def understanding(volume: Volume, key: Key) -> Iterator[None]:
    """Errors of unpacking the item with `key` become MorphError."""
    try:
        yield
    except (struct.error, IndexError, ValueError) as error:
        raise volume.damaged(f"the item {tuple(key)} makes no sense") from error
