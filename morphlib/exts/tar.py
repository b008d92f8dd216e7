"""Writes a system as a tar file."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from morphlib.process import run
from morphlib.writeexts.aside import check_new_file, new_file
from morphlib.writeexts.base import UnknownChangeError, read_base
from morphlib.writeexts.basetar import write_base_tar
from morphlib.writeexts.devices import Device
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.parameters import Parameters
from morphlib.writeexts.tree import Tree


class WriteTar(WriteExtension):
    description = """
        Write the system as a tar file, uncompressed, with numeric owners, extended attributes
        and names that start with `./`, sorted. An existing file is replaced when the new one is
        whole.
        """
    location_help = """
        Path of the tar file, relative to the definitions if it does not start with /; directories
        on the way are made.
        """
    wrong_mode = "Cannot upgrade a tar file deployment."

    def check(self, location: str, given: Parameters) -> None:
        check_new_file(Path(location))

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        with new_file(Path(location), parents=True) as part:
            if part.is_file():
                self._write(tree, part)
                return
            # Device nodes are added at the end, for which tapes and pipes can't be read again.
            with tempfile.NamedTemporaryFile() as whole, part.open("wb") as out:
                self._write(tree, Path(whole.name))
                shutil.copyfileobj(whole, out)

    def _write(self, tree: Tree, archive: Path) -> None:
        base = read_base(self.environment)
        try:
            if base is not None:
                write_base_tar(base, archive)
                return
        except UnknownChangeError as error:
            self.status(msg=f"{error}: the whole tree is read")
        write_tar(tree.root, archive, self.devices)


def write_tar(root: Path, archive: Path, devices: Mapping[str, Device]) -> None:
    """Write a tree as a tar, with device nodes in the place of the files that stand for them.

    Sockets, which tar has no way to hold, are left out. Raises MorphError.
    """
    with tempfile.NamedTemporaryFile() as stand_ins:
        names = b"".join(
            b"./" + name.encode("utf-8", "surrogateescape") + b"\0" for name in devices
        )
        stand_ins.write(names)
        stand_ins.flush()
        run(
            [
                "tar",
                "--create",
                f"--file={archive}",
                f"--directory={root}",
                "--force-local",
                "--format=posix",
                "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
                "--sort=name",
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
                "--anchored",
                "--no-wildcards",
                "--null",
                f"--exclude-from={stand_ins.name}",
                "./",
            ]
        )
    if devices:
        _add_devices(archive, devices)


def _add_devices(archive: Path, devices: Mapping[str, Device]) -> None:
    with tarfile.open(archive, "a", format=tarfile.PAX_FORMAT) as file:
        for name, device in sorted(devices.items()):
            entry = tarfile.TarInfo(f"./{name}")
            entry.type = tarfile.BLKTYPE if device.is_block else tarfile.CHRTYPE
            entry.mode = device.mode & 0o7777
            entry.uid, entry.gid = device.uid, device.gid
            entry.devmajor, entry.devminor = device.major, device.minor
            file.addfile(entry)


WRITE = WriteTar()
