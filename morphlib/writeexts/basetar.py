"""A tar of a system that few files were changed of: its artifact's members as they are, but for
their names, with those of the changes in their places."""

from __future__ import annotations

import mmap
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.base import (
    Base,
    Changes,
    UnknownChangeError,
    is_overlay_attribute,
    read_changes,
)

_BLOCK = 512
_PIECE = 4 << 20
_MOST_PIECES = os.sysconf("SC_IOV_MAX") - 2  # that are written at once
_RECORD = 10240
_LINK, _FILE = tarfile.LNKTYPE[0], tarfile.REGTYPE[0]
_PLAIN = frozenset(b"0123456")
_LONG = frozenset(tarfile.GNUTYPE_LONGNAME + tarfile.GNUTYPE_LONGLINK)
_DOT_SLASH = sum(b"./")  # what a header's sum grows by with it
_ZEROS = bytes(2 * _BLOCK)
_XATTR = "SCHILY.xattr."
_TYPES: Mapping[int, bytes] = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def write_base_tar(base: Base, archive: Path) -> None:
    """Write the tar. Raises UnknownChangeError if the tree has to be read instead, MorphError."""
    try:
        changes = read_changes(base.changes)
        with base.artifact.open("rb") as source, archive.open("wb", buffering=0) as out:
            # It is closed when the last piece of it is gone, which a failure may keep for a while.
            content = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
            _Merge(content, out, changes).run()
    except OSError as error:
        raise _cannot_write(archive, error) from error


def write_changes_tar(changes: Changes, archive: Path) -> None:
    """Write a tar of all that the overlay has itself. Raises MorphError."""
    try:
        with archive.open("wb", buffering=0) as out:
            writing = _Entries(out, changes)
            writing.add_until(None)
            writing.finish()
    except OSError as error:
        raise _cannot_write(archive, error) from error


def _cannot_write(archive: Path, error: OSError) -> MorphError:
    return MorphError(f"can't write {archive}: {error.strerror or error}", reason=Reason.DEPLOY)


class _Merge:
    def __init__(self, source: mmap.mmap, out: BinaryIO, changes: Changes) -> None:
        self._source = source
        self._entries = _Entries(out, changes)
        self._hidden, self._below = changes.hides()

    def run(self) -> None:
        entries, hidden, below = self._entries, self._hidden, self._below
        write, source, next_key = entries.write, memoryview(self._source), entries.next_key
        for path, beginning, start, end in self._members():
            if next_key is not None and next_key <= _key(path):
                entries.add_until(_key(path))
                next_key = entries.next_key
            if path in hidden or (below and path.startswith(below)):
                continue
            write(beginning, source[start:end])
        entries.add_until(None)
        entries.finish()

    def _members(self) -> Iterator[tuple[str, bytes, int, int]]:
        """Each member: its path, what its header is to begin with, where the rest of its header and
        its data are."""
        source, position = self._source, 0
        long: dict[int, str] = {}
        while True:
            header = source[position : position + _BLOCK]
            kind = header[156] if len(header) == _BLOCK else 0
            start = position + _BLOCK
            if kind in _LONG:
                size = int(header[124:135], 8)
                long[kind] = os.fsdecode(source[start : start + size].rstrip(b"\0"))
                position = start + size + -size % _BLOCK
                continue
            if kind not in _PLAIN:
                if header == _ZEROS[:_BLOCK]:
                    return
                raise UnknownChangeError(f"the artifact has a member of type {kind}")
            name = header[: header.index(b"\0")] if header[99] == 0 else header[:100]
            if long or len(name) > 98 or kind == _LINK or header[124] & 0x80 or header[108] & 0x80:
                path, header, size = self._unusual(header, long)
                long = {}
                position = start + size + -size % _BLOCK
                yield path, header, start, position
                continue
            size = int(header[124:135], 8) if kind == _FILE else 0
            path = os.fsdecode(name)
            if path.endswith("/"):
                path = path[:-1]
            end = start + size + -size % _BLOCK
            if path == ".":
                yield path, header, start, end
            else:
                total = int(header[148:154], 8) + _DOT_SLASH
                beginning = b"./%b%b%06o\0 " % (name, header[len(name) + 2 : 148], total)
                yield path, beginning, position + len(beginning), end
            position = end

    def _unusual(self, header: bytes, long: Mapping[int, str]) -> tuple[str, bytes, int]:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        path = _path(long.get(tarfile.GNUTYPE_LONGNAME[0], info.name))
        target = long.get(tarfile.GNUTYPE_LONGLINK[0], info.linkname)
        info.name, info.linkname = _shown(path), target
        if info.islnk():
            first = _path(target)
            # Another of its names would have to take its content.
            if first in self._hidden or first.startswith(self._below):
                raise UnknownChangeError(f"{first} was changed, and has other names")
            info.linkname = _shown(first)
        return path, _header(info), info.size if info.isreg() else 0


class _Entries:
    """A tar in the making, to which the entries of changes are added in their order."""

    def __init__(self, out: BinaryIO, changes: Changes) -> None:
        self._out = out
        self._directory = changes.directory
        self._fresh = iter(changes.entries.items())
        self._next = next(self._fresh, None)
        self.next_key = _key(self._next[0]) if self._next else None
        self._pieces: list[bytes | memoryview] = []
        self._size = 0
        self._first_names: dict[tuple[int, int], str] = {}

    def add_until(self, key: str | None) -> None:
        """Those that come no later than `key`, or all."""
        while self._next is not None and self.next_key is not None:
            if key is not None and self.next_key > key:
                return
            self._add(*self._next)
            self._next = next(self._fresh, None)
            self.next_key = _key(self._next[0]) if self._next else None

    def _add(self, path: str, status: os.stat_result) -> None:
        place = self._directory if path == "." else self._directory / path
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return  # tar has no way to hold it
        info = tarfile.TarInfo(_shown(path))
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
        info.pax_headers = _attributes(place)
        if kind == stat.S_IFREG:
            first = self._first_names.setdefault((status.st_dev, status.st_ino), path)
            if first == path:
                self._add_file(info, place)
                return
            info.type, info.linkname = tarfile.LNKTYPE, _shown(first)
        else:
            info.type = _TYPES[kind]
        if kind == stat.S_IFLNK:
            info.linkname = str(place.readlink())
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self.write(_header(info))

    def _add_file(self, info: tarfile.TarInfo, place: Path) -> None:
        with place.open("rb", buffering=0) as file:
            info.size = left = os.fstat(file.fileno()).st_size
            self.write(_header(info))
            while left:
                block = file.read(min(left, _PIECE))
                if not block:
                    raise MorphError(
                        f"{place} became shorter while it was written", reason=Reason.DEPLOY
                    )
                left -= len(block)
                self.write(block)
                self._flush()
        self.write(bytes(-info.size % _BLOCK))

    def write(self, *pieces: bytes | memoryview) -> None:
        self._pieces += pieces
        if len(self._pieces) >= _MOST_PIECES:
            self._flush()

    def _flush(self) -> None:
        pieces = self._pieces
        left = sum(map(len, pieces))
        self._size += left
        while left:
            written = os.writev(self._out.fileno(), pieces)
            left -= written
            if left:
                pieces = _after(pieces, written)
        self._pieces.clear()

    def finish(self) -> None:
        self.write(_ZEROS)
        self._flush()
        self.write(bytes(-self._size % _RECORD))
        self._flush()


def _after(pieces: Sequence[bytes | memoryview], size: int) -> list[bytes | memoryview]:
    """The pieces without their first `size` bytes."""
    left = list(pieces)
    while size and size >= len(left[0]):
        size -= len(left.pop(0))
    left[0] = memoryview(left[0])[size:]
    return left


def _key(path: str) -> str:
    """By which members are sorted in artifacts."""
    return "" if path == "." else f"/{path}"


def _path(name: str) -> str:
    return name.removeprefix("./").rstrip("/") or "."


def _shown(path: str) -> str:
    return "./" if path == "." else f"./{path}"


def _header(info: tarfile.TarInfo) -> bytes:
    if info.isdir() and info.name != "./":
        info.name += "/"
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _attributes(place: Path) -> dict[str, str]:
    found = {}
    for name in sorted(os.listxattr(place, follow_symlinks=False)):
        if not is_overlay_attribute(name):
            value = os.getxattr(place, name, follow_symlinks=False)
            found[_XATTR + name] = value.decode("utf-8", "surrogateescape")
    return found
