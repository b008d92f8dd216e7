"""Making a btrfs image from trees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from morphlib.images.btrfs.model import Entry

#: What boot loaders may use at the start of the filesystem, in bytes.
RESERVED = 64 * 1024


def create_image(
    path: Path,
    size: int,
    entries: Sequence[Entry],
    *,
    fsid: UUID,
    time: int,
    label: str = "",
    offset: int | None = None,
    reserved: bytes = b"",
    node_size: int = 16384,
    metadata_copies: int = 2,
) -> None:
    """Make a filesystem of `size` bytes that holds `entries` besides its top directory.

    Without `offset`, `path` becomes a new sparse file, which gets its name only when it is
    complete. With `offset` (bytes), the filesystem goes into that place of the existing file or
    block device `path` and the rest of it stays as it is. `time` (seconds since 1970) is that of
    everything that the trees give no time for. `reserved` goes to the start of the filesystem, up
    to 64 KiB, for boot loaders. The same arguments and trees give the same bytes.

    Raises MorphError if the size is too small (saying the least that would do, before anything is
    written), if a tree can't be read or changes meanwhile, or if there is no room on this machine.
    """
    raise NotImplementedError


def least_size(
    entries: Sequence[Entry], *, node_size: int = 16384, metadata_copies: int = 2
) -> int:
    """The least size in bytes with which `create_image` makes these entries into an image.

    It leaves next to no room for anything else. Raises MorphError if a tree can't be read.
    """
    raise NotImplementedError


def write_reserved(path: Path, content: bytes, *, at: int = 0, offset: int = 0) -> None:
    """Write boot loader bytes at `at` of the first 64 KiB of the filesystem at `offset`.

    Raises MorphError if they would reach beyond that area or can't be written.
    """
    raise NotImplementedError
