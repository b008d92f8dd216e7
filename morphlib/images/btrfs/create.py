"""Making a btrfs image from trees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import UUID

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.assembly import Assembly, Contents, assemble
from morphlib.images.btrfs.copying import copy_data
from morphlib.images.btrfs.fstree import GENERATION
from morphlib.images.btrfs.layout import (
    CHUNK_TREE,
    CSUM_TREE,
    DEV_TREE,
    EXTENT_TREE,
    FS_TREE,
    ROOT_TREE,
    SECTOR,
)
from morphlib.images.btrfs.model import Entry
from morphlib.images.btrfs.plan import plan
from morphlib.images.btrfs.space import Group, Profile
from morphlib.images.btrfs.superblock import (
    BACKUPS,
    COMPAT_RO_FREE_SPACE_TREE,
    COMPAT_RO_FREE_SPACE_TREE_VALID,
    INCOMPAT_BIG_METADATA,
    INCOMPAT_EXTENDED_IREF,
    INCOMPAT_MIXED_BACKREF,
    INCOMPAT_NO_HOLES,
    INCOMPAT_SKINNY_METADATA,
    LABEL_SIZE,
    MIRRORS,
    BackupRoots,
    Superblock,
)
from morphlib.images.btrfs.superblock import SIZE as SUPERBLOCK_SIZE
from morphlib.images.btrfs.systemtrees import Identity, chunk_of
from morphlib.images.btrfs.target import Target, new_image, place_in

#: What boot loaders may use at the start of the filesystem, in bytes.
RESERVED = 64 * 1024

_FIRST_CHUNK_AT = 1 << 20
_BATCH = 4 << 20
_COMPAT_RO = COMPAT_RO_FREE_SPACE_TREE | COMPAT_RO_FREE_SPACE_TREE_VALID
_INCOMPAT = (
    INCOMPAT_MIXED_BACKREF | INCOMPAT_EXTENDED_IREF | INCOMPAT_SKINNY_METADATA | INCOMPAT_NO_HOLES
)


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
    _check_reserved(reserved, 0)
    name = label.encode("utf-8", "surrogateescape")
    if len(name) >= LABEL_SIZE or b"\0" in name:
        raise MorphError(f"{label!r} is no label for btrfs: it is too long", reason=Reason.DEPLOY)
    identity = Identity(fsid, time, node_size)
    contents = _contents(entries, identity, metadata_copies)
    assembly = assemble(contents, size // SECTOR * SECTOR)
    if assembly.end > size:
        raise MorphError(
            f"{path} is too small for what is to be in it: it would have {size} bytes, "
            f"and has to have {assembly.end} at least",
            reason=Reason.SPACE,
        )
    if offset is None:
        with new_image(path, size) as target:
            _write(target, assembly, name, reserved)
    else:
        with place_in(path, size, offset) as target:
            target.clear(0, _FIRST_CHUNK_AT)
            _write(target, assembly, name, reserved)


def least_size(
    entries: Sequence[Entry], *, node_size: int = 16384, metadata_copies: int = 2
) -> int:
    """The least size in bytes with which `create_image` makes these entries into an image.

    It leaves next to no room for anything else. Raises MorphError if a tree can't be read.
    """
    identity = Identity(UUID(int=0), 0, node_size)
    return assemble(_contents(entries, identity, metadata_copies), None).end


def write_reserved(path: Path, content: bytes, *, at: int = 0, offset: int = 0) -> None:
    """Write boot loader bytes at `at` of the first 64 KiB of the filesystem at `offset`.

    Raises MorphError if they would reach beyond that area or can't be written.
    """
    _check_reserved(content, at)
    with place_in(path, RESERVED, offset) as target:
        target.write(content, at)


def _check_reserved(content: bytes, at: int) -> None:
    if at < 0 or at + len(content) > RESERVED:
        raise MorphError(
            f"boot loaders have {RESERVED} bytes of a btrfs, and {len(content)} at {at} "
            "would not fit there",
            reason=Reason.DEPLOY,
        )


def _contents(entries: Sequence[Entry], identity: Identity, copies: int) -> Contents:
    if copies not in (1, 2):
        raise ValueError(f"{copies} copies of metadata")
    roots = plan(entries, identity.node_size, identity.time)
    return Contents(roots, identity, Profile(identity.node_size, copies))


def _write(target: Target, assembly: Assembly, label: bytes, reserved: bytes) -> None:
    """The superblocks come last: without them, there is no filesystem."""
    assembly.set_csums(copy_data(target, assembly.contents.pieces()))
    _write_blocks(target, assembly)
    if reserved:
        target.write(reserved, 0)
    superblock = _superblock(assembly, label)
    for mirror in reversed(MIRRORS):
        if mirror + SUPERBLOCK_SIZE < assembly.device.total_bytes:
            target.write(superblock._replace(bytenr=mirror).pack(), mirror)


def _write_blocks(target: Target, assembly: Assembly) -> None:
    """Write all blocks of trees, many at once where they follow each other."""
    start = end = 0
    batch: list[bytes] = []
    groups = [group for group, _ in assembly.groups]
    for address, block in assembly.blocks():
        if address != end or len(batch) * len(block) >= _BATCH:
            _write_copies(target, groups, start, batch)
            start, batch = address, []
        batch.append(block)
        end = address + len(block)
    _write_copies(target, groups, start, batch)


def _write_copies(
    target: Target, groups: Iterable[Group], start: int, batch: Sequence[bytes]
) -> None:
    """Write blocks that follow each other, which may do so in more than one chunk."""
    data = memoryview(b"".join(batch))
    for group in groups:
        first, last = max(start, group.start), min(start + len(data), group.end)
        if first < last:
            for place in group.places:
                target.write(data[first - start : last - start], place + first - group.start)


def _superblock(assembly: Assembly, label: bytes) -> Superblock:
    identity, trees = assembly.contents.identity, assembly.trees
    used = sum(used for _, used in assembly.groups)
    system = assembly.groups[0][0]
    roots = BackupRoots(
        *(trees[ROOT_TREE].root(), GENERATION, trees[CHUNK_TREE].root(), GENERATION),
        *(trees[EXTENT_TREE].root(), GENERATION, trees[FS_TREE].root(), GENERATION),
        *(trees[DEV_TREE].root(), GENERATION, trees[CSUM_TREE].root(), GENERATION),
        *(assembly.device.total_bytes, used, 1),
        *(trees[ROOT_TREE].level, trees[CHUNK_TREE].level, trees[EXTENT_TREE].level),
        *(trees[FS_TREE].level, trees[DEV_TREE].level, trees[CSUM_TREE].level),
    )
    return Superblock(
        fsid=identity.fsid.bytes,
        bytenr=MIRRORS[0],
        generation=GENERATION,
        root=trees[ROOT_TREE].root(),
        chunk_root=trees[CHUNK_TREE].root(),
        total_bytes=assembly.device.total_bytes,
        bytes_used=used,
        node_size=identity.node_size,
        chunk_root_generation=GENERATION,
        compat_ro_flags=_COMPAT_RO,
        incompat_flags=_INCOMPAT | (INCOMPAT_BIG_METADATA if identity.node_size > SECTOR else 0),
        root_level=trees[ROOT_TREE].level,
        chunk_root_level=trees[CHUNK_TREE].level,
        dev_item=assembly.device,
        label=label,
        cache_generation=0,
        uuid_tree_generation=GENERATION,
        system_chunks=((system.start, chunk_of(system, identity)),),
        backups=(roots, *([BackupRoots()] * (BACKUPS - 1))),
    )
