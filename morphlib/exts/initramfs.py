"""Packs a system as an initramfs."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.aside import check_new_file, new_file
from morphlib.writeexts.devices import Device
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.tree import Tree

_PIECE = 1 << 20
_LARGEST = (1 << 32) - 1  # of any number in a header
_END = "TRAILER!!!"  # the name of what ends an archive


class WriteInitramfs(WriteExtension):
    description = """
        Write the system as an initramfs: a cpio archive (newc) of the tree, compressed with
        gzip. Meant for a subsystem whose parent names the same place in INITRAMFS_PATH. The system
        needs /init, or the parent `rdinit=` in KERNEL_ARGS.
        """
    location_help = "Path of the file; directories on the way are made."
    wrong_mode = "Cannot upgrade an initramfs: deploy it anew."

    def check(self, location: str, given: Parameters) -> None:
        check_new_file(Path(location))

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        # No name and no time: equal trees give equal files.
        with (
            new_file(Path(location), parents=True) as part,
            part.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        ):
            write_cpio(tree.root, packed, self.devices)


def write_cpio(root: Path, out: BinaryIO | gzip.GzipFile, devices: Mapping[str, Device]) -> None:
    """Write a tree as a cpio archive of the form that kernels unpack, sorted by name.

    The content of a file with several names comes with the last of them. Sockets are left out.
    Raises MorphError for what such an archive can't hold.
    """
    archive = _Archive(out)
    links: dict[tuple[int, int], list[str]] = {}
    numbers = {path: number for number, path in enumerate(_walk(root), 1)}
    for path in numbers:
        found = os.lstat(root / path)
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            links.setdefault((found.st_dev, found.st_ino), []).append(path)
    for path, number in numbers.items():
        found = os.lstat(root / path)
        _check(path, found)
        device = devices.get(path)
        if device is not None:
            archive.add(number, path, device.mode, device.uid, device.gid, 0, rdev=device.number)
            continue
        names = links.get((found.st_dev, found.st_ino), [path])
        last = path == names[-1]
        archive.add_found(numbers[names[0]], path, found, root, len(names), content=last)
    archive.finish()


def _check(path: str, found: os.stat_result) -> None:
    """Raises MorphError for what would end the archive early or garble it."""
    if path == _END:
        problem = "that name says in an archive that it ends"
    elif stat.S_ISREG(found.st_mode) and found.st_size > _LARGEST:
        problem = "files of 4 GiB and more have no room in it"
    else:
        return
    raise MorphError(f"/{path} can't be in an initramfs: {problem}", reason=Reason.DEPLOY)


def _walk(root: Path) -> Iterator[str]:
    yield "."
    for directory, folders, files in os.walk(root):
        folders.sort()
        relative = os.path.relpath(directory, root)
        links = [each for each in folders if os.path.islink(os.path.join(directory, each))]  # noqa: PTH114, PTH118
        for name in sorted([*folders, *files]):
            path = name if relative == "." else f"{relative}/{name}"
            if not stat.S_ISSOCK(os.lstat(root / path).st_mode):
                yield path
        folders[:] = [each for each in folders if each not in links]


class _Archive:
    def __init__(self, out: BinaryIO | gzip.GzipFile) -> None:
        self._out = out

    def add(
        self,
        inode: int,
        path: str,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        *,
        size: int = 0,
        links: int = 1,
        rdev: int = 0,
    ) -> None:
        """A header; `size` bytes of content have to follow."""
        name = path.encode("utf-8", "surrogateescape") + b"\0"
        fields = (inode, mode, uid, gid, links, mtime, size, 0, 0)
        numbers = (*fields, os.major(rdev), os.minor(rdev), len(name), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers)
        self._out.write(header + name + b"\0" * (-(len(header) + len(name)) % 4))

    def add_found(
        self,
        inode: int,
        path: str,
        found: os.stat_result,
        root: Path,
        links: int,
        *,
        content: bool,
    ) -> None:
        size, data = 0, b""
        if stat.S_ISLNK(found.st_mode):
            data = os.fsencode((root / path).readlink())
            size = len(data)
        elif stat.S_ISREG(found.st_mode) and content:
            size = found.st_size
        self.add(
            inode,
            path,
            found.st_mode,
            found.st_uid,
            found.st_gid,
            min(max(int(found.st_mtime), 0), _LARGEST),
            size=size,
            links=links,
            rdev=found.st_rdev,
        )
        if stat.S_ISREG(found.st_mode) and size:
            with (root / path).open("rb") as file:
                while piece := file.read(_PIECE):
                    self._out.write(piece)
        self._out.write(data + b"\0" * (-size % 4))

    def finish(self) -> None:
        self.add(0, _END, 0, 0, 0, 0)


WRITE = WriteInitramfs()
