"""The extent tree: who refers to each extent and each block, and how full block groups are."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from morphlib.images.btrfs.btree import Item, Placed, largest_item
from morphlib.images.btrfs.extents import (
    DATA_REF,
    EXTENT_HEAD,
    EXTENT_IS_DATA,
    EXTENT_IS_TREE_BLOCK,
    INLINE_REF,
    BlockGroup,
    Reference,
)
from morphlib.images.btrfs.fstree import GENERATION, Subtree
from morphlib.images.btrfs.layout import (
    BLOCK_GROUP_ITEM,
    EXTENT_DATA_REF,
    EXTENT_ITEM,
    METADATA_ITEM,
    TREE_BLOCK_REF,
    data_ref_hash,
)
from morphlib.images.btrfs.space import Group

_DATA = struct.Struct(EXTENT_HEAD.format + "B" + DATA_REF.format[1:])
_BLOCK = struct.Struct(EXTENT_HEAD.format + INLINE_REF.format[1:])


def data_items(subtree: Subtree, node_size: int) -> Iterator[Item]:
    """The items of a subvolume's data.

    Snapshots refer to it, too, if they share no leaf: if there is but one, they have a copy.
    """
    tree = subtree.tree
    if tree.snapshots and not tree.level:
        for piece in subtree.pieces:
            refs = [
                Reference(EXTENT_DATA_REF, root, piece.objectid, piece.file_offset)
                for root in (tree.owner, *tree.snapshots)
            ]
            yield from _shared(piece.bytenr, EXTENT_ITEM, piece.length, refs, node_size)
        return
    pack, owner = _DATA.pack, tree.owner
    for bytenr, length, objectid, file_offset, _ in subtree.pieces:
        content = pack(
            *(1, GENERATION, EXTENT_IS_DATA, EXTENT_DATA_REF, owner, objectid, file_offset, 1)
        )
        yield bytenr, EXTENT_ITEM, length, content


def block_items(blocks: Iterable[Placed], node_size: int) -> Iterator[Item]:
    pack = _BLOCK.pack
    for bytenr, level, owners in blocks:
        if len(owners) == 1:
            content = pack(1, GENERATION, EXTENT_IS_TREE_BLOCK, TREE_BLOCK_REF, owners[0])
            yield bytenr, METADATA_ITEM, level, content
        else:
            refs = [Reference(TREE_BLOCK_REF, owner) for owner in owners]
            yield from _shared(bytenr, METADATA_ITEM, level, refs, node_size)


def group_items(groups: Iterable[tuple[Group, int]]) -> Iterator[Item]:
    for group, used in groups:
        content = BlockGroup(used, group.flags).pack()
        yield group.start, BLOCK_GROUP_ITEM, group.length, content


def _shared(
    bytenr: int, kind: int, offset: int, refs: Sequence[Reference], node_size: int
) -> Iterator[Item]:
    """An extent with several references: in order in its item, as far as kernels let it grow."""
    flags = EXTENT_IS_DATA if kind == EXTENT_ITEM else EXTENT_IS_TREE_BLOCK
    content = EXTENT_HEAD.pack(len(refs), GENERATION, flags)
    limit = (largest_item(node_size) + 25) // 16 - 25
    alone = []
    for ref in sorted(refs, key=_sequence, reverse=True):
        packed = ref.pack()
        if len(content) + len(packed) < limit:
            content += packed
        else:
            alone.append(ref)
    yield bytenr, kind, offset, content
    for ref in alone:
        yield bytenr, ref.type, _sequence(ref), ref.pack_alone()


def _sequence(ref: Reference) -> int:
    if ref.type == EXTENT_DATA_REF:
        return data_ref_hash(ref.offset, ref.objectid, ref.file_offset)
    return ref.offset
