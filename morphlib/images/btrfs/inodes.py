"""Items of subvolumes: inodes, names, extended attributes and data of files."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from morphlib.images.btrfs.layout import (
    FT_BLKDEV,
    FT_CHRDEV,
    FT_DIR,
    FT_FIFO,
    FT_REG_FILE,
    FT_SOCK,
    FT_SYMLINK,
    Key,
)

EXTENT_INLINE, EXTENT_REGULAR, EXTENT_PREALLOCATED = 0, 1, 2

#: What names in directories say of the type of what they name, by the bits in its mode.
FILE_TYPES = {
    stat.S_IFREG: FT_REG_FILE,
    stat.S_IFDIR: FT_DIR,
    stat.S_IFCHR: FT_CHRDEV,
    stat.S_IFBLK: FT_BLKDEV,
    stat.S_IFIFO: FT_FIFO,
    stat.S_IFSOCK: FT_SOCK,
    stat.S_IFLNK: FT_SYMLINK,
}

#: Seconds since 1970 and nanoseconds.
Time = tuple[int, int]


class InodeItem(NamedTuple):
    generation: int
    transid: int
    size: int  # of a directory: that of all names, twice
    nbytes: int
    nlink: int
    uid: int
    gid: int
    mode: int
    rdev: int = 0
    flags: int = 0
    sequence: int = 0
    atime: Time = (0, 0)
    ctime: Time = (0, 0)
    mtime: Time = (0, 0)
    otime: Time = (0, 0)

    def pack(self) -> bytes:
        return INODE.pack(*self[:4], 0, *self[4:11], *self[11], *self[12], *self[13], *self[14])

    @classmethod
    def unpack(cls, data: bytes | memoryview, at: int = 0) -> InodeItem:
        found = INODE.unpack_from(data, at)
        times = tuple(zip(found[12::2], found[13::2], strict=True))
        return cls._make((*found[:4], *found[5:12], *times))


INODE = struct.Struct("<QQQQQIIIIQQQ32xqIqIqIqI")


def encode_rdev(device: int) -> int:
    """A device number of `os.makedev` as inodes have it: that of the kernel inside."""
    return os.major(device) << 20 | os.minor(device)


def decode_rdev(rdev: int) -> int:
    return os.makedev(rdev >> 20, rdev & 0xFFFFF)


class DirItem(NamedTuple):
    """A name in a directory, or an extended attribute (with `data`, and no location)."""

    location: Key
    transid: int
    type: int  # FT_*
    name: bytes
    data: bytes = b""

    def pack(self) -> bytes:
        sizes = (len(self.data), len(self.name))
        head = DIR_ENTRY.pack(*self.location, self.transid, *sizes, self.type)
        return head + self.name + self.data

    @classmethod
    def unpack_all(cls, data: bytes | memoryview) -> Iterator[DirItem]:
        """All in an item: names with the same hash share one."""
        at = 0
        while at < len(data):
            *key, transid, data_len, name_len, kind = DIR_ENTRY.unpack_from(data, at)
            name_at = at + DIR_ENTRY.size
            at = name_at + name_len + data_len
            name = bytes(data[name_at : name_at + name_len])
            yield cls(Key._make(key), transid, kind, name, bytes(data[name_at + name_len : at]))


DIR_ENTRY = struct.Struct("<QBQQHHB")


class InodeRef(NamedTuple):
    """A name of an inode. The offset of the key is the directory of an INODE_REF."""

    dir_index: int
    name: bytes

    def pack(self) -> bytes:
        return INODE_REF_HEAD.pack(self.dir_index, len(self.name)) + self.name

    @classmethod
    def unpack_all(cls, data: bytes | memoryview) -> Iterator[InodeRef]:
        at = 0
        while at < len(data):
            dir_index, size = INODE_REF_HEAD.unpack_from(data, at)
            at += INODE_REF_HEAD.size + size
            yield cls(dir_index, bytes(data[at - size : at]))


INODE_REF_HEAD = struct.Struct("<QH")


class InodeExtref(NamedTuple):
    """A name of an inode for which its INODE_REF of the directory `parent` has no room."""

    parent: int
    dir_index: int
    name: bytes

    def pack(self) -> bytes:
        return _EXTREF.pack(self.parent, self.dir_index, len(self.name)) + self.name

    @classmethod
    def unpack_all(cls, data: bytes | memoryview) -> Iterator[InodeExtref]:
        at = 0
        while at < len(data):
            parent, dir_index, size = _EXTREF.unpack_from(data, at)
            at += _EXTREF.size + size
            yield cls(parent, dir_index, bytes(data[at - size : at]))


_EXTREF = struct.Struct("<QQH")


class FileExtent(NamedTuple):
    """Data of a file, in place (`inline`) or in an extent; `disk_bytenr` of a hole is 0."""

    generation: int
    ram_bytes: int
    compression: int = 0
    type: int = EXTENT_REGULAR
    disk_bytenr: int = 0
    disk_num_bytes: int = 0
    offset: int = 0
    num_bytes: int = 0
    inline: bytes = b""

    def pack(self) -> bytes:
        head = FILE_EXTENT_HEAD.pack(self.generation, self.ram_bytes, self.compression, self.type)
        if self.type == EXTENT_INLINE:
            return head + self.inline
        return head + _FILE_EXTENT_PLACE.pack(*self[4:8])

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> FileExtent:
        head = FILE_EXTENT_HEAD.unpack_from(data)
        if head[3] == EXTENT_INLINE:
            return cls._make((*head, 0, 0, 0, 0, bytes(data[FILE_EXTENT_HEAD.size :])))
        return cls(*head, *_FILE_EXTENT_PLACE.unpack_from(data, FILE_EXTENT_HEAD.size))


FILE_EXTENT_HEAD = struct.Struct("<QQB3xB")  # after the compression: encryption, other encodings
_FILE_EXTENT_PLACE = struct.Struct("<QQQQ")
#: All fields of an extent that is not inline.
FILE_EXTENT = struct.Struct("<QQB3xBQQQQ")
