"""Copying data of files into an image, with the checksum of each sector."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Protocol

from crc32c import crc32c

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.fstree import Piece
from morphlib.images.btrfs.layout import SECTOR
from morphlib.images.btrfs.planned import Data
from morphlib.images.btrfs.scan import OPEN_FLAGS, changed, check_unchanged

_BUFFER = 4 << 20


class DataTarget(Protocol):
    """What is written to. Raises OSError or MorphError."""

    def write(self, data: bytes | memoryview, at: int) -> None:
        """Write at a logical address."""
        ...


def copy_data(target: DataTarget, pieces: Iterable[Piece]) -> bytes:
    """Write data, which is in the order of its addresses. Gives the checksums of all sectors.

    Data of many small files is written at once. Raises MorphError if a file can't be read or is
    not as it was found, and OSError if the image can't be written.
    """
    copier = _Copier(target)
    for piece in pieces:
        copier.add(piece)
    copier.flush()
    copier.close()
    return b"".join(copier.csums)


class _Copier:
    def __init__(self, target: DataTarget) -> None:
        self._target = target
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._filled = 0
        self._open: tuple[Data, int] | None = None
        self.csums: list[bytes] = []

    def add(self, piece: Piece) -> None:
        if piece.bytenr != self._start + self._filled:
            self.flush()
            self._start = piece.bytenr
        at, rest = piece.file_offset, piece.length
        while rest:
            if self._filled == _BUFFER:
                self.flush()
            size = min(rest, _BUFFER - self._filled)
            self._read(piece.data, at, self._buffer[self._filled : self._filled + size])
            self._filled += size
            at, rest = at + size, rest - size

    def _read(self, data: Data, at: int, room: memoryview) -> None:
        """Fill `room` with what is at `at`, and with zeros after the end."""
        size = min(len(room), data.size - at)
        if data.content is not None:
            room[:size] = data.content[at : at + size]
        else:
            self._read_file(data, at, room[:size])
        if size < len(room):
            room[size:] = bytes(len(room) - size)

    def _read_file(self, data: Data, at: int, room: memoryview) -> None:
        try:
            if self._open is None or self._open[0] is not data:
                self.close()
                fd = os.open(data.path, OPEN_FLAGS)
                self._open = data, fd
            fd = self._open[1]
            while room:
                count = os.preadv(fd, [room], at)
                if not count:
                    raise changed(data.path)
                at, room = at + count, room[count:]
        except OSError as error:
            raise _unreadable(data.path, error) from error

    def close(self) -> None:
        """Close the file that is being read, which has to be the same still."""
        if self._open is None:
            return
        (data, fd), self._open = self._open, None
        try:
            check_unchanged(fd, data.path, data.size, data.ino, data.mtime_ns)
        except OSError as error:
            raise _unreadable(data.path, error) from error
        finally:
            os.close(fd)

    def flush(self) -> None:
        filled = self._buffer[: self._filled]
        sectors = range(0, self._filled, SECTOR)
        csums = [crc32c(filled[at : at + SECTOR]) for at in sectors]
        self.csums.append(struct.pack(f"<{len(csums)}I", *csums))
        self._target.write(filled, self._start)
        self._start += self._filled
        self._filled = 0


def _unreadable(path: bytes, error: OSError) -> MorphError:
    return MorphError(f"can't read {os.fsdecode(path)}: {error.strerror}", reason=Reason.DEPLOY)


def runs(pieces: Iterable[Piece]) -> list[tuple[int, int]]:
    """Starts and lengths of what data takes, put together where it is without a gap."""
    found: list[tuple[int, int]] = []
    start = end = -1
    for piece in pieces:
        if piece.bytenr != end:
            if end > start:
                found.append((start, end - start))
            start = end = piece.bytenr
        end += piece.length
    if end > start:
        found.append((start, end - start))
    return found
