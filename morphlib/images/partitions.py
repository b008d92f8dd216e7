"""Partitions of a disk or image, whichever kind of table it has."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.images.gpt import read_table

_ENTRIES = struct.Struct("<B3xB3xII")
_FIRST_ENTRY, _ENTRY_SIZE = 446, 16
_NOT_DATA = {0x00, 0x05, 0x0F, 0x85, 0xEE}  # empty, containers of others, and GPT's placeholder


def partition_starts(disk: Path, *, sector: int = 512) -> tuple[int, ...]:
    """Where partitions begin, in bytes, in the order of the table; none if there is no table.

    Of a master boot record only primary partitions are seen. Raises MorphError if there is a table
    that is damaged, or the disk can't be read.
    """
    found = read_table(disk, sector=sector)
    if found:
        return tuple(partition.start for partition in found)
    return tuple(_primary(_first_sector(disk), sector))


def _primary(record: bytes, sector: int) -> Iterator[int]:
    if len(record) < 512 or record[510:512] != b"\x55\xaa":
        return
    for number in range(4):
        at = _FIRST_ENTRY + number * _ENTRY_SIZE
        status, kind, start, sectors = _ENTRIES.unpack_from(record, at)
        # Boot sectors of file systems have the same mark at the end, but code in this place.
        if status & 0x7F:
            return
        if kind not in _NOT_DATA and start and sectors:
            yield start * sector


def _first_sector(disk: Path) -> bytes:
    try:
        fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, 512, 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise MorphError(f"can't read {disk}: {error.strerror}", reason=Reason.DEPLOY) from error
