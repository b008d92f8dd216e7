"""Writes a system as an ext4 image."""

from __future__ import annotations

import tempfile
from pathlib import Path
from uuid import uuid5

from morphlib.errors import MorphError, Reason
from morphlib.images.ext4 import DEBUGFS, E2FSCK, MKE2FS, SMALLEST, Identity, fill_ext4, make_ext4
from morphlib.images.programs import check_there
from morphlib.writeexts.aside import check_new_file, new_file
from morphlib.writeexts.entries import read_entries
from morphlib.writeexts.ext4tree import geometry, script_for
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.imageidentity import identify
from morphlib.writeexts.parameters import Parameters, parameter_error, size, text
from morphlib.writeexts.sourcedate import source_date
from morphlib.writeexts.tree import Tree

DISK_SIZE = size(
    "DISK_SIZE",
    "How large the file system is.",
    shown="what the system needs, and a quarter more",
)
LABEL = text("EXT4_LABEL", "The label of the file system, up to 16 bytes.", "baserock")

_LONGEST_LABEL = 16


class WriteExt4(WriteExtension):
    description = """
        Write the system as an ext4 image: a file system without partitions or boot loader, such as
        virtual machines boot with a kernel that they are given. It has owners, links, extended
        attributes and device nodes. The file has holes where nothing is in it.

        Nothing is mounted, so this needs no root. Equal systems give equal bytes, UUID included; no
        time in it is later than that of SOURCE_DATE_EPOCH.
        """
    location_help = """
        Path of the image, relative to the definitions if not starting with /; directories on the
        way are made.
        """
    wrong_mode = "Cannot upgrade an ext4 image: deploy it anew."
    parameters = (DISK_SIZE, LABEL)

    def check(self, location: str, given: Parameters) -> None:
        check_there([MKE2FS, DEBUGFS, E2FSCK], what="ext4 images")
        if len(given[LABEL].encode("utf-8", "surrogateescape")) > _LONGEST_LABEL:
            raise parameter_error(
                f"EXT4_LABEL {given[LABEL]} is longer than {_LONGEST_LABEL} bytes"
            )
        if 0 < given[DISK_SIZE] < SMALLEST:
            raise parameter_error(f"DISK_SIZE {given[DISK_SIZE]} is too small: 1m is the least")
        source_date(given.environment)
        if Path(location).exists() and not Path(location).is_file():
            raise MorphError(f"{location} is there and no file", reason=Reason.DEPLOY)
        check_new_file(Path(location))

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        self.check(location, given)
        time = source_date(given.environment)
        entries = read_entries(tree.root, self.devices, newest=time)
        label = given[LABEL]
        identity = Identity(uuid5(identify(tree, given, self.devices), label), label, time)
        with (
            tempfile.TemporaryDirectory() as values,
            new_file(Path(location), parents=True) as part,
        ):
            script = script_for(entries, Path(values))
            make_ext4(part, geometry(entries, given[DISK_SIZE]), identity)
            fill_ext4(part, script, identity)


WRITE = WriteExt4()
