"""Writes a system as a squashfs image."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.images.programs import Program, check_there
from morphlib.process import run
from morphlib.writeexts.aside import check_new_file, new_file
from morphlib.writeexts.devices import Device
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.parameters import Parameters, choice, parameter_error, size
from morphlib.writeexts.sourcedate import source_date
from morphlib.writeexts.tree import Tree

MKSQUASHFS = Program("mksquashfs", "squashfs-tools")

_SMALLEST, _LARGEST = 4 << 10, 1 << 20


class Compression(StrEnum):
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    LZ4 = "lz4"
    LZO = "lzo"


COMPRESSION = choice(
    "SQUASHFS_COMPRESSION",
    "How it is compressed: gzip, xz, zstd, lz4 or lzo. The kernel that mounts it has to know it.",
    Compression.GZIP,
)
BLOCK_SIZE = size(
    "SQUASHFS_BLOCK_SIZE",
    "How much is compressed at a time: a power of 2 from 4k to 1m. Larger blocks make a smaller "
    "image, of which more is read for a byte of a file.",
    128 << 10,
    shown="128k",
)


class WriteSquashfs(WriteExtension):
    description = """
        Write the system as a squashfs image: a compressed file system that can only be read, with
        owners, links, device nodes and extended attributes, but not access control lists. An
        existing file is replaced when the new one is whole.

        Equal systems give equal bytes; no time in it is later than that of SOURCE_DATE_EPOCH.
        """
    location_help = """
        Path of the image, relative to the definitions if not starting with /; directories on the
        way are made.
        """
    wrong_mode = "Cannot upgrade a squashfs image: deploy it anew."
    parameters = (COMPRESSION, BLOCK_SIZE)

    def check(self, location: str, given: Parameters) -> None:
        check_there([MKSQUASHFS], what="squashfs images")
        block = given[BLOCK_SIZE]
        if not _SMALLEST <= block <= _LARGEST or block & (block - 1):
            raise parameter_error(
                f"SQUASHFS_BLOCK_SIZE is a power of 2 from 4k to 1m, not {block} bytes"
            )
        source_date(given.environment)
        check_new_file(Path(location))

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        self.check(location, given)
        with new_file(Path(location), parents=True) as part:
            write_squashfs(
                tree.root,
                part,
                self.devices,
                compression=given[COMPRESSION],
                block_size=given[BLOCK_SIZE],
                time=source_date(given.environment),
            )


def write_squashfs(
    root: Path,
    image: Path,
    devices: Mapping[str, Device],
    *,
    compression: Compression = Compression.GZIP,
    block_size: int = BLOCK_SIZE.default,
    time: int,
) -> None:
    """Write a tree as a squashfs, with device nodes in the place of the files that stand for them.

    Raises MorphError.
    """
    with tempfile.NamedTemporaryFile(suffix=".pseudo") as table:
        lines = (_pseudo(path, device) for path, device in sorted(devices.items()))
        table.write(b"".join(lines))
        table.flush()
        argv: list[str | Path] = [
            *(str(MKSQUASHFS), root.resolve(), image.resolve()),
            *("-noappend", "-no-progress", "-quiet", "-no-recovery", "-exit-on-error"),
            *("-comp", compression, "-b", str(block_size), "-xattrs"),
            # Otherwise it depends on whether files have holes where the tree lies. Zeros take no
            # room worth mentioning when they are compressed.
            "-no-sparse",
        ]
        if devices:
            argv += ["-pf", table.name, "-e", *(root.resolve() / path for path in devices)]
        # It makes mksquashfs take the time for its own, and for whatever is later.
        run(argv, env={**os.environ, "SOURCE_DATE_EPOCH": str(time)})


def _pseudo(path: str, device: Device) -> bytes:
    if "\n" in path:
        raise MorphError(
            f"the device node /{path!r} can't be in a squashfs image: there is a newline in its "
            "name",
            reason=Reason.DEPLOY,
        )
    name = path.replace("\\", "\\\\").replace('"', '\\"')
    kind = "b" if device.is_block else "c"
    mode = oct(stat.S_IMODE(device.mode))[2:]
    line = f'"{name}" {kind} {mode} {device.uid} {device.gid} {device.major} {device.minor}\n'
    return line.encode("utf-8", "surrogateescape")


WRITE = WriteSquashfs()
