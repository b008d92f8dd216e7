"""Which filesystems can be changed here, and the superblocks that make changes count."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from morphlib.errors import MorphError, Reason
from morphlib.images.btrfs.layout import (
    CSUM_TREE,
    DEV_TREE,
    EXTENT_TREE,
    FS_TREE,
    QUOTA_TREE,
    ROOT_ITEM,
    UUID_TREE,
    Key,
    checksum,
)
from morphlib.images.btrfs.superblock import (
    BACKUPS,
    COMPAT_RO_FREE_SPACE_TREE,
    COMPAT_RO_FREE_SPACE_TREE_VALID,
    INCOMPAT_MIXED_GROUPS,
    INCOMPAT_SKINNY_METADATA,
    MIRRORS,
    SIZE,
)
from morphlib.images.btrfs.trees import StoredTree, TreeRoot, Trees, items_of
from morphlib.images.btrfs.volume import Volume

#: Trees whose roots superblocks note besides those of roots and chunks.
BACKED_UP = (EXTENT_TREE, FS_TREE, DEV_TREE, CSUM_TREE)

_KNOWN_COMPAT_RO = (
    COMPAT_RO_FREE_SPACE_TREE
    | COMPAT_RO_FREE_SPACE_TREE_VALID
    | 1 << 2  # fs-verity: of files that stay as they are
)
_FEATURES = {3: "a block group tree (`btrfstune --convert-from-block-group-tree` ends that)"}
_KNOWN_FLAGS = 0b11  # written; relocated
_BALANCE = Key((1 << 64) - 4, 248, 0)
_TREE_RELOC = (1 << 64) - 8
_BACKUP_SIZE = 168
_BACKUPS_AT = 0xB2B
_BACKUP = struct.Struct("<15Q32x6B10x")


def check_writable(volume: Volume) -> None:
    """Raise MorphError if the filesystem can't be changed as it is."""
    found = volume.superblock
    if found.bytenr != MIRRORS[0]:
        raise MorphError(
            f"the first superblock of the btrfs on {volume.path} is damaged",
            reason=Reason.DEPLOY,
            hint="`btrfs rescue super-recover` repairs it",
        )
    if found.log_root:
        raise volume.unsupported(
            "was not unmounted: there are files that were written and not stored in full",
            hint="Mount it once and unmount it, which completes them",
        )
    if found.flags & ~_KNOWN_FLAGS:
        raise volume.unsupported("is a seed, a dump, in error, or about to get another UUID")
    unknown = found.compat_ro_flags & ~_KNOWN_COMPAT_RO
    if unknown:
        bits = [bit for bit in range(64) if unknown >> bit & 1]
        names = ", ".join(_FEATURES.get(bit, f"number {bit}") for bit in bits)
        raise volume.unsupported(f"can be read here, but not changed: it has {names}")
    if not found.incompat_flags & INCOMPAT_SKINNY_METADATA:
        raise volume.unsupported(
            "is of an old kind (without skinny metadata)", hint="`btrfstune -x` changes that"
        )
    if found.incompat_flags & INCOMPAT_MIXED_GROUPS:
        raise volume.unsupported("has data and trees in the same block groups (--mixed)")
    last = found.total_bytes - 4096
    if len(volume.pread(last, 4096)) < 4096:
        raise volume.damaged("the image ends before the filesystem does")


def check_idle(trees: Trees) -> None:
    """Raise MorphError if something is going on that changes would disturb."""
    volume = trees.volume
    if any(True for _ in trees.items(trees.root, _BALANCE, _BALANCE)):
        raise volume.unsupported(
            "is being balanced", hint="Mount it and wait for, or cancel, `btrfs balance`"
        )
    roots = StoredTree(trees, trees.root)
    if any(True for _ in items_of(roots, _TREE_RELOC, ROOT_ITEM)):
        raise volume.unsupported(
            "was interrupted while being balanced", hint="Mount it once and unmount it"
        )
    if trees.tree(QUOTA_TREE) is not None:
        raise volume.unsupported(
            "has quotas, which can't be kept right here", hint="`btrfs quota disable` ends them"
        )


def changed_superblocks(
    volume: Volume,
    *,
    root: TreeRoot,
    chunk_root: TreeRoot,
    used: int,
    device_used: int,
    others: Mapping[int, TreeRoot],
) -> Iterator[tuple[int, bytes]]:
    """The superblocks of the new state, that which counts first, with their places.

    Where a kernel reads the first one, anyone who reads finds the old state or the new one.
    """
    old = volume.superblock
    block = bytearray(volume.raw_superblock)

    def put(at: int, value: int, size: int = 8) -> None:
        block[at : at + size] = value.to_bytes(size, "little")

    put(0x48, root.generation)
    put(0x50, root.bytenr)
    put(0x58, chunk_root.bytenr)
    put(0x78, used)
    put(0xA4, chunk_root.generation)
    put(0xC6, root.level, 1)
    put(0xC7, chunk_root.level, 1)
    put(0xC9 + 16, device_used)
    if UUID_TREE in others and old.uuid_tree_generation == old.generation:
        put(0x233, root.generation)
    generations = [each.tree_root_gen for each in old.backups]
    newest = generations.index(old.generation) if old.generation in generations else BACKUPS - 1
    at = _BACKUPS_AT + (newest + 1) % BACKUPS * _BACKUP_SIZE
    block[at : at + _BACKUP_SIZE] = _backup(volume, root, chunk_root, used, others)
    for place in MIRRORS:
        if place + SIZE < old.dev_item.total_bytes:
            put(0x30, place)
            block[:32] = checksum(bytes(block[32:])).ljust(32, b"\0")
            yield place, bytes(block)


def _backup(
    volume: Volume,
    root: TreeRoot,
    chunk_root: TreeRoot,
    used: int,
    others: Mapping[int, TreeRoot],
) -> bytes:
    trees = [root, chunk_root, *(others[each] for each in BACKED_UP)]
    places = [number for each in trees for number in (each.bytenr, each.generation)]
    levels = [each.level for each in trees]
    old = volume.superblock
    return _BACKUP.pack(*places, old.total_bytes, used, old.num_devices, *levels)
