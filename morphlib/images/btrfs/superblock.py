"""The superblock, and what says where logical addresses are on the disk."""

from __future__ import annotations

import struct
from typing import NamedTuple

from morphlib.images.btrfs.layout import CHUNK_ITEM, FIRST_CHUNK, SECTOR, STRIPE_LEN, Key, checksum

SIZE = 4096
#: Where the superblock and its copies are, as far as the disk reaches.
MIRRORS = (64 << 10, 64 << 20, 256 << 30)
MAGIC = b"_BHRfS_M"
LABEL_SIZE = 256
SYSTEM_CHUNKS_SIZE = 2048
BACKUPS = 4

# Features without which the filesystem can't be written, and without which it can't be read.
COMPAT_RO_FREE_SPACE_TREE = 1 << 0
COMPAT_RO_FREE_SPACE_TREE_VALID = 1 << 1
INCOMPAT_MIXED_BACKREF = 1 << 0
INCOMPAT_DEFAULT_SUBVOL = 1 << 1
INCOMPAT_MIXED_GROUPS = 1 << 2
INCOMPAT_COMPRESS_LZO = 1 << 3
INCOMPAT_COMPRESS_ZSTD = 1 << 4
INCOMPAT_BIG_METADATA = 1 << 5
INCOMPAT_EXTENDED_IREF = 1 << 6
INCOMPAT_RAID56 = 1 << 7
INCOMPAT_SKINNY_METADATA = 1 << 8
INCOMPAT_NO_HOLES = 1 << 9


class DevItem(NamedTuple):
    """A device; also an item of the chunk tree."""

    devid: int
    total_bytes: int
    bytes_used: int
    uuid: bytes
    fsid: bytes
    generation: int = 0

    def pack(self) -> bytes:
        return _DEV_ITEM.pack(
            *(self.devid, self.total_bytes, self.bytes_used, SECTOR, SECTOR, SECTOR, 0),
            *(self.generation, 0, 0, 0, 0, self.uuid, self.fsid),
        )

    @classmethod
    def unpack(cls, data: bytes | memoryview, at: int = 0) -> DevItem:
        found = _DEV_ITEM.unpack_from(data, at)
        return cls._make((*found[:3], *found[12:], found[7]))


_DEV_ITEM = struct.Struct("<QQQIIIQQQIBB16s16s")


class Stripe(NamedTuple):
    devid: int
    offset: int  # on the device
    dev_uuid: bytes


class Chunk(NamedTuple):
    """Where `length` bytes of logical addresses are; the start is the offset of the item's key."""

    length: int
    type: int  # BLOCK_GROUP_*
    stripes: tuple[Stripe, ...]
    stripe_len: int = STRIPE_LEN
    sub_stripes: int = 1

    def pack(self) -> bytes:
        head = _CHUNK.pack(
            *(self.length, 2, self.stripe_len, self.type, STRIPE_LEN, STRIPE_LEN, SECTOR),
            *(len(self.stripes), self.sub_stripes),
        )
        return head + b"".join([_STRIPE.pack(*each) for each in self.stripes])

    @classmethod
    def unpack(cls, data: bytes | memoryview, at: int = 0) -> Chunk:
        found = _CHUNK.unpack_from(data, at)
        places = range(at + _CHUNK.size, at + _CHUNK.size + found[7] * _STRIPE.size, _STRIPE.size)
        stripes = tuple(Stripe._make(_STRIPE.unpack_from(data, place)) for place in places)
        return cls(found[0], found[3], stripes, found[2], found[8])

    @property
    def size(self) -> int:
        """Of the item."""
        return _CHUNK.size + len(self.stripes) * _STRIPE.size


_CHUNK = struct.Struct("<QQQQIIIHH")
_STRIPE = struct.Struct("<QQ16s")


class BackupRoots(NamedTuple):
    """The roots of an earlier transaction: address and generation of each, then the levels."""

    tree_root: int = 0
    tree_root_gen: int = 0
    chunk_root: int = 0
    chunk_root_gen: int = 0
    extent_root: int = 0
    extent_root_gen: int = 0
    fs_root: int = 0
    fs_root_gen: int = 0
    dev_root: int = 0
    dev_root_gen: int = 0
    csum_root: int = 0
    csum_root_gen: int = 0
    total_bytes: int = 0
    bytes_used: int = 0
    num_devices: int = 0
    tree_root_level: int = 0
    chunk_root_level: int = 0
    extent_root_level: int = 0
    fs_root_level: int = 0
    dev_root_level: int = 0
    csum_root_level: int = 0


_BACKUP = struct.Struct("<15Q32x6B10x")


class Superblock(NamedTuple):
    """All that is known here; what isn't is lost when it is packed again."""

    fsid: bytes
    bytenr: int  # where this copy is
    generation: int
    root: int
    chunk_root: int
    total_bytes: int
    bytes_used: int
    node_size: int
    chunk_root_generation: int
    compat_ro_flags: int
    incompat_flags: int
    root_level: int
    chunk_root_level: int
    dev_item: DevItem
    label: bytes
    cache_generation: int
    uuid_tree_generation: int
    system_chunks: tuple[tuple[int, Chunk], ...]  # logical address, chunk
    backups: tuple[BackupRoots, ...]  # all BACKUPS of them; generation modulo BACKUPS is next
    num_devices: int = 1
    flags: int = 1
    log_root: int = 0
    compat_flags: int = 0
    csum_type: int = 0
    sector_size: int = SECTOR
    metadata_uuid: bytes = bytes(16)

    def pack(self) -> bytes:
        chunks = b"".join(
            [
                Key(FIRST_CHUNK, CHUNK_ITEM, at).pack() + each.pack()
                for at, each in self.system_chunks
            ]
        )
        backups = b"".join([_BACKUP.pack(*each) for each in self.backups])
        body = _SUPER.pack(
            *(self.fsid, self.bytenr, self.flags, MAGIC, self.generation, self.root),
            *(self.chunk_root, self.log_root, 0, self.total_bytes, self.bytes_used, 6),
            *(self.num_devices, self.sector_size, self.node_size, self.node_size),
            *(self.sector_size, len(chunks), self.chunk_root_generation, self.compat_flags),
            *(self.compat_ro_flags, self.incompat_flags, self.csum_type, self.root_level),
            *(self.chunk_root_level, 0, self.dev_item.pack(), self.label),
            *(self.cache_generation, self.uuid_tree_generation, self.metadata_uuid),
            *(chunks, backups),
        )
        return checksum(body).ljust(32, b"\0") + body

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> Superblock:
        """Of the SIZE bytes of a superblock. The magic and the checksum are the caller's."""
        found = _SUPER.unpack_from(data, 32)
        fsid, bytenr, flags, _, generation, root, chunk_root, log_root, _ = found[:9]
        total_bytes, bytes_used, _, num_devices, sector_size, node_size = found[9:15]
        chunks_size, chunk_root_generation, compat, compat_ro, incompat, csum_type = found[17:23]
        root_level, chunk_root_level, _, device, label, cache_generation = found[23:29]
        uuid_tree_generation, metadata_uuid, chunks, backups = found[29:]
        return cls(
            fsid=fsid,
            bytenr=bytenr,
            generation=generation,
            root=root,
            chunk_root=chunk_root,
            total_bytes=total_bytes,
            bytes_used=bytes_used,
            node_size=node_size,
            chunk_root_generation=chunk_root_generation,
            compat_ro_flags=compat_ro,
            incompat_flags=incompat,
            root_level=root_level,
            chunk_root_level=chunk_root_level,
            dev_item=DevItem.unpack(device),
            label=label.partition(b"\0")[0],
            cache_generation=cache_generation,
            uuid_tree_generation=uuid_tree_generation,
            system_chunks=tuple(_chunks(chunks[:chunks_size])),
            backups=tuple(BackupRoots._make(each) for each in _BACKUP.iter_unpack(backups)),
            num_devices=num_devices,
            flags=flags,
            log_root=log_root,
            compat_flags=compat,
            csum_type=csum_type,
            sector_size=sector_size,
            metadata_uuid=metadata_uuid,
        )


_SUPER = struct.Struct(
    "<16sQQ8sQQQQQQQQQIIIIIQQQQHBBB98s256sQQ16s224x"
    f"{SYSTEM_CHUNKS_SIZE}s{BACKUPS * _BACKUP.size}s565x"
)
assert 32 + _SUPER.size == SIZE


def _chunks(data: bytes) -> list[tuple[int, Chunk]]:
    found, at = [], 0
    while at < len(data):
        key = Key.unpack(data, at)
        chunk = Chunk.unpack(data, at + 17)
        found.append((key.offset, chunk))
        at += 17 + chunk.size
    return found
