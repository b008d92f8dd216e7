"""Items about what is in use: extents and who refers to them, block groups, free space."""

from __future__ import annotations

import struct
from typing import NamedTuple

from morphlib.images.btrfs.layout import EXTENT_DATA_REF, SHARED_DATA_REF, Key

EXTENT_IS_DATA, EXTENT_IS_TREE_BLOCK, EXTENT_FULL_BACKREF = 1, 2, 1 << 8


class Reference(NamedTuple):
    """Who uses an extent: `offset` is the tree, or the parent block of a shared reference.

    A reference of EXTENT_DATA_REF has the tree in `offset`, too, and all fields.
    """

    type: int  # TREE_BLOCK_REF, SHARED_BLOCK_REF, EXTENT_DATA_REF or SHARED_DATA_REF
    offset: int
    objectid: int = 0
    file_offset: int = 0
    uses: int = 1

    def pack(self) -> bytes:
        """As it is inside an EXTENT_ITEM or METADATA_ITEM."""
        if self.type == EXTENT_DATA_REF:
            return b"%c%b" % (self.type, self.pack_alone())
        return INLINE_REF.pack(self.type, self.offset) + self.pack_alone()

    def pack_alone(self) -> bytes:
        """As it is in an item of its own."""
        if self.type == EXTENT_DATA_REF:
            return DATA_REF.pack(self.offset, self.objectid, self.file_offset, self.uses)
        return self.uses.to_bytes(4, "little") if self.type == SHARED_DATA_REF else b""

    @classmethod
    def unpack_alone(cls, key: Key, data: bytes | memoryview) -> Reference:
        if key.type == EXTENT_DATA_REF:
            return cls(key.type, *DATA_REF.unpack_from(data))
        uses = int.from_bytes(data[:4], "little") if key.type == SHARED_DATA_REF else 1
        return cls(key.type, key.offset, uses=uses)


INLINE_REF = struct.Struct("<BQ")
DATA_REF = struct.Struct("<QQQI")


class Extent(NamedTuple):
    """EXTENT_ITEM and METADATA_ITEM (which has no tree block info, as its key has the level)."""

    refs: int
    generation: int
    flags: int
    inline: tuple[Reference, ...]

    def pack(self) -> bytes:
        head = EXTENT_HEAD.pack(self.refs, self.generation, self.flags)
        return head + b"".join([each.pack() for each in self.inline])

    @classmethod
    def unpack(cls, data: bytes | memoryview, *, is_metadata_item: bool) -> Extent:
        refs, generation, flags = EXTENT_HEAD.unpack_from(data)
        at = EXTENT_HEAD.size
        if flags & EXTENT_IS_TREE_BLOCK and not is_metadata_item:
            at += 18
        inline = []
        while at < len(data):
            kind = data[at]
            if kind == EXTENT_DATA_REF:
                inline.append(Reference(kind, *DATA_REF.unpack_from(data, at + 1)))
                at += 1 + DATA_REF.size
                continue
            (offset,) = struct.unpack_from("<Q", data, at + 1)
            at += INLINE_REF.size
            uses = 1
            if kind == SHARED_DATA_REF:
                uses = int.from_bytes(data[at : at + 4], "little")
                at += 4
            inline.append(Reference(kind, offset, uses=uses))
        return cls(refs, generation, flags, tuple(inline))


EXTENT_HEAD = struct.Struct("<QQQ")


class BlockGroup(NamedTuple):
    used: int
    flags: int  # BLOCK_GROUP_*
    chunk_objectid: int = 256

    def pack(self) -> bytes:
        return _BLOCK_GROUP.pack(self.used, self.chunk_objectid, self.flags)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> BlockGroup:
        used, chunk_objectid, flags = _BLOCK_GROUP.unpack_from(data)
        return cls(used, flags, chunk_objectid)


_BLOCK_GROUP = struct.Struct("<QQQ")


class DevExtent(NamedTuple):
    """A part of a device that belongs to the chunk at `chunk_offset`."""

    chunk_offset: int
    length: int
    chunk_tree_uuid: bytes

    def pack(self) -> bytes:
        return _DEV_EXTENT.pack(3, 256, self.chunk_offset, self.length, self.chunk_tree_uuid)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> DevExtent:
        return cls(*_DEV_EXTENT.unpack_from(data)[2:])


_DEV_EXTENT = struct.Struct("<QQQQ16s")


class FreeSpaceInfo(NamedTuple):
    extent_count: int
    flags: int = 0  # 1: the free space of this block group is in bitmaps

    def pack(self) -> bytes:
        return _FREE_SPACE_INFO.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> FreeSpaceInfo:
        return cls._make(_FREE_SPACE_INFO.unpack_from(data))


_FREE_SPACE_INFO = struct.Struct("<II")
