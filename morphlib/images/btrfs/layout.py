"""The on-disk format of btrfs: constants, keys, checksums and the blocks of B-trees.

Names are those of the kernel's `btrfs_tree.h` without the prefix. `superblock`, `inodes`, `roots`
and `extents` have the rest. All numbers are little-endian; sizes and addresses are in bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from crc32c import crc32c

SECTOR = 4096
STRIPE_LEN = 64 * 1024
MAX_EXTENT = 128 << 20
NAME_LEN = 255
CSUM_SIZE = 4  # crc32c, the one kind of checksum that is known here

# Trees, as owners of blocks and objectids of their root items.
ROOT_TREE = 1
EXTENT_TREE = 2
CHUNK_TREE = 3
DEV_TREE = 4
FS_TREE = 5
ROOT_TREE_DIR = 6
CSUM_TREE = 7
QUOTA_TREE = 8
UUID_TREE = 9
FREE_SPACE_TREE = 10
BLOCK_GROUP_TREE = 11
DATA_RELOC_TREE = (1 << 64) - 9

# Other objectids.
DEV_ITEMS = 1
EMPTY_SUBVOL_DIR = 2
EXTENT_CSUM_OBJECTID = (1 << 64) - 10
ORPHAN_OBJECTID = (1 << 64) - 5
FIRST_FREE = 256  # the first subvolume, and the top directory of each subvolume
LAST_FREE = (1 << 64) - 256
FIRST_CHUNK = 256

# Types of items.
INODE_ITEM = 1
INODE_REF = 12
INODE_EXTREF = 13
XATTR_ITEM = 24
ORPHAN_ITEM = 48
DIR_ITEM = 84
DIR_INDEX = 96
EXTENT_DATA = 108
EXTENT_CSUM = 128
ROOT_ITEM = 132
ROOT_BACKREF = 144
ROOT_REF = 156
EXTENT_ITEM = 168
METADATA_ITEM = 169
TREE_BLOCK_REF = 176
EXTENT_DATA_REF = 178
SHARED_BLOCK_REF = 182
SHARED_DATA_REF = 184
BLOCK_GROUP_ITEM = 192
FREE_SPACE_INFO = 198
FREE_SPACE_EXTENT = 199
FREE_SPACE_BITMAP = 200
DEV_EXTENT = 204
DEV_ITEM = 216
CHUNK_ITEM = 228
UUID_SUBVOL = 251
UUID_RECEIVED_SUBVOL = 252

# Types of names in directories.
FT_REG_FILE = 1
FT_DIR = 2
FT_CHRDEV = 3
FT_BLKDEV = 4
FT_FIFO = 5
FT_SOCK = 6
FT_SYMLINK = 7
FT_XATTR = 8

# Flags of chunks and block groups.
BLOCK_GROUP_DATA = 1 << 0
BLOCK_GROUP_SYSTEM = 1 << 1
BLOCK_GROUP_METADATA = 1 << 2
BLOCK_GROUP_DUP = 1 << 5

HEADER_WRITTEN = 1
MIXED_BACKREF_REV = 1 << 56


class Key(NamedTuple):
    """What items are found by; keys are ordered as tuples."""

    objectid: int
    type: int
    offset: int

    def pack(self) -> bytes:
        return KEY.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | memoryview, at: int = 0) -> Key:
        return cls._make(KEY.unpack_from(data, at))


KEY = struct.Struct("<QBQ")


class Header(NamedTuple):
    """The head of a block of a tree, without its checksum."""

    fsid: bytes
    bytenr: int  # its logical address
    flags: int  # the revision of back references in the top byte
    chunk_tree_uuid: bytes
    generation: int
    owner: int
    nritems: int
    level: int  # 0: a leaf

    @classmethod
    def unpack(cls, block: bytes | memoryview) -> Header:
        return cls._make(_HEADER.unpack_from(block, 32))


_HEADER = struct.Struct("<16sQQ16sQQIB")
HEADER_SIZE = 32 + _HEADER.size

#: An item's place in a leaf: its key (three fields), the start of its data from the end of the
#: header, and the length.
ITEM = struct.Struct("<QBQII")
#: A pointer in a node: a key (three fields), the child's address and generation.
KEY_PTR = struct.Struct("<QBQQQ")


class Child(NamedTuple):
    """A pointer in a node."""

    key: Key
    blockptr: int
    generation: int


class Block(NamedTuple):
    """What is the same in all blocks that one writes."""

    node_size: int
    fsid: bytes
    chunk_tree_uuid: bytes
    generation: int

    def leaf(self, bytenr: int, owner: int, items: bytes, count: int, contents: bytes) -> bytes:
        """A leaf of `count` packed `ITEM`s, and their data, that of the last item first."""
        return self._seal(bytenr, owner, 0, count, items, contents)

    def node(self, bytenr: int, owner: int, level: int, children: Sequence[Child]) -> bytes:
        pointers = b"".join([KEY_PTR.pack(*key, at, born) for key, at, born in children])
        return self._seal(bytenr, owner, level, len(children), pointers, b"")

    def _seal(
        self, bytenr: int, owner: int, level: int, count: int, front: bytes, back: bytes
    ) -> bytes:
        flags = HEADER_WRITTEN | MIXED_BACKREF_REV
        body = b"".join(
            (
                _HEADER.pack(
                    *(self.fsid, bytenr, flags, self.chunk_tree_uuid),
                    *(self.generation, owner, count, level),
                ),
                front,
                bytes(self.node_size - HEADER_SIZE - len(front) - len(back)),
                back,
            )
        )
        return checksum(body).ljust(32, b"\0") + body


def leaf_items(block: bytes | memoryview) -> Iterator[tuple[Key, memoryview]]:
    """The items of a leaf. Raises struct.error or IndexError if it is damaged."""
    view = memoryview(block)
    for index in range(Header.unpack(view).nritems):
        objectid, kind, offset, start, size = ITEM.unpack_from(
            view, HEADER_SIZE + index * ITEM.size
        )
        if HEADER_SIZE + start + size > len(view):
            raise IndexError("an item reaches beyond its leaf")
        yield Key(objectid, kind, offset), view[HEADER_SIZE + start : HEADER_SIZE + start + size]


def node_children(block: bytes | memoryview) -> Iterator[Child]:
    """The pointers of a node. Raises struct.error if it is damaged."""
    for index in range(Header.unpack(block).nritems):
        *key, blockptr, generation = KEY_PTR.unpack_from(block, HEADER_SIZE + index * KEY_PTR.size)
        yield Child(Key._make(key), blockptr, generation)


def is_whole(block: bytes | memoryview) -> bool:
    """Whether a block of a tree, or a superblock, has the checksum that its content has."""
    view = memoryview(block)
    return bytes(view[:CSUM_SIZE]) == checksum(view[32:])


def checksum(data: bytes | memoryview) -> bytes:
    """As in blocks and in the tree of checksums."""
    return crc32c(data).to_bytes(CSUM_SIZE, "little")


def name_hash(name: bytes) -> int:
    """The offset of the keys of DIR_ITEM and XATTR_ITEM."""
    return ~crc32c(name, 1) & 0xFFFFFFFF


def extref_hash(parent: int, name: bytes) -> int:
    """The offset of the key of INODE_EXTREF."""
    return ~crc32c(name, ~parent & 0xFFFFFFFF) & 0xFFFFFFFF


def data_ref_hash(root: int, objectid: int, offset: int) -> int:
    """The offset of the key of EXTENT_DATA_REF, and the order of such references in an item."""
    high = ~crc32c(root.to_bytes(8, "little")) & 0xFFFFFFFF
    low = ~crc32c(struct.pack("<QQ", objectid, offset)) & 0xFFFFFFFF
    return (high << 31) ^ low
