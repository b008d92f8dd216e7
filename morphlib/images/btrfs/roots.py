"""Items about trees and subvolumes: roots, their names, and where UUIDs are found."""

from __future__ import annotations

import struct
from typing import NamedTuple
from uuid import UUID

from morphlib.images.btrfs.inodes import Time
from morphlib.images.btrfs.layout import UUID_SUBVOL, Key

ROOT_READ_ONLY = 1


class RootItem(NamedTuple):
    """The root of a tree. Only subvolumes have what comes after `level`."""

    inode: bytes  # packed InodeItem
    generation: int
    root_dirid: int
    bytenr: int
    bytes_used: int
    level: int
    last_snapshot: int = 0
    flags: int = 0
    refs: int = 1
    uuid: bytes = bytes(16)
    parent_uuid: bytes = bytes(16)
    received_uuid: bytes = bytes(16)
    ctransid: int = 0
    otransid: int = 0
    stransid: int = 0
    rtransid: int = 0
    ctime: Time = (0, 0)
    otime: Time = (0, 0)
    stime: Time = (0, 0)
    rtime: Time = (0, 0)

    def pack(self) -> bytes:
        return _ROOT_ITEM.pack(
            *(self.inode, self.generation, self.root_dirid, self.bytenr, 0, self.bytes_used),
            *(self.last_snapshot, self.flags, self.refs, self.level, self.generation),
            *(self.uuid, self.parent_uuid, self.received_uuid, self.ctransid, self.otransid),
            *(self.stransid, self.rtransid, *self.ctime, *self.otime, *self.stime, *self.rtime),
        )

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> RootItem:
        """Also the short form that kernels before 3.6 write."""
        full = bytes(data).ljust(_ROOT_ITEM.size, b"\0")
        found = _ROOT_ITEM.unpack_from(full)
        inode, generation, root_dirid, bytenr, _, bytes_used, last_snapshot, flags, refs = found[:9]
        level, generation_v2, uuid, parent, received = found[9:14]
        ctransid, otransid, stransid, rtransid, c, cn, o, on, s, sn, r, rn = found[14:]
        if generation != generation_v2:  # a kernel that does not know the rest wrote it last
            return cls(
                *(inode, generation, root_dirid, bytenr, bytes_used, level, last_snapshot, flags),
                refs,
            )
        return cls(
            *(inode, generation, root_dirid, bytenr, bytes_used, level, last_snapshot, flags, refs),
            *(uuid, parent, received, ctransid, otransid, stransid, rtransid),
            *((c, cn), (o, on), (s, sn), (r, rn)),
        )


_ROOT_ITEM = struct.Struct("<160sQQQQQQQI17xxBQ16s16s16sQQQQqIqIqIqI64x")
assert _ROOT_ITEM.size == 439


class RootRef(NamedTuple):
    """The name of a subvolume: ROOT_REF (parent to child) and ROOT_BACKREF (child to parent)."""

    dirid: int  # the directory in the parent
    sequence: int  # the index in that directory
    name: bytes

    def pack(self) -> bytes:
        return _ROOT_REF.pack(self.dirid, self.sequence, len(self.name)) + self.name

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> RootRef:
        dirid, sequence, size = _ROOT_REF.unpack_from(data)
        return cls(dirid, sequence, bytes(data[_ROOT_REF.size : _ROOT_REF.size + size]))


_ROOT_REF = struct.Struct("<QQH")


def uuid_key(uuid: bytes, kind: int = UUID_SUBVOL) -> Key:
    """The key of the UUID tree under which the ids of subvolumes (8 bytes each) are."""
    low, high = struct.unpack("<QQ", uuid)
    return Key(low, kind, high)


def to_uuid(packed: bytes) -> UUID | None:
    """None for one that is not set."""
    return UUID(bytes=packed) if any(packed) else None
