"""A disk of a benchmark's own: what is written to it nobody else wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.process import run

_PATH = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
_SECTOR = 512  # bytes, in the kernel's statistics of any disk
_SECTORS_WRITTEN = 6  # which field of these it is


@dataclass(frozen=True, slots=True)
class OwnDisk:
    """An ext4 on a loop device. `statistics` is the device's file in /sys."""

    statistics: Path

    def written(self) -> int:
        """Bytes written to it so far: data, metadata and journal, all that is to be written."""
        os.sync()
        return int(self.statistics.read_text().split()[_SECTORS_WRITTEN]) * _SECTOR


@contextmanager
def own_disk(directory: Path, size: int) -> Iterator[OwnDisk]:
    """Mount a new disk of `size` bytes on a directory, as long as the block runs.

    Its image lies beside the directory and is removed. Raises MorphError if it can't be made, which
    takes root.
    """
    if os.geteuid() != 0:
        raise MorphError("only root can have a disk mounted", reason=Reason.USAGE)
    image = directory.with_name(f"{directory.name}.disk")
    with image.open("wb") as file:
        file.truncate(size)
    try:
        # Or the kernel goes on writing the file system's tables for minutes.
        now = "lazy_itable_init=0,lazy_journal_init=0"
        run(["mkfs.ext4", "-q", "-F", "-E", now, image], env=_PATH)
        run(["mount", "-o", "loop,noatime", image, directory], env=_PATH)
        try:
            found = run(["findmnt", "-n", "-o", "SOURCE", "--mountpoint", directory], env=_PATH)
            device = found.stdout.decode().strip().rpartition("/")[2]
            yield OwnDisk(Path("/sys/class/block", device, "stat"))
        finally:
            run(["umount", directory], env=_PATH)
    finally:
        image.unlink()
