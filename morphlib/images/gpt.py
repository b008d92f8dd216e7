"""GUID partition tables, as the UEFI specification (chapter 5) describes them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from morphlib.errors import MorphError, Reason

ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
#: An attribute: the partition that firmware or boot code for BIOS starts.
LEGACY_BOOT = 1 << 2
#: Partitions begin at multiples of this, in bytes, which suits all disks.
ALIGNMENT = 1 << 20

_SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_ENTRIES, _TABLE_SIZE = 128, 128 * 128
_MBR_CODE = 440


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition; `start` and `size` are in bytes."""

    kind: UUID
    guid: UUID
    name: str
    start: int
    size: int
    attributes: int = 0


def usable(size: int, sector: int = 512) -> int:
    """Where the space for partitions ends on a disk of `size` bytes, aligned."""
    table = -(-_TABLE_SIZE // sector) * sector
    return (size // sector * sector - sector - table) // ALIGNMENT * ALIGNMENT


def write_table(
    disk: Path,
    size: int,
    guid: UUID,
    partitions: Sequence[Partition],
    *,
    sector: int = 512,
    boot_code: bytes = b"",
) -> None:
    """Write both copies of a table to a disk or image of `size` bytes.

    `sector` is the disk's, in bytes. `boot_code` is for the protective master boot record, at most
    440 bytes. Raises MorphError if the code is too long or the disk can't be written.
    """
    if len(boot_code) > _MBR_CODE:
        raise MorphError("boot code has room for 440 bytes only", reason=Reason.DEPLOY)
    sectors = size // sector
    table = b"".join(_entry(each, sector) for each in partitions).ljust(_TABLE_SIZE, b"\0")
    table_sectors = -(-_TABLE_SIZE // sector)
    last = sectors - 1
    first_usable, last_usable = 2 + table_sectors, last - table_sectors - 1

    def header(here: int, there: int, table_at: int) -> bytes:
        def pack(crc: int) -> bytes:
            return _HEADER.pack(
                *(_SIGNATURE, 0x10000, _HEADER.size, crc, 0, here, there),
                *(first_usable, last_usable, guid.bytes_le, table_at),
                *(_ENTRIES, _ENTRY.size, zlib.crc32(table)),
            )

        return pack(zlib.crc32(pack(0)))

    try:
        fd = os.open(disk, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _write(fd, table, (last - table_sectors) * sector)
            _write(fd, header(last, 1, last - table_sectors), last * sector)
            _write(fd, table, 2 * sector)
            _write(fd, header(1, last, 2).ljust(sector, b"\0"), sector)
            _write(fd, _protective_mbr(sectors, boot_code), 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise MorphError(f"can't write {disk}: {error.strerror}", reason=Reason.DEPLOY) from error


def _write(fd: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written


def _entry(partition: Partition, sector: int) -> bytes:
    first = partition.start // sector
    return _ENTRY.pack(
        partition.kind.bytes_le,
        partition.guid.bytes_le,
        first,
        first + partition.size // sector - 1,
        partition.attributes,
        partition.name.encode("utf-16-le"),
    )


def _protective_mbr(sectors: int, boot_code: bytes) -> bytes:
    """One partition of all the disk, for those who know no GUID partition tables."""
    entry = struct.pack(
        "<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF)
    )
    return boot_code.ljust(446, b"\0") + entry + bytes(48) + b"\x55\xaa"


def read_table(disk: Path, *, sector: int = 512) -> tuple[Partition, ...]:
    """The partitions of a disk, in their order; none if it has no such table.

    Raises MorphError if there is a table that is damaged, or the disk can't be read.
    """
    try:
        fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
        try:
            header = os.pread(fd, _HEADER.size, sector)
            if len(header) < _HEADER.size or not header.startswith(_SIGNATURE):
                return ()
            fields = _HEADER.unpack(header)
            crc, table_at, count, entry_size, table_crc = fields[3], *fields[10:14]
            blank = header[:16] + bytes(4) + header[20:]
            if zlib.crc32(blank) != crc or entry_size < _ENTRY.size or count * entry_size > 1 << 20:
                raise _damaged(disk)
            table = os.pread(fd, count * entry_size, table_at * sector)
        finally:
            os.close(fd)
    except OSError as error:
        raise MorphError(f"can't read {disk}: {error.strerror}", reason=Reason.DEPLOY) from error
    if zlib.crc32(table) != table_crc:
        raise _damaged(disk)
    found = (_partition(table, at, sector) for at in range(0, len(table), entry_size))
    return tuple(each for each in found if each.kind.int)


def _partition(table: bytes, at: int, sector: int) -> Partition:
    kind, guid, first, last, attributes, name = _ENTRY.unpack_from(table, at)
    return Partition(
        kind=UUID(bytes_le=kind),
        guid=UUID(bytes_le=guid),
        name=name.decode("utf-16-le", "replace").partition("\0")[0],
        start=first * sector,
        size=(last - first + 1) * sector,
        attributes=attributes,
    )


def _damaged(disk: Path) -> MorphError:
    return MorphError(f"the partition table of {disk} is damaged", reason=Reason.DEPLOY)
