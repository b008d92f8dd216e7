"""Layers of container images: tar files of entries, and of whiteouts for what is gone."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterable
from typing import Protocol

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.entries import Entries, Entry, groups_of_names

_WHITEOUT = ".wh."
_XATTR = "SCHILY.xattr."


class Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


def write_layer(out: Writable, entries: Entries, removed: Iterable[str] = ()) -> None:
    """Write a layer: the same entries give the same bytes. Raises MorphError for names that mean
    something else in a layer."""
    groups = groups_of_names(entries)
    members: list[tuple[str, Entry | None]] = [*entries.items()]
    members += [(_whiteout(path), None) for path in removed]
    with tarfile.open(
        mode="w|",
        fileobj=out,  # type: ignore[call-overload]
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for path, entry in members:
            if entry is None:
                archive.addfile(tarfile.TarInfo(path))
                continue
            if path.rpartition("/")[2].startswith(_WHITEOUT):
                raise MorphError(
                    f"the system has a file /{path}: in images of containers, names that start "
                    f"with {_WHITEOUT} say that a file is gone",
                    reason=Reason.DEPLOY,
                )
            _add(archive, path, entry, groups.get(path, (path,))[0])


def _whiteout(path: str) -> str:
    directory, slash, name = path.rpartition("/")
    return f"{directory}{slash}{_WHITEOUT}{name}"


def _add(archive: tarfile.TarFile, path: str, entry: Entry, first: str) -> None:
    member = tarfile.TarInfo(f"{path}/" if path == "." else path)
    member.mode = stat.S_IMODE(entry.mode)
    member.uid, member.gid, member.mtime = entry.uid, entry.gid, entry.mtime
    member.pax_headers = {
        _XATTR + name: value.decode("utf-8", "surrogateescape") for name, value in entry.attributes
    }
    if first != path:
        member.type, member.linkname = tarfile.LNKTYPE, first
    elif entry.is_directory:
        member.type = tarfile.DIRTYPE
    elif entry.is_symlink:
        member.type, member.linkname = tarfile.SYMTYPE, entry.target
    elif stat.S_ISFIFO(entry.mode):
        member.type = tarfile.FIFOTYPE
    elif entry.is_device:
        is_block = stat.S_ISBLK(entry.mode)
        member.type = tarfile.BLKTYPE if is_block else tarfile.CHRTYPE
        member.devmajor, member.devminor = entry.numbers
    else:
        member.size = entry.size
        with entry.source.open("rb") as file:
            archive.addfile(member, file)
        return
    archive.addfile(member)
